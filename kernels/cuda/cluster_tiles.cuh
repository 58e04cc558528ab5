// What a warp of cluster_attention.cu does with its share of many slots: tiles of 16, multiplied by
// mma.sync, their loads under way in registers while other tiles are worked on.
//
// The slots of a tile are rows of the instruction and the queries its eight columns: scores are
// [16 slots][8 queries] = k [slots][dims] * q [dims][queries], and sums [16 dims][8 queries] =
// v [dims][slots] * weights [slots][queries]. k and v go from memory into the registers of their
// operands: dims may have any order in a product if q has the same, so that a lane's 16 bytes are
// whole operands, and two slots' values are put side by side by byte permutes. q and weights are
// pairs of 16-bit numbers, a rounded one and what rounding lost, so that sums are as of float32: up
// to four queries have the pair in columns n and n + 4, up to eight in two instructions.
//
// A lane is l = 4 g + t. As many tiles are worked on at once as 64 registers hold: two of 64
// dimensions in 16 bits, so that what waits for each other is done for both.
//
// Softmax is online; the maximum that weights are of is raised only where a score is 8 above it (in
// powers of two), which is rare.
//
// Assumes: blocks of a multiple of 16 slots.
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

// ---- Single instructions -------------------------------------------------------------------------

// Past the L1 cache, in the order of the program among instructions of this kind.
__device__ __forceinline__ void LoadTile(uint4& to, const void* from) {
  asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
               : "l"(from));
}
__device__ __forceinline__ void LoadTile(uint2& to, const void* from) {
  asm volatile("ld.global.cg.v2.u32 {%0,%1}, [%2];" : "=r"(to.x), "=r"(to.y) : "l"(from));
}
// The transpose of an 8x8 matrix of 16-bit elements: lane 4 g + t has row g, elements 2 t and + 1.
__device__ __forceinline__ uint32_t TransposeMatrix(uint32_t m) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(m));
  return transposed;
}
__device__ __forceinline__ uint32_t WordOf(const uint4& x, int i) {
  return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}
__device__ __forceinline__ uint32_t WordOf(const uint2& x, int i) { return i == 0 ? x.x : x.y; }

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

// ---- A tile --------------------------------------------------------------------------------------

__device__ __forceinline__ int LaneGroup() { return static_cast<int>(threadIdx.x) % kWarp / 4; }
__device__ __forceinline__ int LaneInGroup() { return static_cast<int>(threadIdx.x) % 4; }

// Of a lane: keys of slots g and g + 8, values of slots 2 t, 2 t + 1, 2 t + 8, 2 t + 9.
template <typename Kv, int kDim>
struct SlotTile {
  static constexpr int kChunks = kDim / 64;
  static constexpr int kKeyPacks = kIsScaled<Kv> ? 1 : 2;  // of a chunk
  static constexpr int kKeyDims = 16 / sizeof(Kv);         // of a pack
  using ValuePack = std::conditional_t<kIsScaled<Kv>, uint2, uint4>;

  uint4 k[kChunks][2][kKeyPacks];  // dims 64 c + (64 / kKeyPacks) p + kKeyDims t ...
  ValuePack v[kChunks][4];         // dims 64 c + 8 g ... + 7
  uint32_t scales[2];              // in float8: LoadScales of the keys' slots

  __device__ __forceinline__ static int KeyDim(int chunk, int pack, int t) {
    return 64 * chunk + 64 / kKeyPacks * pack + kKeyDims * t;
  }
  __device__ __forceinline__ static int ValueSlot(int i, int t) { return 2 * t + i % 2 + i / 2 * 8; }

