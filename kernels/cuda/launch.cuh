// Launching a kernel that takes one struct of parameters.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/kernel_attributes.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// The block's dynamic shared memory, aligned to 128 bytes.
__device__ __forceinline__ unsigned char* DynamicShared() {
  extern __shared__ __align__(128) unsigned char sirocco_dynamic_shared[];
  return sirocco_dynamic_shared;
}

// In clusters of `cluster` blocks along x. `shared_bytes` above 48 KiB need AllowShared first.
template <typename Params>
cudaError_t LaunchClusters(void (*kernel)(Params), dim3 grid, dim3 block, unsigned cluster,
                           size_t shared_bytes, const LaunchContext& context,
                           const Params& params) {
  if (context.load_only) {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, kernel);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = context.stream;
  cudaLaunchAttribute attributes[2];
  config.attrs = attributes;
  if (SIROCCO_HOPPER && context.programmatic) {
    cudaLaunchAttribute& programmatic = attributes[config.numAttrs++];
    programmatic.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    programmatic.val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    cudaLaunchAttribute& dimension = attributes[config.numAttrs++];
    dimension.id = cudaLaunchAttributeClusterDimension;
    dimension.val.clusterDim = {cluster, 1, 1};
  }
  return cudaLaunchKernelEx(&config, kernel, params);
}

template <typename Params>
cudaError_t LaunchKernel(void (*kernel)(Params), dim3 grid, dim3 block, size_t shared_bytes,
                         const LaunchContext& context, const Params& params) {
  return LaunchClusters(kernel, grid, block, 1, shared_bytes, context, params);
}

// Lets a kernel use this much dynamic shared memory; for each launch (RaiseAttribute). What a kernel
// may use without asking is 48 KiB, its static arrays included: those take less than 16.
template <typename Params>
cudaError_t AllowShared(void (*kernel)(Params), size_t shared_bytes) {
  if (shared_bytes <= 32 * 1024) return cudaSuccess;
  return RaiseAttribute(reinterpret_cast<const void*>(kernel),
                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                        static_cast<int>(shared_bytes));
}

// Asks for as much of a multiprocessor's memory as can be shared: then blocks of this kernel and of
// the one before it find room side by side. For each launch, too.
template <typename Params>
cudaError_t PreferShared(void (*kernel)(Params)) {
  return RaiseAttribute(reinterpret_cast<const void*>(kernel),
                        cudaFuncAttributePreferredSharedMemoryCarveout,
                        cudaSharedmemCarveoutMaxShared);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
