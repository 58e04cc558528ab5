// What decode and prefill attention share: which slots a row sees, what a score becomes, how
// queries are read and results written.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

__device__ __forceinline__ int FirstSlot(const AttentionShape& shape, int position) {
  return shape.window > 0 ? max(0, position - shape.window + 1) : 0;
}

// The heads of a decode step's attention, which the host knows, whatever the layer.
struct AttentionHeads {
  int32_t head_dim;
  int32_t kv_heads;
  int32_t heads_a_kv_head;
};
inline AttentionHeads HeadsOf(const DecodeRows& p) {
  const bool tabled = p.layer.table != nullptr;
  AttentionHeads of;
  of.head_dim = tabled ? p.layer.head_dim : p.kv.head_dim;
  of.kv_heads = tabled ? p.layer.kv_rows / of.head_dim : p.kv.kv_heads;
  of.heads_a_kv_head = (tabled ? p.layer.q_rows / of.head_dim : p.shape.heads) / of.kv_heads;
  return of;
}

inline DType KvTypeOf(const DecodeRows& p) {
  return p.layer.table != nullptr ? p.layer.kv_dtype : p.kv.dtype;
}

// The score that softmax sees, of the bare product of q and k.
__device__ __forceinline__ float AdjustScore(const AttentionShape& shape, float product) {
  const float score = product * shape.scale;
  return shape.soft_cap > 0 ? shape.soft_cap * tanhf(score / shape.soft_cap) : score;
}

// rows.data[at] as float32.
__device__ __forceinline__ float LoadElement(const Rows& rows, int64_t at) {
  switch (rows.dtype) {
    case DType::kBFloat16:
      return ToFloat(static_cast<const __nv_bfloat16*>(rows.data)[at]);
    case DType::kFloat16:
      return ToFloat(static_cast<const __half*>(rows.data)[at]);
    default:  // float32
      break;
  }
  return static_cast<const float*>(rows.data)[at];
}

// Four elements of a head at dimensions dim ... dim + 3, those below head_dim (which may be none:
// heads are worked on in eights); `at` is the head's first element. A head_dim that is a multiple of
// 4 keeps them aligned.
template <typename T>
__device__ __forceinline__ void StoreFour(T* out, int64_t at, int dim, int head_dim,
                                          const float (&x)[4]) {
  if (head_dim % 4 == 0) {
    if (dim < head_dim) StoreFloats<T, 4>(x, out + at + dim);
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
    default:  // float32
      break;
  }
  StoreFour(static_cast<float*>(rows.data), at, dim, head_dim, x);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
