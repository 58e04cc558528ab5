// The residual stream in layers_kernel.cu, and words that are only copied.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "tests/bench/layers_multiply.cuh"
#include "tests/bench/layers_plan.h"
#include "tests/bench/layers_words.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// A thread has the elements 4 i ... 4 i + 3 for i = threadIdx.x + kLayersThreads j, j < kMost, in
// its registers, from the first layer to the last.
template <typename T, int kMost>
class Stream {
 public:
  __device__ __forceinline__ Stream(int width, float epsilon)
      : packs_(width / 4), inverse_width_(1.0f / static_cast<float>(width)), epsilon_(epsilon) {}

  __device__ __forceinline__ void Load(const float* from) {
    Each([&](int i, int j) { held_[j] = __ldcg(reinterpret_cast<const float4*>(from) + i); });
  }
  // Ahead of the next Take: what it multiplies by. Null: by nothing.
  __device__ __forceinline__ void Ask(const float* post, const float* weight) {
    has_post_ = post != nullptr;
    has_weight_ = weight != nullptr;
    Each([&](int i, int j) {
      if (has_post_) posts_[j] = reinterpret_cast<const float4*>(post)[i];
      if (has_weight_) weights_[j] = reinterpret_cast<const float4*>(weight)[i];
    });
  }
  // stream += norm(words) * post (no post: += words; null words: nothing), then x = norm(stream) *
  // weight as T (no weight: the stream as it is). red: [kLayersWarps], free again after the next
  // two barriers.
  __device__ __forceinline__ void Take(const uint64_t* words, uint32_t tag, float4* red, T* x) {
    float4 added[kMost];
    if (words != nullptr) {
      TwoWords taken[kMost][2];
      bool all;
      do {
        all = true;
#pragma unroll
        for (int j = 0; j < kMost; ++j) {
          const int i = min(static_cast<int>(threadIdx.x) + j * kLayersThreads, packs_ - 1);
          taken[j][0] = LoadTwoWords(words + 4 * i);
          taken[j][1] = LoadTwoWords(words + 4 * i + 2);
        }
#pragma unroll
        for (int j = 0; j < kMost; ++j) all = all && taken[j][0].Has(tag) && taken[j][1].Has(tag);
      } while (!all);
#pragma unroll
      for (int j = 0; j < kMost; ++j) {
        added[j] = make_float4(taken[j][0].value(0), taken[j][0].value(1), taken[j][1].value(0),
                               taken[j][1].value(1));
      }
    }
    // Of what is added, of what it is times its weights, of the stream, and of both.
    float4 sums = make_float4(0, 0, 0, 0);
    const bool joins = words != nullptr && has_post_;
    if (joins) {
      Each([&](int, int j) {
        const float4 d = added[j];
        added[j] =
            make_float4(d.x * posts_[j].x, d.y * posts_[j].y, d.z * posts_[j].z, d.w * posts_[j].w);
        sums.x += Dot(d, d);
        sums.y += Dot(added[j], added[j]);
        sums.z += Dot(held_[j], held_[j]);
        sums.w += Dot(held_[j], added[j]);
      });
    } else {
      Each([&](int, int j) {
        if (words != nullptr) held_[j] = Plus(held_[j], added[j], 1);
        sums.z += Dot(held_[j], held_[j]);
      });
    }
    sums.z = WarpSum(sums.z);
    if (joins) {
      sums.x = WarpSum(sums.x);
      sums.y = WarpSum(sums.y);
      sums.w = WarpSum(sums.w);
    }
    if (threadIdx.x % kWarp == 0) red[threadIdx.x / kWarp] = sums;
    MultiplyBarrier();
    float4 all = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int w = 0; w < kLayersWarps; ++w) all = Plus(all, red[w], 1);
    if (joins) {
      const float factor = rsqrtf(all.x * inverse_width_ + epsilon_);
      all.z = fmaxf(all.z + factor * (2 * all.w + factor * all.y), 0);
      Each([&](int, int j) { held_[j] = Plus(held_[j], added[j], factor); });
    }
    const float inverse = has_weight_ ? rsqrtf(all.z * inverse_width_ + epsilon_) : 1.0f;
    Each([&](int i, int j) {
      const float4 h = held_[j];
      const float4 w = has_weight_ ? weights_[j] : make_float4(1, 1, 1, 1);
      const float of[4] = {h.x * inverse * w.x, h.y * inverse * w.y, h.z * inverse * w.z,
                           h.w * inverse * w.w};
      StoreFloats<T, 4>(of, x + 4 * i);
    });
  }

 private:
  template <typename Body>
  __device__ __forceinline__ void Each(const Body& body) const {
#pragma unroll
    for (int j = 0; j < kMost; ++j) {
      const int i = static_cast<int>(threadIdx.x) + j * kLayersThreads;
      if (i < packs_) body(i, j);
    }
  }
  static __device__ __forceinline__ float Dot(const float4& a, const float4& b) {
    return (a.x * b.x + a.y * b.y) + (a.z * b.z + a.w * b.w);
  }
  static __device__ __forceinline__ float4 Plus(const float4& a, const float4& b, float factor) {
    return make_float4(fmaf(factor, b.x, a.x), fmaf(factor, b.y, a.y), fmaf(factor, b.z, a.z),
                       fmaf(factor, b.w, a.w));
  }

  const int packs_;
  const float inverse_width_;
  const float epsilon_;
  float4 held_[kMost], posts_[kMost], weights_[kMost];
  bool has_post_ = false, has_weight_ = false;
};

// body(i, words) of all pairs of words, by all multiplying threads.
template <typename Body>
__device__ __forceinline__ void TakeValues(const uint64_t* words, int pairs, uint32_t tag,
                                           const Body& body) {
  constexpr int kAtOnce = 6;
#pragma unroll 1
  for (int first = threadIdx.x; first < pairs; first += kAtOnce * kLayersThreads) {
    TakeWords<kAtOnce>(words, first, kLayersThreads, pairs, tag,
                       [&](int i, int /*j*/, const TwoWords& two) { body(i, two); });
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
