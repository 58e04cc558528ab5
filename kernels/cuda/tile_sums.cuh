// What warps of cluster_attention.cu that take slots in tiles of 16 share, whether a tile's keys and
// values come into registers (cluster_tiles.cuh) or into a ring in shared memory (cluster_ring.cuh):
// the softmax between the two products of mma.sync, and the sums.
//
// The slots of a tile are rows of the first instruction and the queries its eight columns: scores are
// [16 slots][8 queries] = k [slots][dims] * q [dims][queries]; sums are [16 dims][8 queries] =
// v [dims][slots] * weights [slots][queries]. q and weights are pairs of 16-bit numbers, a rounded one
// and what rounding lost, so that sums are as of float32: up to four queries have the pair in columns
// n and n + 4, up to eight in two instructions.
//
// A lane is l = 4 g + t. Softmax is online; the maximum that weights are of is raised only where a
// score is 8 above it (in powers of two), which is rare.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/path.h"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kTileSlotBits = 4;
inline constexpr int kTileSlots = 1 << kTileSlotBits;

// float32 has no operands.
template <typename Kv>
inline constexpr bool kCanTile = !std::is_same_v<Kv, float>;
// What a float8 is multiplied as, exactly.
template <typename Kv>
using TileElement = std::conditional_t<kIsScaled<Kv>, __half, Kv>;

// ---- 16-bit numbers ------------------------------------------------------------------------------

template <typename T>
__device__ __forceinline__ uint32_t WordOfTwo(float low, float high) {
  const Pack<T, 2> two = {{FromFloat<T>(low), FromFloat<T>(high)}};
  uint32_t word;
  memcpy(&word, &two, sizeof(word));
  return word;
}
// What rounding to T loses.
template <typename T>
__device__ __forceinline__ float LostOf(float x) {
  return x - ToFloat(FromFloat<T>(x));
}

__device__ __forceinline__ int LaneGroup() { return static_cast<int>(threadIdx.x) % kWarp / 4; }
__device__ __forceinline__ int LaneInGroup() { return static_cast<int>(threadIdx.x) % 4; }

// ---- The sums ------------------------------------------------------------------------------------

// Up to four queries are columns n, and what rounding them lost n + 4; more have two operands.
template <int kQueries>
inline constexpr int kQueryOperands = kQueries <= 4 ? 1 : 2;

// Of a warp, over tiles that it takes kTiles at once.
template <typename Kv, int kQueries, int kDim, int kTiles>
class TileSums {
 public:
  using Element = TileElement<Kv>;
  static constexpr int kSteps = kDim / 16;
  static constexpr bool kPacked = kQueries <= 4;  // both parts of q and weights in one operand
  static constexpr int kOperands = kQueryOperands<kQueries>;