  // `from`: where the tile's slots begin.
  __device__ __forceinline__ void LoadKeys(const Kv* from) {
    from += LaneGroup() * kDim + kKeyDims * LaneInGroup();
#pragma unroll
    for (int row = 0; row < 2; ++row) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int p = 0; p < kKeyPacks; ++p) {
          LoadTile(k[c][row][p], from + 8 * row * kDim + KeyDim(c, p, 0));
        }
      }
    }
  }
  __device__ __forceinline__ void LoadValues(const Kv* from) {
    from += 2 * LaneInGroup() * kDim + 8 * LaneGroup();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        LoadTile(v[c][i], from + ValueSlot(i, 0) * kDim + 64 * c);
      }
    }
  }

  // The operand of dims 16 `step` ... of chunk `c`.
  __device__ __forceinline__ void KeyOperand(int c, int step, uint32_t (&a)[4]) const {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      if constexpr (kIsScaled<Kv>) {
        const uint32_t word = WordOf(k[c][row][0], step);
        a[row] = HalvesOfFloat8(word);
        a[row + 2] = HalvesOfFloat8(word >> 16);
      } else {
        a[row] = WordOf(k[c][row][step / 2], step % 2 * 2);
        a[row + 2] = WordOf(k[c][row][step / 2], step % 2 * 2 + 1);
      }
    }
  }
  // The operand whose row g is dim 64 c + 8 g + 2 m, and row g + 8 the next one.
  __device__ __forceinline__ void ValueOperand(int c, int m, uint32_t (&a)[4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const ValuePack& even = v[c][2 * half];
      const ValuePack& odd = v[c][2 * half + 1];
      if constexpr (kIsScaled<Kv>) {
        const uint32_t two = __byte_perm(WordOf(even, m / 2), WordOf(odd, m / 2),
                                         m % 2 == 0 ? 0x5140 : 0x7362);
        a[2 * half] = HalvesOfFloat8(two);
        a[2 * half + 1] = HalvesOfFloat8(two >> 16);
      } else {
        a[2 * half] = __byte_perm(WordOf(even, m), WordOf(odd, m), 0x5410);
        a[2 * half + 1] = __byte_perm(WordOf(even, m), WordOf(odd, m), 0x7632);
      }
    }
  }
};

// ---- A warp --------------------------------------------------------------------------------------

// Up to four queries are columns n, and what rounding them lost n + 4; more have two operands.
template <int kQueries>
inline constexpr int kQueryOperands = kQueries <= 4 ? 1 : 2;

// The queries, which all warps of a block share.
template <int kQueries, int kDim>
struct TileQueries {
  uint2 operands[kDim / 16][kQueryOperands<kQueries>][kWarp];  // as the lanes have them
  float factor[8];  // of columns: what makes scores of products, in powers of two without a cap
};

// One of a block's kWarps.
template <typename Kv, int kQueries, int kDim, int kWarps>
class TileWarp {
 public:
  using Tile = SlotTile<Kv, kDim>;
  using Queries = TileQueries<kQueries, kDim>;

