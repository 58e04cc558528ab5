// What a block of panels does where rows are not normed between two products (panel_product.h,
// UnnormedIn and UnnormedOut): factors of the rows that it reads, its share of the stream, and what
// it leaves of the rows that it writes.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/panel_product.h"
#include "kernels/cuda/panel_ptx.cuh"
#include "kernels/cuda/panel_stages.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// What the group waits for beside its own sums: the rows' factors.
inline constexpr int kFactorsBarrier = 2;
__device__ __forceinline__ void LeaveFactors() { ArriveNamed(kFactorsBarrier, kGroup + kJoiners); }
__device__ __forceinline__ void TakeFactors() { SyncNamed(kFactorsBarrier, kGroup + kJoiners); }

// What a row's sums are multiplied by: (first + joins * second) * inverse.
struct Factors {
  float joins;  // r1
  float inverse;
};

__device__ __forceinline__ float InverseRms(float squares, const UnnormedArgs& p) {
  return rsqrtf(fmaf(squares, p.inverse_width, p.unnormed.epsilon));
}

// A row's sum of kCount squares over the tiles, by 1 << `shift` lanes that follow one another, each
// every so many tiles, for all of them. Loads wait together: a way to the L2 cache takes as long as
// the sums of a small product.
template <int kCount>
__device__ __forceinline__ Pack<float, kCount> SumSquares(const UnnormedArgs& p, int row,
                                                          int shift) {
  constexpr int kAtOnce = kCount == 1 ? 32 : 10;
  using Squares = Pack<float, kCount>;
  const float* const squares = p.unnormed.squares + row * kCount;
  Squares sum = {};
  const int lanes = 1 << shift;
  for (int tile = static_cast<int>(threadIdx.x) & (lanes - 1); tile < p.tiles;
       tile += kAtOnce * lanes) {
    Squares part[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = tile + i * lanes;
      part[i] = row < p.rows && at < p.tiles
                    ? LoadPack<float, kCount>(squares + at * p.rows * kCount)
                    : Squares{};
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int e = 0; e < kCount; ++e) sum.at[e] += part[i].at[e];
    }
  }
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
#pragma unroll
    for (int e = 0; e < kCount; ++e) sum.at[e] += __shfl_xor_sync(kAllLanes, sum.at[e], offset);
  }
  return sum;
}

// The joiners, `joiner` of them, after WaitForDependency: the rows' factors. While the others
// multiply.
template <int kRows>
__device__ __forceinline__ void MakeFactors(const UnnormedArgs& p, int joiner, Factors* factors) {
  int shift = 5;  // of the lanes of a row: as many as there are for all rows at once, or one
  while (shift > 0 && kJoiners >> shift < p.rows) --shift;
  const int lane = joiner % kWarp;
  for (int first = joiner / kWarp * (kWarp >> shift); first < p.rows; first += kJoiners >> shift) {
    const int row = first + (lane >> shift);
    Factors made = {};
    if (p.unnormed.post) {
      const Pack<float, 4> sum = SumSquares<4>(p, row, shift);
      made.joins = InverseRms(sum.at[0], p);
      const float added = fmaf(made.joins, sum.at[1], 2 * sum.at[3]);
      // Not below zero where h and what joins it cancel each other.
      made.inverse = InverseRms(fmaxf(fmaf(made.joins, added, sum.at[2]), 0), p);
    } else {
      made.inverse = InverseRms(SumSquares<1>(p, row, shift).at[0], p);
    }
    if (row < p.rows && lane >> shift << shift == lane) factors[row] = made;
  }
}

// The same threads: the block's share of the stream, where what joins it is normed. Made after
// WaitForDependency: the first loads are then on their way while the factors are made.
template <int kRows>
class Joiner {
 public:
  __device__ __forceinline__ Joiner(const UnnormedArgs& p, int joiner)
      : p_(p),
        fours_(p.unnormed.post ? p.rows * (p.width / kWide) : 0),
        step_(static_cast<int>(gridDim.x) * kJoiners),
        four_(static_cast<int>(blockIdx.x) * kJoiners + joiner) {
    Load();
  }
  // `sum` may be `hidden`: nobody else reads what this thread writes.
  __device__ __forceinline__ void operator()(const Factors* factors) {
    while (four_ < fours_) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int four = four_ + i * step_;
        if (four >= fours_) break;
        const float joins = factors[four * kWide / p_.width].joins;
#pragma unroll
        for (int e = 0; e < kWide; ++e) {
          hidden_[i].at[e] = fmaf(joins, added_[i].at[e], hidden_[i].at[e]);
        }
        StorePack(hidden_[i], p_.unnormed.sum + four * kWide);
      }
      four_ += kAtOnce * step_;
      Load();
    }
  }

 private:
  // Of 96 blocks' threads: all of gemma3-1b's stream.
  static constexpr int kAtOnce = kRows <= 16 ? 1 : 2;

  __device__ __forceinline__ void Load() {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int four = four_ + i * step_;
      if (four >= fours_) break;
      hidden_[i] = LoadPack<float, kWide>(p_.unnormed.hidden + four * kWide);
      added_[i] = LoadPack<float, kWide>(p_.unnormed.added + four * kWide);
    }
  }

  const UnnormedArgs& p_;
  const int fours_;  // of the stream
  const int step_;   // to the thread's next
  int four_;         // the thread's first of those that are loaded
  Four hidden_[kAtOnce] = {}, added_[kAtOnce] = {};
};

