// The norms that stand before the fused operations: what joins the residual stream first, and the
// normed rows. RMSNorm (Zhang and Sennrich, 2019): x / sqrt(mean(x^2) + epsilon) * weight.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// One operation's norms, for all rows:
//   s      = hidden + norm(delta) * post    (null post: s = hidden)
//   sum    = s                              (null sum: it is not written; may be `hidden`)
//   normed = norm(s) * weight
// Made from an operation's parameters and its layer before WaitForDependency.
struct Norms {
  const float* hidden;  // [R, width]
  const float* delta;   // [R, width], read where `post` is not null
  float* sum;           // [R, width] or null
  void* normed;         // [R, width] of the kernel's T
  const float* post;    // [width] or null
  const float* weight;  // [width]
  int width;
  float epsilon;

  __device__ Norms(const NormQkvParams& p, const LayerParams& layer)
      : Norms(p.hidden, p.delta, p.sum, p.normed, layer.input_post_norm, layer.attention_norm,
              layer.norm_epsilon) {}
  __device__ Norms(const NormGateUpParams& p, const LayerParams& layer)
      : Norms(p.hidden, p.delta, p.sum, p.normed, layer.attention_post_norm, layer.mlp_norm,
              layer.norm_epsilon) {}
  // After the product: the stream is complete, or waits for its delta.
  __device__ Norms(const DownNormParams& p, const LayerParams& layer)
      : Norms(p.hidden, p.delta, layer.mlp_post_norm != nullptr ? p.hidden : Rows(), p.normed,
              layer.mlp_post_norm, p.next_norm, layer.norm_epsilon) {}

  // One element of s; delta_inverse: InverseRms of the row's delta, unused without `post`.
  __device__ __forceinline__ float Joined(int row, int i, float delta_inverse) const {
    const int64_t at = int64_t{row} * width + i;
    if (post == nullptr) return hidden[at];
    return hidden[at] + delta[at] * delta_inverse * post[i];
  }
  __device__ __forceinline__ float InverseRms(float squares) const {
    return 1.0f / sqrtf(squares / width + epsilon);
  }

 private:
  __device__ Norms(const Rows& hidden, const Rows& delta, const Rows& sum, const Rows& normed,
                   const float* post, const float* weight, float epsilon)
      : hidden(static_cast<const float*>(hidden.data)),
        delta(static_cast<const float*>(delta.data)),
        sum(static_cast<float*>(sum.data)),
        normed(normed.data),
        post(delta.data != nullptr ? post : nullptr),
        weight(weight),
        width(hidden.width),
        epsilon(epsilon) {}
};

// One row by one block of kThreads threads, nothing but the row in memory: for kernels whose blocks
// do nothing else. `kept`: [kKept] shared floats, which hold the row's first kKept elements between
// its two passes; those beyond are read again. `shared`: [2 * kThreads / 32] floats.
template <typename T, int kThreads, int kKept>
__device__ __forceinline__ void NormRow(const Norms& norms, int row, float* kept, float* shared) {
  const int64_t at = int64_t{row} * norms.width;
  float delta_inverse = 0;
  if (norms.post != nullptr) {
    float squares = 0;
    for (int i = threadIdx.x; i < norms.width; i += kThreads) {
      const float value = norms.delta[at + i];
      squares += value * value;
    }
    delta_inverse = norms.InverseRms(BlockSum<kThreads>(squares, shared));
  }
  float squares = 0;
  for (int i = threadIdx.x; i < norms.width; i += kThreads) {
    const float value = norms.Joined(row, i, delta_inverse);
    squares += value * value;
    if (i < kKept) kept[i] = value;
    if (norms.sum != nullptr) norms.sum[at + i] = value;
  }
  const float inverse = norms.InverseRms(BlockSum<kThreads>(squares, shared + kThreads / kWarp));
  // Where `sum` is `hidden`, Joined would add the delta twice. Each thread reads its own elements.
  const float* joined = norms.sum != nullptr ? norms.sum : norms.hidden;
  for (int i = threadIdx.x; i < norms.width; i += kThreads) {
    const float value = i < kKept ? kept[i] : joined[at + i];
    static_cast<T*>(norms.normed)[at + i] = FromFloat<T>(value * inverse * norms.weight[i]);
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
