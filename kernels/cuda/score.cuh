// Scores of rows that were just sampled: the last kernel of LaunchSample.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Bytes of scratch for the scores of `rows` rows.
size_t ScoreScratch(int32_t rows, int32_t vocab);

// Where a lane asks for logprobs, completes out[row], whose token_id is set. `scratch` has
// ScoreScratch bytes and is aligned to 256; that of `context` is not used.
cudaError_t LaunchScoreSampled(const SampleParams& p, void* scratch, const LaunchContext& context);

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
