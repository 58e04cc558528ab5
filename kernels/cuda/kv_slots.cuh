// Where a slot stands in the KV cache.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Elements from kv.data to the key of `slot`, which `block` holds; its value stands
// kv.value_offset further.
__device__ __forceinline__ int64_t OffsetInBlock(const KvLayer& kv, int block, int kv_head,
                                                 int slot) {
  return block * kv.block_stride +
         (int64_t{kv_head} * kv.block_size + slot % kv.block_size) * kv.head_dim;
}

// The same, the block being found in the sequence's block table.
__device__ __forceinline__ int64_t SlotOffset(const KvLayer& kv, const int32_t* block_table,
                                              int kv_head, int slot) {
  return OffsetInBlock(kv, block_table[slot / kv.block_size], kv_head, slot);
}

// Whether every slot of `kv` begins at a multiple of 16 bytes and is a multiple of 8 elements.
__host__ __device__ inline bool SlotsAreWide(const KvLayer& kv) {
  return kv.head_dim % 8 == 0 && kv.block_stride % 8 == 0 && kv.value_offset % 8 == 0 &&
         IsAligned(kv.data, 16);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
