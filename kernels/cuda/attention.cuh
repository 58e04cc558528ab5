// What decode and prefill attention share: where slots stand, what a score becomes, how eight
// elements are read and results written.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Slots are attended to in splits: slot / 256, whatever the rows beside (kernels/cpu/attend.h).
inline constexpr int kSplitSlots = 256;

__device__ __forceinline__ int FirstSlot(const AttentionShape& shape, int position) {
  return shape.window > 0 ? max(0, position - shape.window + 1) : 0;
}

// The score that softmax sees, of the bare product of q and k.
__device__ __forceinline__ float AdjustScore(const AttentionShape& shape, float product) {
  const float score = product * shape.scale;
  return shape.soft_cap > 0 ? shape.soft_cap * tanhf(score / shape.soft_cap) : score;
}

// Elements from kv.data to the key of `slot` in a sequence's block table; its value stands
// kv.value_offset further.
__device__ __forceinline__ int64_t SlotOffset(const KvLayer& kv, const int32_t* block_table,
                                              int kv_head, int slot) {
  const int block = slot / kv.block_size;
  const int within = slot - block * kv.block_size;
  return block_table[block] * kv.block_stride +
         (int64_t{kv_head} * kv.block_size + within) * kv.head_dim;
}

// Whether every slot of `kv` begins at a multiple of 16 bytes and is a multiple of 8 elements.
__host__ __device__ inline bool SlotsAreWide(const KvLayer& kv) {
  return kv.head_dim % 8 == 0 && kv.block_stride % 8 == 0 && kv.value_offset % 8 == 0 &&
         reinterpret_cast<uintptr_t>(kv.data) % 16 == 0;
}

// Eight elements at a multiple of 16 bytes, as float32.
template <typename T>
__device__ __forceinline__ void LoadEight(const T* from, float (&x)[8]) {
  if constexpr (sizeof(T) == 2) {
    const auto pack = LoadPack<T, 8>(from);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = ToFloat(pack.at[i]);
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto pack = LoadPack<T, 4>(from + 4 * half);
#pragma unroll
      for (int i = 0; i < 4; ++i) x[4 * half + i] = ToFloat(pack.at[i]);
    }
  }
}

// rows.data[at] as float32.
__device__ __forceinline__ float LoadElement(const Rows& rows, int64_t at) {
  switch (rows.dtype) {
    case DType::kBFloat16:
      return ToFloat(static_cast<const __nv_bfloat16*>(rows.data)[at]);
    case DType::kFloat16:
      return ToFloat(static_cast<const __half*>(rows.data)[at]);
    case DType::kFloat32:
      break;
  }
  return static_cast<const float*>(rows.data)[at];
}

// Four elements of a head at dimensions dim ... dim + 3, those below head_dim; `at` is the head's
// first element. A head_dim that is a multiple of 4 keeps them aligned.
template <typename T>
__device__ __forceinline__ void StoreFour(T* out, int64_t at, int dim, int head_dim,
                                          const float (&x)[4]) {
  if (head_dim % 4 == 0) {
    Pack<T, 4> pack;
#pragma unroll
    for (int i = 0; i < 4; ++i) pack.at[i] = FromFloat<T>(x[i]);
    StorePack(pack, out + at + dim);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (dim + i < head_dim) out[at + dim + i] = FromFloat<T>(x[i]);
  }
}
__device__ __forceinline__ void StoreFour(const Rows& rows, int64_t at, int dim, int head_dim,
                                          const float (&x)[4]) {
  switch (rows.dtype) {
    case DType::kBFloat16:
      return StoreFour(static_cast<__nv_bfloat16*>(rows.data), at, dim, head_dim, x);
    case DType::kFloat16:
      return StoreFour(static_cast<__half*>(rows.data), at, dim, head_dim, x);
    case DType::kFloat32:
      break;
  }
  StoreFour(static_cast<float*>(rows.data), at, dim, head_dim, x);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
