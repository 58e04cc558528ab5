// The norms that stand before the fused operations: what joins the residual stream first, and the
// normed rows. RMSNorm (Zhang and Sennrich, 2019): x / sqrt(mean(x^2) + epsilon) * weight.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// One operation's norms, for all rows:
//   s      = hidden + norm(delta) * post    (null post: s = hidden + delta; null delta: s = hidden)
//   sum    = s                              (null sum: it is not written; may be `hidden`)
//   normed = norm(s) * weight       (null weight: normed = s)
// Made from an operation's parameters and its layer before WaitForDependency.
struct Norms {
  const float* hidden;  // [R, width]
  const float* delta;   // [R, width] or null; a sum of `parts` such buffers, one behind the other
  float* sum;           // [R, width] or null
  void* normed;         // [R, width] of the kernel's T
  const float* post;    // [width] or null
  const float* weight;  // [width] or null
  int width;
  float inverse_width;
  float epsilon;
  int parts = 1;

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
  __device__ Norms(const DownEndParams& p, const LayerParams& layer)
      : Norms(static_cast<const DownNormParams&>(p), layer) {
    if (p.sums == nullptr) return;
    delta = p.sums;
    parts = p.parts;
    sum = static_cast<float*>(p.hidden.data);
    post = layer.mlp_post_norm;
  }

  // Everything can be read and written by 16 bytes (of float32).
  __device__ __forceinline__ bool IsAligned() const {
    const uintptr_t all = reinterpret_cast<uintptr_t>(hidden) | reinterpret_cast<uintptr_t>(delta) |
                          reinterpret_cast<uintptr_t>(sum) | reinterpret_cast<uintptr_t>(normed) |
                          reinterpret_cast<uintptr_t>(post) | reinterpret_cast<uintptr_t>(weight);
    return all % 16 == 0 && width % 4 == 0;
  }
  __device__ __forceinline__ float InverseRms(float squares) const {
    return rsqrtf(fmaf(squares, inverse_width, epsilon));
  }

 private:
  __device__ Norms(const Rows& hidden, const Rows& delta, const Rows& sum, const Rows& normed,
                   const float* post, const float* weight, float epsilon)
      : hidden(static_cast<const float*>(hidden.data)),
        delta(post != nullptr ? static_cast<const float*>(delta.data) : nullptr),
        sum(static_cast<float*>(sum.data)),
        normed(normed.data),
        post(delta.data != nullptr ? post : nullptr),
        weight(weight),
        width(hidden.width),
        inverse_width(1.0f / static_cast<float>(hidden.width)),
        epsilon(epsilon) {}
};

// What the norms of rows are made of, wherever they are made: with the sums in the same order, they
// are the same bits.
template <int kWide>
__device__ __forceinline__ float SumOfSquares(const Pack<float, kWide>& x) {
  float squares = 0;
#pragma unroll
  for (int e = 0; e < kWide; ++e) squares = fmaf(x.at[e], x.at[e], squares);
  return squares;
}
// s += norm(delta) * post, `inverse` being what delta is multiplied by.
template <int kWide>
__device__ __forceinline__ void JoinNormed(Pack<float, kWide>& s, const Pack<float, kWide>& delta,
                                           const Pack<float, kWide>& post, float inverse) {
#pragma unroll
  for (int e = 0; e < kWide; ++e) {
    s.at[e] = fmaf(__fmul_rn(delta.at[e], inverse), post.at[e], s.at[e]);
  }
}

// One row by one block of kThreads threads that does nothing else. kWide: elements loaded at once;
// the width is a multiple of it and everything aligned to it.
//
// A thread has the packs threadIdx.x, threadIdx.x + kThreads, ... of the row. All loads of the first
// kHeld wait together, and stay in registers; those beyond are read again for each pass. The delta
// has 1 ... kParts parts.
template <typename T, int kThreads, int kWide, int kHeld, int kParts>
class RowNorm {
 public:
  // Before WaitForDependency: what no kernel writes is on its way.
  __device__ __forceinline__ RowNorm(const Norms& norms, int rows)
      : norms_(norms), packs_(norms.width / kWide), part_(int64_t{rows} * norms.width) {
    ForHeld([&](int i, int j) {
      if (norms_.weight != nullptr) weights_[j] = From(norms_.weight, i);
      if (norms_.post != nullptr) posts_[j] = From(norms_.post, i);
    });
  }