  // Unscaled: [rows 16 i + g, + 8 of the products][columns 2 t, 2 t + 1].
  float values[kSteps][4];

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      maximum_[i] = kLowest;
      sum_[i] = 0;
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) values[i][j] = 0;
    }
  }

  // Makes weights of the bare products of tiles whose first slot is `first`, as operands of the
  // second product. factor: of columns 2 t, 2 t + 1, what makes scores of products, in powers of two
  // without a cap. Where `edge` is set, slots outside of `range` get none. In float8 scales[tile] are
  // LoadScales of slots g, g + 8.
  __device__ __forceinline__ void Weigh(const AttentionShape& shape, const SlotRange& range,
                                        bool edge, int first, const float (&factor)[2],
                                        float (&score)[kTiles][4], uint32_t (&scales)[kTiles][2],
                                        uint32_t (&weights)[kTiles][kOperands][2]) {
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& x = score[r][i];
        if constexpr (kPacked) x += __shfl_xor_sync(kAllLanes, x, 2);
        x *= factor[i % 2];
        if constexpr (kIsScaled<Kv>) x *= KeyScale(scales[r][i / 2]);
      }
    }
    if (shape.soft_cap > 0) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) score[r][i] = Capped(shape.soft_cap, score[r][i]);
      }
    }
    if (edge) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int slot = first + r * kTileSlots + LaneGroup() + i / 2 * 8;
          if (!Inside(range, slot)) score[r][i] = -INFINITY;
        }
        // No one has written the scale.
        if constexpr (kIsScaled<Kv>) {
#pragma unroll
          for (int row = 0; row < 2; ++row) {
            if (!Inside(range, first + r * kTileSlots + LaneGroup() + 8 * row)) {
              scales[r][row] = 0x0101;
            }
          }
        }
      }
    }
    RaiseMaximum(score, scales);
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        float weight[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          weight[i] = Exp2(score[r][2 * row + i] - maximum_[i]);
          sum_[i] += weight[i];
          if constexpr (kIsScaled<Kv>) {
            weight[i] *= ValueScale(scales[r][row]) * KvScaleInverse(value_scale_);
          }
        }
        const uint32_t rounded = WordOfTwo<Element>(weight[0], weight[1]);
        const uint32_t lost =
            WordOfTwo<Element>(LostOf<Element>(weight[0]), LostOf<Element>(weight[1]));
        if constexpr (kPacked) {
          weights[r][0][row] = TransposeMatrix(LaneInGroup() < 2 ? rounded : lost);
        } else {
          weights[r][0][row] = TransposeMatrix(rounded);
          weights[r][1][row] = TransposeMatrix(lost);
        }
      }
    }
  }

  // When all tiles are in it: `values` as they are, and the statistics in `part`. Of up to four
  // queries only lanes with t < 2 then have columns.
  __device__ __forceinline__ void Close(Part<kQueries, kDim>& part) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int offset = 4; offset < kWarp; offset *= 2) {
        sum_[i] += __shfl_xor_sync(kAllLanes, sum_[i], offset);
      }
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if constexpr (kPacked) values[i][j] += __shfl_xor_sync(kAllLanes, values[i][j], 2);
        if constexpr (kIsScaled<Kv>) values[i][j] *= KvScaleValue(value_scale_);
      }
    }
    if (LaneGroup() != 0) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int query = 2 * LaneInGroup() + i;
      if (query < kQueries) part.statistics[query] = make_float2(maximum_[i], sum_[i]);
    }
  }

  __device__ __forceinline__ static bool Inside(const SlotRange& range, int slot) {
    return slot >= range.first && slot < range.end;
  }

 private:
  static constexpr float kMostAbove = 8;  // of scores above maximum_

  // cap * tanh(score / cap), in powers of two: tanh(x) = 1 - 2 / (exp(2x) + 1), exact to some 1e-7
  // of the cap.
  __device__ __forceinline__ static float Capped(float cap, float score) {
    return cap * kLog2E * (1.0f - 2.0f / (Exp2(score / cap * (2 * kLog2E)) + 1.0f));
  }

  // Makes maximum_, and in float8 value_scale_, such that weights fit.
  __device__ __forceinline__ void RaiseMaximum(const float (&score)[kTiles][4],
                                               const uint32_t (&scales)[kTiles][2]) {
    float highest[2] = {score[0][0], score[0][1]};
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) highest[i % 2] = fmaxf(highest[i % 2], score[r][i]);
    }
    bool raise = highest[0] > maximum_[0] + kMostAbove || highest[1] > maximum_[1] + kMostAbove;
    uint32_t scale = 1;
    if constexpr (kIsScaled<Kv>) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          const uint32_t of_row = scales[r][row] >> 8;
          scale = max(scale, of_row == kNoKvScale ? 1 : of_row);
        }
      }
      raise = raise || scale > value_scale_ + 2u;
    }
    if (!__any_sync(kAllLanes, raise)) return;
    float less[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int offset = 4; offset < kWarp; offset *= 2) {
        highest[i] = fmaxf(highest[i], __shfl_xor_sync(kAllLanes, highest[i], offset));
      }
      const float maximum = fmaxf(maximum_[i], highest[i]);
      less[i] = Exp2(maximum_[i] - maximum);
      maximum_[i] = maximum;
      sum_[i] *= less[i];
    }
    if constexpr (kIsScaled<Kv>) {
      scale = max(__reduce_max_sync(kAllLanes, scale), uint32_t{value_scale_});
      const float smaller =
          KvScaleValue(value_scale_) * KvScaleInverse(static_cast<uint8_t>(scale));
      value_scale_ = static_cast<uint8_t>(scale);
      less[0] *= smaller;
      less[1] *= smaller;
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) values[i][j] *= less[j % 2];
    }
  }

  float maximum_[2], sum_[2];  // of weights, of columns 2 t and 2 t + 1
  uint8_t value_scale_ = 1;    // in float8: what `values` are to be multiplied by
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
