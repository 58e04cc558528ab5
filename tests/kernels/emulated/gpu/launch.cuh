// kernels/cuda/launch.cuh for the host: a launch runs the kernel before it returns.
#pragma once

#include "kernels/cuda/launch.h"
#include "tests/kernels/emulated/gpu/common.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline unsigned char* DynamicShared() { return emulated::Shared(); }

template <typename Params>
cudaError_t LaunchClusters(void (*kernel)(Params), dim3 grid, dim3 block, unsigned cluster,
                           size_t shared_bytes, const LaunchContext& context,
                           const Params& params) {
  if (context.load_only) return cudaSuccess;
  emulated::RunGrid(grid.x, block.x, cluster, shared_bytes, [&] { kernel(params); });
  return cudaSuccess;
}
template <typename Params>
cudaError_t AllowShared(void (*)(Params), size_t) {
  return cudaSuccess;
}
template <typename Params>
cudaError_t PreferShared(void (*)(Params)) {
  return cudaSuccess;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
