// How wide products end that go to the residual stream, or read it (wide_product.cuh): the sums of
// two blocks together, the stream, and what is left beside it.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/wide_ends.cuh"
#include "kernels/cuda/wide_ptx.cuh"
#include "kernels/cuda/wide_shape.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// What a thread ends: of rows `row` and row + 8, of the eights from output `first` to `last`,
// outputs `own` and own + 1. `first` and `last` are the same for all threads, which the compiler is
// to see: loops that it takes for divergent cost those after them their uniform registers.
struct WidePlace {
  int row, own, first, last;
  bool exists[2];  // the rows

  // outputs: of the tile; of these `part` of those that kSplit blocks share.
  template <typename Shape>
  __device__ static WidePlace Of(const Shape&, int row_tile, int output_tile, int outputs, int part,
                                 const WideArgs& p) {
    const int thread = static_cast<int>(threadIdx.x);
    const int row = row_tile * Shape::kRows + thread / kWarp * 16 + thread % kWarp / 4;
    const int first = output_tile * outputs + part * Shape::kEnded * 8;
    const int last = part + 1 < Shape::kSplit ? first + Shape::kEnded * 8
                                              : (output_tile + 1) * outputs;
    return {row, thread % 4 * 2, first, min(last, p.outputs), {row < p.rows, row + 8 < p.rows}};
  }
};

// What a thread adds to and multiplies with, asked for before it is wanted.
template <int kEights>
struct WideStream {
  float2 at[kEights][2];
  float2 next[kEights];
};

template <int kEights>
__device__ __forceinline__ void LoadStream(const WideArgs& p, const WidePlace& place,
                                           WideStream<kEights>& stream) {
#pragma unroll
  for (int j = 0; j < kEights; ++j) {
    const bool exists = place.first + 8 * j < place.last;
    stream.next[j] = TwoBiases(exists ? p.leaves.next : nullptr, place.first + 8 * j + place.own);
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float* const row = static_cast<const float*>(p.out) +
                             static_cast<int64_t>(place.row + 8 * h) * p.outputs + place.first +
                             place.own;
#pragma unroll
    for (int j = 0; j < kEights; ++j) {
      const bool exists = place.exists[h] && place.first + 8 * j < place.last;
      stream.at[j][h] = exists ? *reinterpret_cast<const float2*>(row + 8 * j) : float2{0, 0};
    }
  }
}

// The stream + sums; and what is left of it (WideLeaves). Of the runs beyond the last tile's, which
// fill up a multiple of four, that tile's blocks leave zeros.
template <int kEights>
__device__ __forceinline__ void EndStream(const WideArgs& p, const WidePlace& place, int run,
                                          const float (&sums)[4 * kEights],
                                          const WideStream<kEights>& stream) {
  float squares[2] = {0, 0};
#pragma unroll
  for (int j = 0; j < kEights; j += 2) {
    if (place.first + 8 * j >= place.last) break;
    const bool second = j + 1 < kEights && place.first + 8 * (j + 1) < place.last;
    uint32_t left[2][2] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (i == 1 && !second) break;
      const int output = place.first + 8 * (j + i) + place.own;
      const float2 bias = TwoBiases(p.bias, output);
      const float2 next = stream.next[j + i];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float* const two = sums + 4 * (j + i) + 2 * h;
        float2 s = stream.at[j + i][h];
        s.x += two[0] + bias.x;
        s.y += two[1] + bias.y;
        squares[h] = fmaf(s.y, s.y, fmaf(s.x, s.x, squares[h]));
        left[h][i] = PackTwo<__nv_bfloat16>(s.x * next.x, s.y * next.y);
        if (place.exists[h]) {
          *reinterpret_cast<float2*>(static_cast<float*>(p.out) +
                                     static_cast<int64_t>(place.row + 8 * h) * p.outputs + output) =
              s;
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      auto* const eights = static_cast<__nv_bfloat16*>(p.leaves.rows) +
                           static_cast<int64_t>(place.row + 8 * h) * p.outputs + place.first +
                           8 * j;
      StoreEights<__nv_bfloat16>(eights, left[h][0], left[h][1], place.exists[h], second);
    }
  }
#pragma unroll
  for (int far = 1; far < 4; far *= 2) {
    squares[0] += __shfl_xor_sync(kAllLanes, squares[0], far);
    squares[1] += __shfl_xor_sync(kAllLanes, squares[1], far);
  }
  const int lane = static_cast<int>(threadIdx.x) % 4;
  const bool last = run + 1 == p.tiles;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float* const of_row = p.leaves.squares + static_cast<int64_t>(place.row + 8 * h) * p.runs;
    if (!place.exists[h]) continue;
    if (lane == 0 && run < p.tiles) of_row[run] = squares[h];
    if (lane > 0 && last && run + lane < p.runs) of_row[run + lane] = 0;
  }
}

