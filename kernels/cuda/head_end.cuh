// What becomes of one head of q, k or v between its bare product and attention: its bias, its norm
// where the layer has such norms, its turn. A warp has a head whole: lane l has kVec elements from
// l * kVec on of both halves of the head, which turn together where the whole head turns.
//
// Assumes: head dimensions of 64, 128 or 256; pointers that are aligned to kVec floats.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/kv_scale.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Turns two elements that belong together. What is fused is said, so that it is the same wherever
// this is compiled in.
__device__ __forceinline__ void TurnTwo(float cosine, float sine, float& low, float& high) {
  const float turned = fmaf(low, cosine, -__fmul_rn(high, sine));
  high = fmaf(high, cosine, __fmul_rn(low, sine));
  low = turned;
}

// Turns a part of a head in shared memory, where elements that turn together are different lanes'.
__device__ __noinline__ inline void TurnPart(const float* turn, int turned, float* head) {
  __syncwarp();
  const int half = turned / 2;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < half; i += kWarp) {
    float low = head[i], high = head[half + i];
    TurnTwo(turn[i], turn[half + i], low, high);
    head[i] = low;
    head[half + i] = high;
  }
  __syncwarp();
}

template <int kDim>
struct HeadEnd {
  static constexpr int kVec = kDim / (2 * kWarp);
  using Half = Pack<float, kVec>;

  const float* bias;  // [kDim], the head's own, or null
  const float* norm;  // [kDim], or null
  const float* turn;  // of the position: [turned / 2] cosines, then sines
  int turned;         // elements that turn
  float epsilon;

  // Where a half of the lane's elements begins.
  __device__ __forceinline__ static int Begin(int half) {
    return half * (kDim / 2) + static_cast<int>(threadIdx.x) % kWarp * kVec;
  }

  // Asks the L2 cache for what no kernel writes; may be called before WaitForDependency.
  __device__ __forceinline__ void Prefetch() const {
    constexpr int kLine = 128 / sizeof(float);
    const int at = static_cast<int>(threadIdx.x) % kWarp * kLine;
    if (at >= kDim) return;
    if (bias != nullptr) PrefetchL2(bias + at);
    if (norm != nullptr) PrefetchL2(norm + at);
    if (at < turned) PrefetchL2(turn + at);
  }

  // sums: [kDim], the head's products. x: the lane's elements of the head. other: [kDim] of shared
  // memory, for a turn of a part of the head. By all lanes of the warp.
  __device__ __forceinline__ void operator()(const float* sums, float* other, Half (&x)[2]) const {
    Load(sums, x);
    End(LoadConstants(), other, x);
  }
  // The same in parts: what no kernel writes before WaitForDependency, and bare products together
  // with what else is waited for.
  struct Constants {
    Half added[2], weight[2], angle[2];
  };
  __device__ __forceinline__ Constants LoadConstants() const {
    Constants of = {};
    if (bias != nullptr) Load(bias, of.added);
    if (norm != nullptr) Load(norm, of.weight);
    if (turned == kDim) Load(turn, of.angle);
    return of;
  }
  __device__ __forceinline__ static void Load(const float* from, Half (&to)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) to[half] = LoadPack<float, kVec>(from + Begin(half));
  }
  __device__ __forceinline__ void End(const Constants& of, float* other, Half (&x)[2]) const {
    float squares = 0;
    ForEach([&](int half, int i) {
      float& value = x[half].at[i];
      value += of.added[half].at[i];
      squares = fmaf(value, value, squares);
    });
    if (norm != nullptr) {
      const float inverse = rsqrtf(WarpSum(squares) / kDim + epsilon);
      ForEach([&](int half, int i) {
        x[half].at[i] = __fmul_rn(x[half].at[i], __fmul_rn(inverse, of.weight[half].at[i]));
      });
    }
    if (turned == kDim) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        TurnTwo(of.angle[0].at[i], of.angle[1].at[i], x[0].at[i], x[1].at[i]);
      }
    } else if (turned != 0) {
      ForEach([&](int half, int i) { other[Begin(half) + i] = x[half].at[i]; });
      TurnPart(turn, turned, other);
      ForEach([&](int half, int i) { x[half].at[i] = other[Begin(half) + i]; });
      __syncwarp();  // the caller may write `other`
    }
  }

 private:
  template <typename Body>
  __device__ __forceinline__ static void ForEach(const Body& body) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) body(half, i);
    }
  }
};

// Makes of the head, of which each lane has a part, what a float8 cache stores of it with the scale
// that it returns.
template <int kDim>
__device__ __forceinline__ uint8_t ScaleHead(typename HeadEnd<kDim>::Half (&x)[2]) {
  constexpr int kVec = HeadEnd<kDim>::kVec;
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < 2 * kVec; ++i) {
    largest = max(largest, MagnitudeBits(x[i / kVec].at[i % kVec]));
  }
  const uint8_t scale = KvScaleFor(__reduce_max_sync(kAllLanes, largest));
  const float inverse = KvScaleInverse(scale);
#pragma unroll
  for (int i = 0; i < 2 * kVec; ++i) {
    x[i / kVec].at[i % kVec] = __fmul_rn(x[i / kVec].at[i % kVec], inverse);
  }
  return scale;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
