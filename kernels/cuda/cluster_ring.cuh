// What a warp of cluster_attention.cu does with its share of very many slots: tiles of 16
// (tile_sums.cuh) from a ring of its own in shared memory, so that the bytes under way do not hang on
// registers.
//
// A unit of the ring has the keys, or the values, of as many tiles as are worked on at once, each a
// slot's row after the other. Every lane copies 16 bytes at a time (cp.async): 512 bytes of memory
// that stand side by side an instruction. A unit is asked for as soon as the one in its place has been
// multiplied; no other warp is waited for.
//
// Operands are read by ldmatrix, of values transposed. The eight rows of a matrix stand at multiples
// of 64 bytes or more, so the 16 bytes of a row (pieces) are permuted within 128: where piece p of row
// s goes is p XOR a key of s (Unit::Key), and the eight pieces of a matrix are in all banks. A piece in
// float8 is 16 dims: a lane's word of keys is then two registers of an operand, and one of values two
// slots of dims 2 g, 2 g + 1.
//
// Queries stay in registers as operands: a warp that has queries of its own makes them itself, for the
// warps of a block that share some it is done once (RingQueries).
//
// Assumes: blocks of a multiple of 16 slots; slots that begin at multiples of 16 bytes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/head_end.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/tile_sums.cuh"
#include "kernels/cuda/tile_walk.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// A warp's ring, by the dimensions of a head.
constexpr int RingBytes(int head_dim) { return (head_dim == 256 ? 24 : 12) * 1024; }

// The keys, or the values, of tiles that a warp works on at once.
template <typename Kv, int kDim>
struct RingUnit {
  static constexpr int kTiles = kDim * sizeof(Kv) <= 128 ? 2 : 1;
  static constexpr int kRowBytes = kDim * static_cast<int>(sizeof(Kv));
  static constexpr int kPieces = kRowBytes / 16;  // of a row
  static constexpr int kTileBytes = kTileSlots * kRowBytes;
  static constexpr int kBytes = kTiles * kTileBytes;
  static constexpr int kCopyRows = kWarp / kPieces;  // of a copy of the whole warp
  static constexpr int kCopies = kTileBytes / (16 * kWarp);
  static_assert(kPieces == 4 || kPieces == 8 || kPieces == 16 || kPieces == 32);

  // In 128 bytes are all of eight pieces, of one row or of two.
  __device__ __forceinline__ static constexpr int Key(int row) {
    return kPieces == 4 ? row / 2 % 4 : row % 8;
  }
  // Where a piece of a tile stands.
  __device__ __forceinline__ static constexpr int Place(int row, int piece) {
    return row * kRowBytes + (piece ^ Key(row)) * 16;
  }
};

// A warp's.
template <typename Kv, int kDim>
struct alignas(128) WarpRing {
  using Unit = RingUnit<Kv, kDim>;
  static constexpr int kUnits = RingBytes(kDim) / Unit::kBytes;
  static_assert(kUnits >= 2);

  unsigned char units[kUnits][Unit::kBytes];
  // In float8, of units of keys: LoadScales of the slots.
  uint16_t scales[kIsScaled<Kv> ? kUnits : 1][Unit::kTiles * kTileSlots];
};

// Queries that all warps of a block share, as operands: every warp making them of float32 for itself takes
// two microseconds, before which none of its ring is asked for again.
template <typename Kv, int kQueries, int kDim>
class RingQueries {
 public:
  static constexpr int kColumns = 8;
  static constexpr bool kPacked = kQueries <= 4;
  // Elements from a column to the next: an odd number of 16 bytes, so that those of a matrix are in all
  // banks.
  static constexpr int kStride = kDim + 8;

