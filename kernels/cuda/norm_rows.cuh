// The norms that stand before the fused operations: what joins the residual stream first, and the
// normed rows. RMSNorm (Zhang and Sennrich, 2019): x / sqrt(mean(x^2) + epsilon) * weight.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// One operation's norms, for all rows:
//   s      = hidden + norm(delta) * post    (null post: s = hidden)
//   sum    = s                              (null sum: it is not written; may be `hidden`)
//   normed = norm(s) * weight       (null weight: normed = s)
// Made from an operation's parameters and its layer before WaitForDependency.
struct Norms {
  const float* hidden;  // [R, width]
  const float* delta;   // [R, width], read where `post` is not null
  float* sum;           // [R, width] or null
  void* normed;         // [R, width] of the kernel's T
  const float* post;    // [width] or null
  const float* weight;  // [width] or null
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

  // Everything can be read and written by 16 bytes (of float32).
  __device__ __forceinline__ bool IsAligned() const {
    const uintptr_t all = reinterpret_cast<uintptr_t>(hidden) | reinterpret_cast<uintptr_t>(delta) |
                          reinterpret_cast<uintptr_t>(sum) | reinterpret_cast<uintptr_t>(normed) |
                          reinterpret_cast<uintptr_t>(post) | reinterpret_cast<uintptr_t>(weight);
    return all % 16 == 0 && width % 4 == 0;
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

// load(i, j), then use(i, j), for this thread's packs i of a row in groups of kAhead, where j
// counts: the loads of a group wait together.
template <int kThreads, int kAhead, typename Load, typename Use>
__device__ __forceinline__ void InGroups(int packs, const Load& load, const Use& use) {
  for (int first = threadIdx.x; first < packs; first += kThreads * kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (first + j * kThreads < packs) load(first + j * kThreads, j);
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (first + j * kThreads < packs) use(first + j * kThreads, j);
    }
  }
}

// One row by one block of kThreads threads that does nothing else. kWide: elements loaded at once;
// the width is a multiple of it and everything aligned to it. `kept`: [kKept] shared floats,
// aligned to 16 bytes, which hold the row's first kKept elements between its passes; those beyond
// are read again. `shared`: [2 * kThreads / 32] floats.
template <typename T, int kThreads, int kWide, int kKept>
__device__ __forceinline__ void NormRow(const Norms& norms, int row, float* kept, float* shared) {
  constexpr int kAhead = 4;
  using Floats = Pack<float, kWide>;
  const int64_t at = int64_t{row} * norms.width;
  const int packs = norms.width / kWide;
  const auto from = [](const float* p, int i) { return LoadPack<float, kWide>(p + i * kWide); };
  const bool joins = norms.post != nullptr;
  Floats x[kAhead], delta[kAhead], weight[kAhead];

  float squares = 0;
  float delta_inverse = 0;
  const auto add_square = [&](float value) { squares += value * value; };
  if (joins) {
    InGroups<kThreads, kAhead>(
        packs, [&](int i, int j) { x[j] = from(norms.delta + at, i); },
        [&](int /*i*/, int j) {
#pragma unroll
          for (int e = 0; e < kWide; ++e) add_square(x[j].at[e]);
        });
    delta_inverse = norms.InverseRms(BlockSum<kThreads>(squares, shared));
    squares = 0;
  }
  InGroups<kThreads, kAhead>(
      packs,
      [&](int i, int j) {
        x[j] = from(norms.hidden + at, i);
        if (!joins) return;
        delta[j] = from(norms.delta + at, i);
        weight[j] = from(norms.post, i);
      },
      [&](int i, int j) {
#pragma unroll
        for (int e = 0; e < kWide; ++e) {
          if (joins) x[j].at[e] += delta[j].at[e] * delta_inverse * weight[j].at[e];
          add_square(x[j].at[e]);
        }
        if (i * kWide < kKept) StorePack(x[j], kept + i * kWide);
        if (norms.sum != nullptr) StorePack(x[j], norms.sum + at + i * kWide);
      });
  const float inverse = norms.InverseRms(BlockSum<kThreads>(squares, shared + kThreads / kWarp));
  const bool scales = norms.weight != nullptr;
  // Where `sum` is `hidden`, joining again would add the delta twice. Each thread reads what it
  // wrote.
  const float* joined = (norms.sum != nullptr ? norms.sum : norms.hidden) + at;
  InGroups<kThreads, kAhead>(
      packs,
      [&](int i, int j) {
        x[j] = i * kWide < kKept ? from(kept, i) : from(joined, i);
        if (scales) weight[j] = from(norms.weight, i);
      },
      [&](int i, int j) {
        Pack<T, kWide> out;
#pragma unroll
        for (int e = 0; e < kWide; ++e) {
          out.at[e] = FromFloat<T>(scales ? x[j].at[e] * inverse * weight[j].at[e] : x[j].at[e]);
        }
        StorePack(out, static_cast<T*>(norms.normed) + at + i * kWide);
      });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
