// The last thread block to arrive does the rest: how blocks of a grid hand on their parts.
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Whether this block is the last of `count` to call it with this counter, for all its threads; the
// last one sees what the others had written before, and leaves the counter at zero. Also a barrier
// of the block.
__device__ __forceinline__ bool LastToArrive(uint32_t* counter, uint32_t count) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(counter, 1u) == count - 1;
    if (is_last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
