// The last thread block to arrive does the rest: how blocks of a grid hand on their parts.
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Whether the calling thread is the last of `count` to call it with this counter. The last one sees
// what the others had written before, and leaves the counter at zero.
__device__ __forceinline__ bool ArriveLast(uint32_t* counter, uint32_t count) {
  __threadfence();
  const bool is_last = atomicAdd(counter, 1u) == count - 1;
  if (is_last) *counter = 0;
  __threadfence();
  return is_last;
}

// Of `count` that call Arrive once each; WaitForArrivals is another's, which sees what they had written
// before and leaves the counter at zero. Both by one thread, after a barrier of its block.
__device__ __forceinline__ void Arrive(uint32_t* counter) { AddRelease(counter, 1); }
__device__ __forceinline__ void WaitForArrivals(uint32_t* counter, uint32_t count) {
  while (LoadAcquire(counter) != count) {
  }
  *counter = 0;
}

struct SyncBlock {
  __device__ __forceinline__ void operator()() const { __syncthreads(); }
};

// The same of blocks, for all threads of each. Also a barrier of the block, or of those of its
// threads that `sync` joins, thread 0 among them.
template <typename Sync = SyncBlock>
__device__ __forceinline__ bool LastToArrive(uint32_t* counter, uint32_t count,
                                             const Sync& sync = Sync()) {
  __shared__ bool is_last;
  sync();
  if (threadIdx.x == 0) is_last = ArriveLast(counter, count);
  sync();
  return is_last;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
