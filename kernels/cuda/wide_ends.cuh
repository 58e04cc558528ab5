// How wide products end (wide_product.cuh): what a thread of a warpgroup makes of its sums, and
// what the sums of rows that are not normed are multiplied by.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wide_product.h"
#include "kernels/cuda/wide_ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// What becomes of the sums: they are stored; they join the stream, which is left unnormed beside it
// (WideLeaves); or the activation is made of those of gate and up.
enum class WideEnd { kStore, kLeave, kGateUp };

// Where they go.
struct WideEndRows {
  void* out;  // [rows, outputs]
  const float* bias;
  const float* up_bias;
  int32_t rows;
  int32_t outputs;
  Activation activation;
};

__device__ __forceinline__ float2 TwoBiases(const float* bias, int output) {
  return bias != nullptr ? *reinterpret_cast<const float2*>(bias + output) : float2{0, 0};
}

// x * sigmoid of what the activation takes of it: both activations are of this form, since
// (1 + tanh(u)) / 2 is the sigmoid of 2u. Within a few units in the last place, by two special
// instructions in place of a division. Large negative x give -0, as x * 0 does.
template <Activation kActivation>
__device__ __forceinline__ float ActivateWide(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  constexpr float kTwoSqrt2OverPi = 2 * 0.79788456080286535588f;
  if constexpr (kActivation == Activation::kSilu) {
    return x * Reciprocal(1.0f + Exp2(-kLog2E * x));
  } else {
    const float inner = fmaf(0.044715f * x * x, x, x);
    return x * Reciprocal(1.0f + Exp2(-kLog2E * kTwoSqrt2OverPi * inner));
  }
}

template <typename T>
__device__ __forceinline__ uint32_t PackTwo(float low, float high) {
  const Pack<T, 2> two = {{FromFloat<T>(low), FromFloat<T>(high)}};
  return *reinterpret_cast<const uint32_t*>(&two);
}

// Two eights of a row at once, `first` and `second` being this thread's two elements of each:
// neighbouring threads exchange theirs, so that each stores four and all of them whole sectors.
template <typename T>
__device__ __forceinline__ void StoreEights(T* eights, uint32_t first, uint32_t second,
                                            bool row_exists, bool second_exists) {
  const bool odd = threadIdx.x % 2 != 0;
  const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? first : second, 1);
  const uint2 four = odd ? uint2{other, second} : uint2{first, other};
  T* const to = eights + (odd ? 8 : 0) + threadIdx.x % 4 / 2 * 4;
  if (row_exists && (!odd || second_exists)) *reinterpret_cast<uint2*>(to) = four;
}

// Ends rows of 16-bit elements: pair(j, h) are the thread's two elements of eight j, row + 8 * h.
template <typename T, int kEights, typename Pair>
__device__ __forceinline__ void StoreHalves(const WideEndRows& end, int row, int first_output,
                                            const Pair& pair) {
#pragma unroll
  for (int j = 0; j < kEights; j += 2) {
    const int output = first_output + 8 * j;
    if (output >= end.outputs) break;  // for all threads: outputs come in eights
    const bool second = j + 1 < kEights && output + 8 < end.outputs;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t a = pair(j, h);
      const uint32_t b = j + 1 < kEights ? pair(j + 1 < kEights ? j + 1 : j, h) : 0;
      T* const eights =
          static_cast<T*>(end.out) + static_cast<int64_t>(row + 8 * h) * end.outputs + output;
      StoreEights<T>(eights, a, b, row + 8 * h < end.rows, second);
    }
  }
}

// Of kEights eights of gate and as many of up, by turns, of rows `row` and row + 8: the activation.
// inverse: what these rows' sums are multiplied by first.
template <typename T, int kEights>
__device__ __forceinline__ void EndGateUp(const WideEndRows& end, int row, int first_output,
                                          float2 inverse, const float (&sums)[8 * kEights]) {
  const int own = static_cast<int>(threadIdx.x) % 4 * 2;
  // What is the same for all outputs is asked once.
  const auto store = [&](auto activation, auto biased) {
    StoreHalves<T, kEights>(end, row, first_output, [&](int j, int h) {
      constexpr Activation kActivation = decltype(activation)::value;
      const float* const gate = sums + 8 * j + 2 * h;
      const float* const up = gate + 4;
      const float scale = h == 0 ? inverse.x : inverse.y;
      float2 gate_bias = {0, 0}, up_bias = {0, 0};
      if constexpr (decltype(biased)::value) {
        const int output = first_output + 8 * j;
        const bool exists = output < end.outputs;
        gate_bias = TwoBiases(exists ? end.bias : nullptr, output + own);
        up_bias = TwoBiases(exists ? end.up_bias : nullptr, output + own);
      }
      return PackTwo<T>(ActivateWide<kActivation>(fmaf(gate[0], scale, gate_bias.x)) *
                            fmaf(up[0], scale, up_bias.x),
                        ActivateWide<kActivation>(fmaf(gate[1], scale, gate_bias.y)) *
                            fmaf(up[1], scale, up_bias.y));
    });
  };
  const auto with = [&](auto activation) {
    if (end.bias == nullptr && end.up_bias == nullptr) {
      store(activation, std::false_type());
    } else {
      store(activation, std::true_type());
    }
  };
  if (end.activation == Activation::kSilu) {
    with(std::integral_constant<Activation, Activation::kSilu>());
  } else {
    with(std::integral_constant<Activation, Activation::kGeluTanh>());
  }
}

// What the sums of rows `row` and row + 8 of unnormed rows are multiplied by: 1 / rms, each row's
// squares being added up by the four threads that have it. Of normed rows 1. Loads wait together:
// a way to the L2 cache takes as long as a stage.
__device__ __forceinline__ float2 RowInverses(const RowSquares& unnormed, float of_one, int row,
                                              int rows) {
  if (unnormed.squares == nullptr) return {1, 1};
  constexpr int kAtOnce = 8;
  using Squares = Pack<float, 4>;
  const int first = static_cast<int>(threadIdx.x) % 4 * 4;
  float sum[2] = {0, 0};
#pragma unroll 1
  for (int run = first; run < unnormed.runs; run += 16 * kAtOnce) {
    Squares part[2][kAtOnce];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float* const of_row = unnormed.squares + int64_t{row + 8 * h} * unnormed.runs;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int at = run + 16 * i;
        part[h][i] = row + 8 * h < rows && at < unnormed.runs ? LoadPack<float, 4>(of_row + at)
                                                              : Squares{};
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[h] += part[h][i].at[e];
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int far = 1; far < 4; far *= 2) {
    sum[0] += __shfl_xor_sync(kAllLanes, sum[0], far);
    sum[1] += __shfl_xor_sync(kAllLanes, sum[1], far);
  }
  return {rsqrtf(fmaf(sum[0], of_one, unnormed.epsilon)),
          rsqrtf(fmaf(sum[1], of_one, unnormed.epsilon))};
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