  // By a warp: one of the queries, of which a lane has as much as of a head (HeadEnd).
  __device__ __forceinline__ void Store(const AttentionShape& shape, int query,
                                        const typename HeadEnd<kDim>::Half (&x)[2]) {
    constexpr int kVec = HeadEnd<kDim>::kVec;
    float scale = shape.scale * (shape.soft_cap > 0 ? 1.0f : kLog2E);
    float inverse = 1;
    // float16 has no room for other magnitudes than about one.
    if constexpr (std::is_same_v<Element, __half>) {
      uint32_t largest = 0;
#pragma unroll
      for (int i = 0; i < 2 * kVec; ++i) {
        largest = max(largest, MagnitudeBits(x[i / kVec].at[i % kVec]));
      }
      largest = __reduce_max_sync(kAllLanes, largest);
      const uint32_t exponent = min(max(largest >> 23, 1u), 253u);
      inverse = __uint_as_float((254 - exponent) << 23);
      scale *= __uint_as_float(exponent << 23);
    }
    if (threadIdx.x % kWarp == 0) factor[query] = scale;
    Element* const rounded = operands[0][query];
    Element* const lost = kPacked ? operands[0][query + 4] : operands[kOperands - 1][query];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int begin = HeadEnd<kDim>::Begin(half);
      if constexpr (kVec == 1) {
        const float own = x[half].at[0] * inverse;
        rounded[Place(begin)] = FromFloat<Element>(own);
        lost[Place(begin)] = FromFloat<Element>(LostOf<Element>(own));
      } else {
#pragma unroll
        for (int i = 0; i < kVec; i += 2) {
          const float low = x[half].at[i] * inverse, high = x[half].at[i + 1] * inverse;
          const int place = Place(begin + i);
          *reinterpret_cast<uint32_t*>(rounded + place) = WordOfTwo<Element>(low, high);
          *reinterpret_cast<uint32_t*>(lost + place) =
              WordOfTwo<Element>(LostOf<Element>(low), LostOf<Element>(high));
        }
      }
    }
  }

 private:
  template <typename, int, int>
  friend class RingWarp;
  using Element = TileElement<Kv>;
  static constexpr int kOperands = kQueryOperands<kQueries>;

  // Where a dimension stands, two after each other: in float8 a lane's four are two pairs of an operand.
  __device__ __forceinline__ static int Place(int dim) {
    if constexpr (!kIsScaled<Kv>) return dim;
    return dim / 16 * 16 + dim / 2 % 2 * 8 + dim % 16 / 4 * 2 + dim % 2;
  }

  alignas(16) Element operands[kOperands][kColumns][kStride];
  float factor[kQueries];  // what makes scores of products, in powers of two without a cap
};

// A warp, which may share slots with others of its block.
template <typename Kv, int kQueries, int kDim>
class RingWarp {
 public:
  using Ring = WarpRing<Kv, kDim>;
  using Unit = RingUnit<Kv, kDim>;

