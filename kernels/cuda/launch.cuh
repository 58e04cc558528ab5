// Launching a kernel that takes one struct of parameters.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// The block's dynamic shared memory, aligned to 128 bytes.
__device__ __forceinline__ unsigned char* DynamicShared() {
  extern __shared__ __align__(128) unsigned char sirocco_dynamic_shared[];
  return sirocco_dynamic_shared;
}

// `shared_bytes` above 48 KiB need AllowShared first.
template <typename Params>
cudaError_t LaunchKernel(void (*kernel)(Params), dim3 grid, dim3 block, size_t shared_bytes,
                         const LaunchContext& context, const Params& params) {
  if (context.load_only) {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, kernel);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = context.stream;
  cudaLaunchAttribute programmatic;
  programmatic.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  programmatic.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &programmatic;
  config.numAttrs = SIROCCO_HOPPER && context.programmatic ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, params);
}

// Lets a kernel use this much dynamic shared memory; cheap to call before each launch. What a
// kernel may use without asking is 48 KiB, its static arrays included: those take less than 16.
template <typename Params>
cudaError_t AllowShared(void (*kernel)(Params), size_t shared_bytes) {
  if (shared_bytes <= 32 * 1024) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(shared_bytes));
}

// Asks for as much of a multiprocessor's memory as can be shared: then blocks of this kernel and of
// the one before it find room side by side.
template <typename Params>
cudaError_t PreferShared(void (*kernel)(Params)) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                              cudaSharedmemCarveoutMaxShared);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