  // Asks for the first tiles.
  __device__ __forceinline__ TileWarp(const KvLayer& kv, const int32_t* block_table, int kv_head,
                                      const SlotRange& range)
      : kv_(kv), block_table_(block_table), kv_head_(kv_head), range_(range),
        block_of_(kv.block_size) {
    // The same in all lanes, as the compiler then knows.
    const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarp, 0);
    end_ = (range.end + kTileSlots - 1) >> kTileSlotBits;
    tile_ = (range.first >> kTileSlotBits) + warp * kTiles;
    next_ = tile_;
    FindBlocks(next_, blocks_);
    FindBlocks(next_ + kStride, later_blocks_);
    FindNext();
    LoadKeys();
    LoadValues();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      maximum_[i] = kLowest;
      sum_[i] = 0;
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) values_[i][j] = 0;
    }
  }

  // By the block, which then synchronises. load(query, dim, x): x = q[query][dim ... dim + 7].
  template <typename Load>
  __device__ __forceinline__ static void ShareQueries(const AttentionShape& shape,
                                                      Queries& queries, const Load& load) {
    if (threadIdx.x >= kWarp) return;
    const int group = LaneGroup();
    const int query = kPacked ? group % 4 : group;
    float x[kSteps / 2][8];
    uint32_t largest = 0;
#pragma unroll
    for (int i = 0; i < kSteps / 2; ++i) {
      const int dim = Tile::KeyDim(i / 2, kIsScaled<Kv> ? 0 : i % 2, LaneInGroup()) +
                      (kIsScaled<Kv> ? i % 2 * 8 : 0);
      load(query, dim, x[i]);
#pragma unroll
      for (int j = 0; j < 8; ++j) largest = max(largest, MagnitudeBits(x[i][j]));
    }
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    // float16 has no room for other magnitudes than about one.
    const uint32_t exponent = min(max(largest >> 23, 1u), 253u);
    const float inverse = __uint_as_float((254 - exponent) << 23);
    if (LaneInGroup() == 0) {
      queries.factor[group] =
          __uint_as_float(exponent << 23) * shape.scale * (shape.soft_cap > 0 ? 1.0f : kLog2E);
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      uint32_t rounded[2], lost[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        // As KeyOperand has them.
        const float* const two = &x[i / 2][i % 2 * 4 + half * 2];
        const float low = two[0] * inverse, high = two[1] * inverse;
        rounded[half] = WordOfTwo<Element>(low, high);
        lost[half] = WordOfTwo<Element>(LostOf<Element>(low), LostOf<Element>(high));
      }
      uint2(*const to)[kWarp] = queries.operands[i];
      const bool is_lost = kPacked && group >= 4;
      to[0][threadIdx.x] = is_lost ? make_uint2(lost[0], lost[1]) : make_uint2(rounded[0], rounded[1]);
      if constexpr (!kPacked) to[1][threadIdx.x] = make_uint2(lost[0], lost[1]);
    }
  }

  // All tiles. own(slot, tile): replaces what is of the row's own slot in the tile that begins at
  // `slot`.
  template <typename Own>
  __device__ __forceinline__ void Run(const AttentionShape& shape, const Queries& queries,
                                      const Own& own) {
    const float factor[2] = {queries.factor[2 * LaneInGroup()],
                             queries.factor[2 * LaneInGroup() + 1]};
#pragma unroll 1
    for (; tile_ < end_; tile_ += kStride) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) own((tile_ + r) << kTileSlotBits, tiles_[r]);
      Attend(shape, queries, factor);
    }
  }

  // Leaves the sums in shared memory.
  __device__ __forceinline__ void Store(Part<kQueries, kDim>& part) {
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
        if constexpr (kPacked) values_[i][j] += __shfl_xor_sync(kAllLanes, values_[i][j], 2);
        if constexpr (kIsScaled<Kv>) values_[i][j] *= KvScaleValue(value_scale_);
      }
    }
    if (kPacked && LaneInGroup() >= 2) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int query = 2 * LaneInGroup() + i;
      if (query >= kQueries) break;
      if (LaneGroup() == 0) part.statistics[query] = make_float2(maximum_[i], sum_[i]);
