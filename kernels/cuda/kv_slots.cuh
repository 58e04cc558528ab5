// Where a slot stands in the KV cache, and its scale in one in float8.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/kv_scale.h"
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

// Whether every slot of `kv` begins at a multiple of 16 bytes and is a multiple of kElements of
// them: 8, of float8 16.
template <int kElements = 8>
__host__ __device__ inline bool SlotsAreWide(const KvLayer& kv) {
  return kv.head_dim % kElements == 0 && kv.block_stride % kElements == 0 &&
         kv.value_offset % kElements == 0 && IsAligned(kv.data, 16);
}

template <typename Kv>
inline constexpr bool kIsScaled = std::is_same_v<Kv, Float8>;
// Of SlotsAreWide.
template <typename Kv>
inline constexpr int kWideElements = kIsScaled<Kv> ? 16 : 8;

// The scales of k and of v of a slot, in float8: bytes 0 and 1.
__device__ __forceinline__ uint32_t LoadScales(const KvLayer& kv, int64_t block, int kv_head,
                                               int slot_in_block) {
  const uint8_t* const at =
      static_cast<const uint8_t*>(kv.data) + KvScaleOffset(kv, block, kv_head, slot_in_block);
  return __ldcg(reinterpret_cast<const uint16_t*>(at));
}
__device__ __forceinline__ void StoreScale(const KvLayer& kv, int block, int kv_head, int slot,
                                           bool is_v, uint8_t scale) {
  static_cast<uint8_t*>(kv.data)[KvScaleOffset(kv, block, kv_head, slot % kv.block_size) +
                                 (is_v ? 1 : 0)] = scale;
}
__device__ __forceinline__ float KeyScale(uint32_t scales) { return KvScaleValue(scales & 0xff); }
__device__ __forceinline__ float ValueScale(uint32_t scales) { return KvScaleValue(scales >> 8); }

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