// inverse: what the sums of rows `row` and row + 8 are multiplied by.
template <int kEights>
__device__ __forceinline__ void EndStore(const WideArgs& p, const WidePlace& place, int part,
                                         float2 inverse, const float (&sums)[4 * kEights]) {
  float* const out = static_cast<float*>(p.out) + int64_t{part} * p.rows * p.outputs;
#pragma unroll
  for (int j = 0; j < kEights; ++j) {
    if (place.first + 8 * j >= place.last) break;
    const int output = place.first + 8 * j + place.own;
    const float2 bias = TwoBiases(p.bias, output);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float* const two = sums + 4 * j + 2 * h;
      const float scale = h == 0 ? inverse.x : inverse.y;
      if (place.exists[h]) {
        *reinterpret_cast<float2*>(out + static_cast<int64_t>(place.row + 8 * h) * p.outputs +
                                   output) =
            float2{fmaf(two[0], scale, bias.x), fmaf(two[1], scale, bias.y)};
      }
    }
  }
}

// ---- Sums of two blocks -------------------------------------------------------------------------

// Sends the sums of the outputs that the peer ends, and adds up those of the own. `received`: the
// block's place for them, [groups][eights][threads] of four.
template <typename Shape, int kPart>
__device__ __forceinline__ void ExchangeSums(const float (&sums)[Shape::kSums], int peer,
                                             float* received, uint64_t* arrived,
                                             float (&own)[4 * Shape::kEnded]) {
  constexpr int kFirst = kPart == 0 ? 0 : Shape::kEnded;  // of the own eights
  constexpr int kOwn = kPart == 0 ? Shape::kEnded : Shape::kEights - Shape::kEnded;
  constexpr int kSent = kPart == 0 ? Shape::kEnded : 0;
  const int thread = static_cast<int>(threadIdx.x);
  float* const at = received + (thread / kWarpgroup * Shape::kEnded * kWarpgroup +
                                thread % kWarpgroup) * 4;
#pragma unroll
  for (int j = 0; j < Shape::kEights - kOwn; ++j) {
    const float* const from = sums + 4 * (kSent + j);
    const float four[4] = {from[0], from[1], from[2], from[3]};
    StoreToBlock(four, at + j * kWarpgroup * 4, arrived, peer);
  }
  WaitBarrierOfCluster(arrived, 0);
#pragma unroll
  for (int j = 0; j < kOwn; ++j) {
    const float4 four = *reinterpret_cast<const float4*>(at + j * kWarpgroup * 4);
    const float* const to = sums + 4 * (kFirst + j);
    own[4 * j] = to[0] + four.x;
    own[4 * j + 1] = to[1] + four.y;
    own[4 * j + 2] = to[2] + four.z;
    own[4 * j + 3] = to[3] + four.w;
  }
#pragma unroll
  for (int i = 4 * kOwn; i < 4 * Shape::kEnded; ++i) own[i] = 0;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
