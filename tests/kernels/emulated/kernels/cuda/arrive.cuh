// Clusters that run one after the other (launch.cuh beside this): the last one merges.
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline bool LastToArrive(uint32_t* counter, uint32_t count) {
  emulated::Block& block = *emulated::thread->block;
  __syncthreads();
  if (threadIdx.x == 0) {
    block.last = ++*counter == count;
    if (block.last) *counter = 0;
  }
  __syncthreads();
  return block.last;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
