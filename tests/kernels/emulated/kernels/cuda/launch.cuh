// kernels/cuda/launch.cuh for the emulated GPU: a launch runs the kernel before it returns.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"
#include "tests/kernels/emulated/gpu.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr size_t kMostShared = 227 * 1024;  // of a block

inline unsigned char* DynamicShared() { return emulated::Shared(); }

template <typename Params>
cudaError_t LaunchClusters(void (*kernel)(Params), dim3 grid, dim3 block, unsigned cluster,
                           size_t shared_bytes, const LaunchContext& context,
                           const Params& params) {
  if (context.load_only) return cudaSuccess;
  if (shared_bytes > kMostShared) return cudaErrorInvalidValue;
  if (grid.x % cluster != 0) return cudaErrorInvalidConfiguration;
  emulated::RunGrid(grid, block.x, cluster, shared_bytes, [&] { kernel(params); });
  return cudaSuccess;
}
template <typename Params>
cudaError_t AllowShared(void (*)(Params), size_t shared_bytes) {
  return shared_bytes <= kMostShared ? cudaSuccess : cudaErrorInvalidValue;
}
template <typename Params>
cudaError_t PreferShared(void (*)(Params)) {
  return cudaSuccess;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