// What one thread leaves: fours of one run of outputs. Made before WaitForDependency.
struct Leaver {
  const UnnormedArgs& p;
  int tile, output;
  bool exists;
  Four post = {}, next = {};

  __device__ __forceinline__ Leaver(const UnnormedArgs& args, int tile, int output)
      : p(args),
        tile(tile),
        output(output),
        exists(p.leaves.rows != nullptr && output < p.outputs) {
    if (!exists) return;
    next = LoadPack<float, kWide>(p.leaves.next + output);
    if (p.leaves.post != nullptr) post = LoadPack<float, kWide>(p.leaves.post + output);
  }
  __device__ __forceinline__ Four Hidden(int row) const {
    return exists && p.leaves.post != nullptr ? LoadPack<float, kWide>(p.leaves.hidden + At(row))
                                              : Four{};
  }
  // By whole warps, 16 lanes a row of the tile, some of which `has` none: `value` is s, or delta,
  // which becomes what is stored in `out`. A block's last work, so every instruction counts.
  __device__ __forceinline__ void operator()(int row, bool has, const Four& hidden,
                                             Four& value) const {
    if (p.leaves.rows == nullptr) return;
    const bool stores = has && exists;
    auto* const rows = static_cast<__nv_bfloat16*>(p.leaves.rows);
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    Four own, squares = {};
    if (p.leaves.post == nullptr) {
      float sum = 0;
#pragma unroll
      for (int e = 0; e < kWide; ++e) {
        own.at[e] = value.at[e] * next.at[e];
        sum = fmaf(value.at[e], value.at[e], sum);
      }
      if (stores) StoreFloats<__nv_bfloat16, kWide>(own.at, rows + At(row));
      if (!exists) sum = 0;
#pragma unroll
      for (int offset = 8; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(kAllLanes, sum, offset);
      }
      if (has && lane % 16 == 0) p.leaves.squares[tile * p.rows + row] = sum;
      return;
    }
    Four joining;
#pragma unroll
    for (int e = 0; e < kWide; ++e) {
      const float x = value.at[e], a = x * post.at[e], h = hidden.at[e];
      squares.at[0] = fmaf(x, x, squares.at[0]);
      squares.at[1] = fmaf(a, a, squares.at[1]);
      squares.at[2] = fmaf(h, h, squares.at[2]);
      squares.at[3] = fmaf(h, a, squares.at[3]);
      own.at[e] = h * next.at[e];
      joining.at[e] = a * next.at[e];
      value.at[e] = a;
    }
    if (stores) {
      StoreFloats<__nv_bfloat16, kWide>(own.at, rows + At(row));
      StoreFloats<__nv_bfloat16, kWide>(joining.at, rows + At(p.rows + row));
    }
    if (!exists) squares = {};
    // A lane keeps two of the four sums, then one: a few shuffles in place of sixteen.
    const bool upper = (lane & 8) != 0, odd = (lane & 4) != 0;
    float kept[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float gives = upper ? squares.at[e] : squares.at[e + 2];
      kept[e] = upper ? squares.at[e + 2] : squares.at[e];
      kept[e] += __shfl_xor_sync(kAllLanes, gives, 8);
    }
    float sum = odd ? kept[1] : kept[0];
    sum += __shfl_xor_sync(kAllLanes, odd ? kept[0] : kept[1], 4);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    if (has && lane % 4 == 0) {
      p.leaves.squares[(tile * p.rows + row) * SquaresOf(true) + lane / 4 % 4] = sum;
    }
  }

 private:
  __device__ __forceinline__ int64_t At(int row) const { return int64_t{row} * p.outputs + output; }
};

struct NoLeaver {
  __device__ __forceinline__ NoLeaver(const PanelArgs& /*p*/, int /*tile*/, int /*output*/) {}
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
