// Attention of a decode step of many short rows: pair_attention.cu.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/path.h"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Of what ClusterAttentionTakes. Needs neither scratch nor counters.
bool PairAttentionTakes(const DecodeRows& p, int multiprocessors);
cudaError_t LaunchPairAttention(const DecodeRows& p, const LaunchContext& context);

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
