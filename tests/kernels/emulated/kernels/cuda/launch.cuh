// Launches that the host runs itself, cluster by cluster (ptx.cuh beside this).
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline unsigned char* DynamicShared() { return emulated::thread->block->shared; }

template <typename Params>
cudaError_t LaunchClusters(void (*kernel)(Params), dim3 grid, dim3 block, unsigned size,
                           size_t shared_bytes, const LaunchContext&, const Params& params) {
  gridDim = grid;
  blockDim = block;
  emulated::body = [&] { kernel(params); };
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; x += size) {
        emulated::RunCluster(block, static_cast<int>(size), {x, y, z}, shared_bytes);
      }
    }
  }
  return cudaSuccess;
}
template <typename Params>
cudaError_t AllowShared(void (*)(Params), size_t shared_bytes) {
  return shared_bytes <= 227 * 1024 ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