  // Asks for as many tiles as there is room for. block_of: by kv.block_size. ring: found by threadIdx.x / kWarp, not by
  // WarpOfBlock. Where ptxas (CUDA 13.0) knows the address to be the same in all lanes, it adds it
  // in a uniform register to the lane's part, and makes of a copy with a cache policy what is no
  // instruction: LDGSTS [R + UR0], desc[UR1].
  __device__ __forceinline__ RingWarp(const KvLayer& kv, const int32_t* block_table, int kv_head,
                                      const SlotRange& range, const WarpOfSlots& own,
                                      const DividedBy& block_of, Ring& ring)
      : walk_(kv, block_table, kv_head, range, own, block_of),
        range_(range),
        value_offset_(kv.value_offset),
        ring_(ring) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    copy_ = Unit::Place(lane / Unit::kPieces, lane % Unit::kPieces);
    key_ = Unit::Place(lane % 16, lane / 16);
    value_ = Unit::Place(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      if (i % 2 == 0) {
        walk_.Next();
        CopyKeys(i);
      } else {
        CopyValues(i);
      }
    }
  }

  // Whether the slot is among the warp's.
  __device__ __forceinline__ bool Has(int slot) const { return walk_.Has(slot >> kTileSlotBits); }

  // ---- Queries. A lane has a part of one of them, two dimensions at a time ------------------------

  static constexpr int kTwos = kDim / 8;
  __device__ __forceinline__ static int Query() { return kPacked ? LaneGroup() % 4 : LaneGroup(); }
  // Where the lane's first two dimensions stand, and others of its kTwos from there: those that are
  // kTwos / 2 on from each other half a head apart.
  __device__ __forceinline__ static int FirstTwo() {
    return (kIsScaled<Kv> ? 4 : 2) * LaneInGroup();
  }
  __device__ __forceinline__ static constexpr int TwoAt(int i) {
    return i / 2 * 16 + i % 2 * (kIsScaled<Kv> ? 2 : 8);
  }

  // Those that the block has stored, after its barrier.
  __device__ __forceinline__ void TakeQueries(const RingQueries<Kv, kQueries, kDim>& queries) {
    using Queries = RingQueries<Kv, kQueries, kDim>;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      factor_[i] = queries.factor[(2 * LaneInGroup() + i) % kQueries];
    }
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int part = 0; part < kOperands; ++part) {
      const uint32_t lane_at = SharedAddress(&queries.operands[part][lane % 8][lane / 8 * 8]);
#pragma unroll
      for (int step = 0; step < kSteps; step += 2) {
        uint32_t m[4];
        LoadMatrix4At(m, lane_at + step * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i) queries_[step + i / 2][part][i % 2] = m[i];
      }
    }
    static_assert(Queries::kColumns == 8 && kSteps % 2 == 0);
  }

  // By every warp for itself. load(i): q[Query()][FirstTwo() + TwoAt(i)] and the next one.
  template <typename Load>
  __device__ __forceinline__ void TakeQueries(const AttentionShape& shape, const Load& load) {
    const float scale = shape.scale * (shape.soft_cap > 0 ? 1.0f : kLog2E);
    float inverse = 1;
    factor_[0] = factor_[1] = scale;
    // float16 has no room for other magnitudes than about one.
    if constexpr (std::is_same_v<Element, __half>) {
      uint32_t largest = 0;
#pragma unroll
      for (int i = 0; i < 2 * kSteps; ++i) {
        const float2 two = load(i);
        largest = max(largest, max(MagnitudeBits(two.x), MagnitudeBits(two.y)));
      }
      largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 1));
      largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 2));
      const uint32_t exponent = min(max(largest >> 23, 1u), 253u);
      inverse = __uint_as_float((254 - exponent) << 23);
      const float factor = __uint_as_float(exponent << 23) * scale;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        factor_[i] = __shfl_sync(kAllLanes, factor, 4 * (2 * LaneInGroup() + i));
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * kSteps; ++i) {
      float2 two = load(i);
      two.x *= inverse;
      two.y *= inverse;
      const uint32_t rounded = WordOfTwo<Element>(two.x, two.y);
      const uint32_t lost = WordOfTwo<Element>(LostOf<Element>(two.x), LostOf<Element>(two.y));
      if constexpr (kPacked) {
        queries_[i / 2][0][i % 2] = LaneGroup() < 4 ? rounded : lost;
      } else {
        queries_[i / 2][0][i % 2] = rounded;
        queries_[i / 2][1][i % 2] = lost;
      }
    }
  }

  // All tiles. own: k and v of slot `own_slot` (in float8 with their scales behind them), in place of
  // what the cache had there before this step; where there is none, own_slot is -1.
  template <typename Own>
  __device__ __forceinline__ void Run(const AttentionShape& shape, int own_slot, const Own& own) {
    sums_.Clear();
    int unit = 0;
#pragma unroll 1
    for (; walk_.Works(); walk_.Step()) {
      const int row = own_slot - (walk_.tile() << kTileSlotBits);
      const int own_row = row >= 0 && row < kTiles * kTileSlots ? row : -1;
      Attend(shape, unit, own_row, own);
    }
  }

  // Leaves the sums in shared memory, which may be the ring's.
  __device__ __forceinline__ void Store(Part<kQueries, kDim>& part) {
    sums_.Close(part);
    if (kPacked && LaneInGroup() >= 2) return;
    // Heads begin in the same bank: neighbours store different halves of a step.
    const int twist = LaneInGroup() % 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int query = 2 * LaneInGroup() + i;
      if (query >= kQueries) break;
      float* const to = reinterpret_cast<float*>(part.values[query]);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const float(&of_step)[4] = sums_.values[step];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int own = half ^ twist;
          const int in_step = kIsScaled<Kv> ? 2 * LaneGroup() + own : LaneGroup() + 8 * own;
          to[16 * step + in_step] = own == 0 ? of_step[i] : of_step[i + 2];
        }
      }
    }
  }

 private:
  using Element = TileElement<Kv>;
  static constexpr int kSteps = kDim / 16;
  static constexpr int kUnits = Ring::kUnits;
  static constexpr int kTiles = Unit::kTiles;
  static constexpr bool kPacked = kQueries <= 4;
  static constexpr int kOperands = kQueryOperands<kQueries>;
  // Sums side by side of a tile's scores: an instruction waits for the one before in its sum.
  static constexpr int kChains = kTiles == 1 ? 4 : 2;
  using Sums = TileSums<Kv, kQueries, kDim, kTiles>;

  // ---- The ring. Each of these commits a group of copies, an empty one where nothing is left ------

  __device__ __forceinline__ void CopyTile(const void* from, uint32_t to) const {
    const char* const piece =
        static_cast<const char*>(from) + static_cast<int>(threadIdx.x) % kWarp * 16;
#pragma unroll
    for (int i = 0; i < Unit::kCopies; ++i) {
      // Of rows i * kCopyRows and on: their key is the first copy's but for these bits.
      const uint32_t twist = Unit::Key(i * Unit::kCopyRows) * 16;
      CopyAsync16To(((to + copy_) ^ twist) + i * 16 * kWarp, piece + i * 16 * kWarp, policy_);
    }
  }
  __device__ __forceinline__ void CopyKeys(int unit) {
    if (walk_.some) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        CopyTile(walk_.keys[r], AddressOf(unit) + r * Unit::kTileBytes);
        if constexpr (kIsScaled<Kv>) {
          constexpr int kLanes = kTileSlots * sizeof(uint16_t) / 16;
          const int lane = static_cast<int>(threadIdx.x) % kWarp;
          if (lane < kLanes) {
            CopyAsync16(&ring_.scales[unit][r * kTileSlots + lane * 8], walk_.scales[r] + lane * 16);
          }
        }
      }
    }
    CommitCopies();
  }
  // Of the tiles that were found last.
  __device__ __forceinline__ void CopyValues(int unit) {
    if (walk_.some) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        CopyTile(walk_.keys[r] + value_offset_, AddressOf(unit) + r * Unit::kTileBytes);
      }
    }
    CommitCopies();
  }
  __device__ __forceinline__ uint32_t AddressOf(int unit) const {
    return SharedAddress(ring_.units) + unit * Unit::kBytes;
  }
  // The unit at work is there, for all lanes.
  __device__ __forceinline__ static void WaitForUnit() {
    WaitForCopies<kUnits - 1>();
    __syncwarp();
  }
  // All lanes have read the unit: what comes next in its place is asked for. A unit of keys is
  // followed there by one of the same kind where the ring has an even number of them.
  template <bool kIsKeys>
  __device__ __forceinline__ void FreeUnit(int& unit) {
    __syncwarp();
    if constexpr (kIsKeys == (kUnits % 2 == 0)) {
      walk_.Next();
      CopyKeys(unit);
    } else {
      CopyValues(unit);
    }
    unit = unit + 1 == kUnits ? 0 : unit + 1;
  }

  // ---- Work ------------------------------------------------------------------------------------

  // k or v of the row's own slot in the unit.
  __device__ __forceinline__ void TakeOwn(int unit, int own_row, const Kv* own) const {
    if (own_row < 0) return;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    if (lane < Unit::kPieces) {
      unsigned char* const tile = ring_.units[unit] + own_row / kTileSlots * Unit::kTileBytes;
      *reinterpret_cast<uint4*>(tile + Unit::Place(own_row % kTileSlots, lane)) =
          *(reinterpret_cast<const uint4*>(own) + lane);
    }
    __syncwarp();
  }
  // Zero times what no one has written need not be zero.
  __device__ __forceinline__ void ClearOutside(int unit, int first) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll 1
    for (int row = lane / Unit::kPieces; row < kTiles * kTileSlots; row += Unit::kCopyRows) {
      if (Sums::Inside(range_, first + row)) continue;
      unsigned char* const tile = ring_.units[unit] + row / kTileSlots * Unit::kTileBytes;
      *reinterpret_cast<uint4*>(tile + Unit::Place(row % kTileSlots, lane % Unit::kPieces)) = {};
    }
    __syncwarp();
  }
  // Pieces 2 `pair` and 2 `pair` + 1 of a tile, from a lane's address of the first pair.
  __device__ __forceinline__ static uint32_t PairAt(uint32_t lane_at, int pair) {
    return (lane_at ^ (pair % 4 * 32)) + pair / 4 * 128;
  }

  __device__ __forceinline__ void Multiply(int unit, float (&score)[kTiles][kChains][4]) const {
#pragma unroll
    for (int pair = 0; pair < Unit::kPieces / 2; ++pair) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        uint32_t m[4];
        LoadMatrix4At(m, PairAt(AddressOf(unit) + r * Unit::kTileBytes + key_, pair));
        const auto multiply = [&](int step, const uint32_t(&a)[4]) {
#pragma unroll
          for (int part = 0; part < kOperands; ++part) {
            MultiplyAccumulate<Element>(score[r][step % kChains], a, queries_[step][part]);
          }
        };
        if constexpr (kIsScaled<Kv>) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const uint32_t low = m[2 * half], high = m[2 * half + 1];
            multiply(2 * pair + half, {HalvesOfFloat8(low), HalvesOfFloat8(high),
                                       HalvesOfFloat8(low >> 16), HalvesOfFloat8(high >> 16)});
          }
        } else {
          multiply(pair, m);
        }
      }
    }
  }

  __device__ __forceinline__ void AddValues(int unit,
                                            const uint32_t (&weights)[kTiles][kOperands][2]) {
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int pair = 0; pair < Unit::kPieces / 2; ++pair) {
        uint32_t m[4];
        LoadMatrix4TransposedAt(m, PairAt(AddressOf(unit) + r * Unit::kTileBytes + value_, pair));
        const auto multiply = [&](int step, const uint32_t(&a)[4]) {
#pragma unroll
          for (int part = 0; part < kOperands; ++part) {
            MultiplyAccumulate<Element>(sums_.values[step], a, weights[r][part]);
          }
        };
        if constexpr (kIsScaled<Kv>) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            // Bytes: dims 2 g, 2 g + 1 of one slot, then of the next.
            const uint32_t first = __byte_perm(m[half], 0, 0x3120);
            const uint32_t second = __byte_perm(m[2 + half], 0, 0x3120);
            multiply(2 * pair + half, {HalvesOfFloat8(first), HalvesOfFloat8(first >> 16),
                                       HalvesOfFloat8(second), HalvesOfFloat8(second >> 16)});
          }
        } else {
          multiply(pair, m);
        }
      }
    }
  }

  template <typename Own>
  __device__ __forceinline__ void Attend(const AttentionShape& shape, int& unit, int own_row,
                                         const Own& own) {
    const int first = walk_.tile() << kTileSlotBits;
    const bool edge = first < range_.first || first + kTiles * kTileSlots > range_.end;
    WaitForUnit();
    TakeOwn(unit, own_row, own[0]);
    float chains[kTiles][kChains][4] = {};
    Multiply(unit, chains);
    float score[kTiles][4];
    uint32_t scales[kTiles][2] = {};
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        score[r][i] = chains[r][0][i];
#pragma unroll
        for (int c = 1; c < kChains; ++c) score[r][i] += chains[r][c][i];
      }
      if constexpr (kIsScaled<Kv>) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          const int in_unit = r * kTileSlots + LaneGroup() + 8 * row;
          scales[r][row] = in_unit == own_row ? own[0][kDim].bits | uint32_t{own[1][kDim].bits} << 8
                                              : ring_.scales[unit][in_unit];
        }
      }
    }
    FreeUnit<true>(unit);
    uint32_t weights[kTiles][kOperands][2];
    sums_.Weigh(shape, range_, edge, first, factor_, score, scales, weights);
    WaitForUnit();
    TakeOwn(unit, own_row, own[1]);
    if (edge) ClearOutside(unit, first);
    AddValues(unit, weights);
    FreeUnit<false>(unit);
  }

  TileWalk<Kv, kDim, kTiles> walk_;
  SlotRange range_;
  int64_t value_offset_;
  Ring& ring_;
  // Read once by a group of query heads: they do not drive out of the L2 cache what is read again.
  const uint64_t policy_ = EvictFirstPolicy();
  uint32_t copy_, key_, value_;  // the lane's places of a tile: of copies, of matrices of k and of v
  float factor_[2];  // of columns 2 t, 2 t + 1: what makes scores of products, in powers of two
  uint32_t queries_[kSteps][kOperands][2];
  Sums sums_;  // rows are dims 16 i + g, + 8; in float8 16 i + 2 g, + 1
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
