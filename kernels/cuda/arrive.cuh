// The last thread block to arrive does the rest: how blocks of a grid hand on their parts.
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

struct SyncBlock {
  __device__ __forceinline__ void operator()() const { __syncthreads(); }
};

// Whether this block is the last of `count` to call it with this counter, for all its threads; the
// last one sees what the others had written before, and leaves the counter at zero. Also a barrier
// of the block, or of those of its threads that `sync` joins, thread 0 among them.
template <typename Sync = SyncBlock>
__device__ __forceinline__ bool LastToArrive(uint32_t* counter, uint32_t count,
                                             const Sync& sync = Sync()) {
  __shared__ bool is_last;
  sync();
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(counter, 1u) == count - 1;
    if (is_last) *counter = 0;
    __threadfence();
  }
  sync();
  return is_last;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