  // After it. `shared`: [2 * kThreads / 32] floats.
  __device__ __forceinline__ void operator()(int row, float* shared) const {
    const int64_t at = int64_t{row} * norms_.width;
    const float* const hidden = norms_.hidden + at;
    const float* const delta = norms_.delta + at;
    const bool joins = norms_.delta != nullptr;
    const bool is_normed = norms_.post != nullptr;
    Floats held[kHeld], deltas[kHeld];
    ForHeld([&](int i, int j) {
      held[j] = From(hidden, i);
      if (joins) deltas[j] = Delta(delta, i);
    });
    float delta_inverse = 0;
    if (joins && is_normed) {
      float squares = 0;
      ForHeld([&](int /*i*/, int j) { squares += SumOfSquares(deltas[j]); });
      ForRest([&](int i) { squares += SumOfSquares(Delta(delta, i)); });
      delta_inverse = norms_.InverseRms(BlockSum<kThreads>(squares, shared));
    }
    const auto join = [&](Floats& s, const Floats& d, const Floats& post) {
      if (is_normed) return JoinNormed(s, d, post, delta_inverse);
#pragma unroll
      for (int e = 0; e < kWide; ++e) s.at[e] += d.at[e];
    };
    const auto joined = [&](int i) {
      Floats s = From(hidden, i);
      if (joins) join(s, Delta(delta, i), is_normed ? From(norms_.post, i) : Floats{});
      return s;
    };

    float squares = 0;
    ForHeld([&](int /*i*/, int j) {
      if (joins) join(held[j], deltas[j], posts_[j]);
      squares += SumOfSquares(held[j]);
    });
    ForRest([&](int i) { squares += SumOfSquares(joined(i)); });
    const float inverse = norms_.InverseRms(BlockSum<kThreads>(squares, shared + kThreads / kWarp));

    const bool scales = norms_.weight != nullptr;
    const auto finish = [&](const Floats& s, const Floats& weight, int i) {
      Pack<T, kWide> out;
#pragma unroll
      for (int e = 0; e < kWide; ++e) {
        out.at[e] = FromFloat<T>(scales ? s.at[e] * inverse * weight.at[e] : s.at[e]);
      }
      StorePack(out, static_cast<T*>(norms_.normed) + at + i * kWide);
      // Where `sum` is `hidden`, it is written when it is read no more.
      if (norms_.sum != nullptr) StorePack(s, norms_.sum + at + i * kWide);
    };
    ForHeld([&](int i, int j) { finish(held[j], weights_[j], i); });
    ForRest([&](int i) {
      finish(joined(i), scales ? From(norms_.weight, i) : Floats{}, i);
    });
  }

 private:
  using Floats = Pack<float, kWide>;

  static __device__ __forceinline__ Floats From(const float* p, int i) {
    return LoadPack<float, kWide>(p + i * kWide);
  }
  // The sum of its parts, in their order; all loads wait together.
  __device__ __forceinline__ Floats Delta(const float* row, int i) const {
    Floats part[kParts];
#pragma unroll
    for (int k = 0; k < kParts; ++k) {
      if (k == 0 || k < norms_.parts) part[k] = From(row + k * part_, i);
    }
#pragma unroll
    for (int k = 1; k < kParts; ++k) {
      if (k >= norms_.parts) break;
#pragma unroll
      for (int e = 0; e < kWide; ++e) part[0].at[e] += part[k].at[e];
    }
    return part[0];
  }
  // body(i, j) for the thread's packs i that are held, the j-th of them.
  template <typename Body>
  __device__ __forceinline__ void ForHeld(const Body& body) const {
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const int i = static_cast<int>(threadIdx.x) + j * kThreads;
      if (i < packs_) body(i, j);
    }
  }
  template <typename Body>
  __device__ __forceinline__ void ForRest(const Body& body) const {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) + kHeld * kThreads; i < packs_; i += kThreads) {
      body(i);
    }
  }

  const Norms norms_;
  const int packs_;
  const int64_t part_;  // elements from a part of the delta to the next
  Floats weights_[kHeld], posts_[kHeld];
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
