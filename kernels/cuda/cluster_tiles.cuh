// What a warp of cluster_attention.cu does with its share of many slots: tiles of 16 (tile_sums.cuh),
// their loads under way in registers while other tiles are worked on.
//
// k and v go from memory into the registers of their operands: dims may have any order in a product
// if q has the same, so that a lane's 16 bytes are whole operands, and two slots' values are put side
// by side by byte permutes. As many tiles are worked on at once as 64 registers hold: two of 64
// dimensions in 16 bits, so that what waits for each other is done for both.
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
#include "kernels/cuda/tile_sums.cuh"
#include "kernels/cuda/tile_walk.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// ---- A tile --------------------------------------------------------------------------------------

__device__ __forceinline__ uint32_t WordOf(const uint4& x, int i) {
  return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}
__device__ __forceinline__ uint32_t WordOf(const uint2& x, int i) { return i == 0 ? x.x : x.y; }

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
      : walk_(kv, block_table, kv_head, range, WarpOfBlock<kWarps>(),
              DividedBy(kv.block_size)),
        range_(range),
        value_offset_(kv.value_offset) {
    walk_.Next();
    LoadKeys();
    LoadValues();
    sums_.Clear();
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
    for (; walk_.Works(); walk_.Step()) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) own((walk_.tile() + r) << kTileSlotBits, tiles_[r]);
      Attend(shape, queries, factor);
    }
  }

  // Leaves the sums in shared memory.
  __device__ __forceinline__ void Store(Part<kQueries, kDim>& part) {
    sums_.Close(part);
    if (kPacked && LaneInGroup() >= 2) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int query = 2 * LaneInGroup() + i;
      if (query >= kQueries) break;
#pragma unroll
      for (int half = 0; half < kSteps / 2; ++half) {
        const float(&low)[4] = sums_.values[2 * half];
        const float(&high)[4] = sums_.values[2 * half + 1];
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
  static constexpr bool kPacked = kQueries <= 4;
  static constexpr int kOperands = kQueryOperands<kQueries>;
  using Walk = TileWalk<Kv, kDim, kTiles>;
  using Sums = TileSums<Kv, kQueries, kDim, kTiles>;

  __device__ __forceinline__ void LoadKeys() {
    if (!walk_.some) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      tiles_[r].LoadKeys(walk_.keys[r]);
      if constexpr (kIsScaled<Kv>) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          tiles_[r].scales[row] =
              __ldcg(reinterpret_cast<const uint16_t*>(walk_.scales[r]) + LaneGroup() + 8 * row);
        }
      }
    }
  }
  __device__ __forceinline__ void LoadValues() {
    if (!walk_.some) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) tiles_[r].LoadValues(walk_.keys[r] + value_offset_);
  }

  __device__ __forceinline__ void Attend(const AttentionShape& shape, const Queries& queries,
                                         const float (&factor)[2]) {
    const int first = walk_.tile() << kTileSlotBits;
    const bool edge = first < range_.first || first + kTiles * kTileSlots > range_.end;
    // Where one tile is at work, two sums side by side.
    constexpr int kChains = kTiles == 1 ? 2 : 1;
    float score[kTiles][4] = {}, other[4] = {};
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
#pragma unroll
      for (int part = 0; part < kOperands; ++part) {
        const uint2 q = queries.operands[i][part][threadIdx.x % kWarp];
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
          uint32_t a[4];
          tiles_[r].KeyOperand(i / 4, i % 4, a);
          MultiplyAccumulate<Element>(i % kChains == 0 ? score[r] : other, a, {q.x, q.y});
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
    walk_.Next();
    LoadKeys();
    if constexpr (kChains > 1) {
#pragma unroll
      for (int i = 0; i < 4; ++i) score[0][i] += other[i];
    }
    uint32_t weights[kTiles][kOperands][2];
    sums_.Weigh(shape, range_, edge, first, factor, score, scales, weights);
    if (edge) {
      // Zero times what no one has written need not be zero.
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int slot = first + r * kTileSlots + Tile::ValueSlot(i, LaneInGroup());
          if (Sums::Inside(range_, slot)) continue;
#pragma unroll
          for (int c = 0; c < Tile::kChunks; ++c) tiles_[r].v[c][i] = {};
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
          MultiplyAccumulate<Element>(sums_.values[i], a, weights[r][part]);
        }
      }
    }
    LoadValues();
  }

  Walk walk_;
  SlotRange range_;
  int64_t value_offset_;
  Tile tiles_[kTiles];
  Sums sums_;  // rows are dims 64 c + 8 g + 2 m, + 1
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
