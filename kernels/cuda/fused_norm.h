// The norms of the fused operations as a kernel of their own, for products that take normed rows.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Writes `normed`, and `sum` where it is set (before the product).
cudaError_t LaunchNorms(const NormQkvParams& p, const LaunchContext& context);
cudaError_t LaunchNorms(const NormGateUpParams& p, const LaunchContext& context);
// Completes `hidden` where the layer has a post-norm or the product came in parts, and writes
// `normed` (after the product).
cudaError_t LaunchNorms(const DownEndParams& p, const LaunchContext& context);

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