#pragma unroll
      for (int half = 0; half < kSteps / 2; ++half) {
        const float(&low)[4] = values_[2 * half];
        const float(&high)[4] = values_[2 * half + 1];
        part.values[query][half / 2 * 16 + 2 * LaneGroup() + half % 2] =
            make_float4(low[i], low[i + 2], high[i], high[i + 2]);
      }
    }
  }

 private:
  using Element = TileElement<Kv>;
  static constexpr int kSteps = kDim / 16;
  // At once.
  static constexpr int kTiles = kDim * sizeof(Kv) <= 128 ? 2 : 1;
  static constexpr int kStride = kWarps * kTiles;
  static constexpr bool kPacked = kQueries <= 4;  // both parts of q and weights in one operand
  static constexpr int kOperands = kQueryOperands<kQueries>;
  static constexpr float kMostAbove = 8;  // of scores above maximum_

  // What a tile beyond the last is read from, for nothing.
  __device__ __forceinline__ int Clamped(int tile) const { return min(tile, end_ - 1); }
  __device__ __forceinline__ void FindBlocks(int first, int (&blocks)[kTiles]) const {
    if (first >= end_) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      blocks[r] = __ldcg(block_table_ + block_of_(Clamped(first + r) << kTileSlotBits));
    }
  }
  // What is to be loaded next; blocks are asked for two rounds ahead.
  __device__ __forceinline__ void FindNext() {
    loads_ = next_ < end_;
    if (!loads_) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const int slot = Clamped(next_ + r) << kTileSlotBits;
      const int in_block = slot - block_of_(slot) * kv_.block_size;
      at_[r] = static_cast<const Kv*>(kv_.data) + blocks_[r] * kv_.block_stride +
               (kv_head_ * kv_.block_size + in_block) * kDim;
      if constexpr (kIsScaled<Kv>) {
        scales_at_[r] = static_cast<const uint8_t*>(kv_.data) +
                        KvScaleOffset(kv_, blocks_[r], kv_head_, in_block);
      }
      blocks_[r] = later_blocks_[r];
    }
    next_ += kStride;
    FindBlocks(next_ + kStride, later_blocks_);
  }
  __device__ __forceinline__ void LoadKeys() {
    if (!loads_) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      tiles_[r].LoadKeys(at_[r]);
      if constexpr (kIsScaled<Kv>) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          tiles_[r].scales[row] =
              __ldcg(reinterpret_cast<const uint16_t*>(scales_at_[r]) + LaneGroup() + 8 * row);
        }
      }
    }
  }
  __device__ __forceinline__ void LoadValues() {
    if (!loads_) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) tiles_[r].LoadValues(at_[r] + kv_.value_offset);
  }

  __device__ __forceinline__ bool Inside(int slot) const {
    return slot >= range_.first && slot < range_.end;
  }

  __device__ __forceinline__ void Attend(const AttentionShape& shape, const Queries& queries,
                                         const float (&factor)[2]) {
    const int first = tile_ << kTileSlotBits;
    const bool edge = first < range_.first || first + kTiles * kTileSlots > range_.end;
    // Where one tile is at work, two sums side by side.
    constexpr int kSums = kTiles == 1 ? 2 : 1;
    float score[kTiles * kSums][4] = {};
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
#pragma unroll
      for (int part = 0; part < kOperands; ++part) {
        const uint2 q = queries.operands[i][part][threadIdx.x % kWarp];
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
          uint32_t a[4];
          tiles_[r].KeyOperand(i / 4, i % 4, a);
          MultiplyAccumulate<Element>(score[r + (kSums > 1 ? i % 2 : 0)], a, {q.x, q.y});
        }
      }
    }
    uint32_t scales[kTiles][2] = {};
    if constexpr (kIsScaled<Kv>) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        scales[r][0] = tiles_[r].scales[0];
        scales[r][1] = tiles_[r].scales[1];
      }
    }
    FindNext();
    LoadKeys();
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& x = score[r][i];
        if constexpr (kSums > 1) x += score[r + 1][i];
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
          if (!Inside(slot)) score[r][i] = -INFINITY;
        }
        // No one has written the scale.
        if constexpr (kIsScaled<Kv>) {
#pragma unroll
          for (int row = 0; row < 2; ++row) {
            if (!Inside(first + r * kTileSlots + LaneGroup() + 8 * row)) scales[r][row] = 0x0101;
          }
        }
        // Zero times what no one has written need not be zero.
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (Inside(first + r * kTileSlots + Tile::ValueSlot(i, LaneInGroup()))) continue;
#pragma unroll
          for (int c = 0; c < Tile::kChunks; ++c) tiles_[r].v[c][i] = {};
        }
      }
    }
    RaiseMaximum(score, scales);
    uint32_t weights[kTiles][kOperands][2];  // as operands
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
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        uint32_t a[4];
        tiles_[r].ValueOperand(i / 4, i % 4, a);
#pragma unroll
        for (int part = 0; part < kOperands; ++part) {
          MultiplyAccumulate<Element>(values_[i], a, weights[r][part]);
        }
      }
    }
    LoadValues();
  }

  // cap * tanh(score / cap), in powers of two: tanh(x) = 1 - 2 / (exp(2x) + 1), exact to some 1e-7
  // of the cap.
  __device__ __forceinline__ static float Capped(float cap, float score) {
    return cap * kLog2E * (1.0f - 2.0f / (Exp2(score / cap * (2 * kLog2E)) + 1.0f));
  }

  // Makes maximum_, and in float8 value_scale_, such that weights fit.
  template <int kCount>
  __device__ __forceinline__ void RaiseMaximum(const float (&score)[kCount][4],
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
      for (int j = 0; j < 4; ++j) values_[i][j] *= less[j % 2];
    }
  }

  const KvLayer& kv_;
  const int32_t* block_table_;
  int kv_head_;
  SlotRange range_;
  BlockOf block_of_;
  int tile_, next_, end_;  // of the row: the first at work, the first to load, the last's next
  int blocks_[kTiles], later_blocks_[kTiles];  // of next_ ..., and of the round after
  // What FindNext found.
  bool loads_;
  const Kv* at_[kTiles];
  const uint8_t* scales_at_[kTiles];

  Tile tiles_[kTiles];
  float maximum_[2], sum_[2];  // of weights, of columns 2 t and 2 t + 1
  float values_[kSteps][4];    // [dims 64 c + 8 g + 2 m, + 1][columns], unscaled
  uint8_t value_scale_ = 1;    // in float8: what values_ are to be multiplied by
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
