// Up to 256 slots of one sequence and KV head by one thread block, for up to 32 queries that share
// them: query heads of one row in a decode step, of several rows in prefill.
//
// Keys, then values, stream through a ring of three tiles in shared memory (cp.async), so that
// two tiles are under way while one is computed on. Scores of all slots are made first, then their
// softmax, then the values are weighed: every KV element is read once for all queries.
//
// The kernel is one for the types of KV without scales, and another for float8 (kScaled), where a
// slot's scales meet its products and its values.
#pragma once

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/kv_slots.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kSplitThreads = 256;
static_assert(kSplitThreads == kSplitSlots, "a thread finds each slot");
inline constexpr int kStages = 3;
// Room for one tile, whatever the KV's type. A tile has as many slots as fit, a power of two: 128 of
// head_dim 64 in 16 bits, 64 of 128, 32 of 256; in float8 128 of head_dim 128.
inline constexpr int kStageBytes = 18 * 1024;
inline constexpr int kMaxTileSlots = 128;
inline constexpr int kMaxSplitHeadDim = 1024;
inline constexpr int kMaxSplitQueries = 32;
// What every GPU since sm_80 gives a block.
inline constexpr int64_t kMaxBlockShared = 99 * 1024;

// How a thread block divides its work.
struct SplitLayout {
  int32_t head_dim;
  int32_t chunks;   // of eight dimensions, the last one filled up with zeros
  int32_t queries;  // a thread block takes: a multiple of the kernel's kQueries
};

// The head of the block's shared memory.
struct SplitFixed {
  alignas(16) unsigned char ring[kStages][kStageBytes];  // also the sums of slot groups
  // Bytes from kv.data to each slot's key; where there are scales, 16 bits higher, above them.
  int64_t offset[kSplitSlots];
  AttentionShape shape;
  KvLayer kv;
  int32_t first;  // slot
  int32_t count;  // slots, 1 ... 256
  float maximum[kMaxSplitQueries];
  float sum[kMaxSplitQueries];
};

template <typename T>
__device__ __forceinline__ int64_t KeyOffset(const SplitFixed& fixed, int slot) {
  return kIsScaled<T> ? fixed.offset[slot] >> 16 : fixed.offset[slot];
}
__device__ __forceinline__ uint32_t ScalesOf(const SplitFixed& fixed, int slot) {
  return static_cast<uint32_t>(fixed.offset[slot] & 0xffff);
}

// The block's shared memory. `Fixed` is a SplitFixed, and what the kernel adds.
template <typename Fixed = SplitFixed>
struct SplitShared {
  Fixed* fixed;
  float* weight;  // [256][queries]: products, then exp(score - maximum)
  float4* q;      // [queries][2][chunks]: dimensions 8c ... 8c + 3, and 8c + 4 ... 8c + 7

  __device__ SplitShared(unsigned char* base, const SplitLayout& layout)
      : fixed(reinterpret_cast<Fixed*>(base)),
        weight(reinterpret_cast<float*>(base + FixedBytes())),
        q(reinterpret_cast<float4*>(weight + layout.queries * kSplitSlots)) {}
  template <typename Other>
  __device__ SplitShared(const SplitShared<Other>& other)  // NOLINT: as a pointer to a base class
      : fixed(other.fixed), weight(other.weight), q(other.q) {}

  static constexpr int64_t FixedBytes() { return CeilDiv(sizeof(Fixed), 16) * 16; }
  static int64_t Bytes(const SplitLayout& layout) {
    return FixedBytes() + int64_t{layout.queries} * (kSplitSlots * 4 + layout.chunks * 32);
  }
};

// How tiles of one KV type lie in shared memory, and which part of each a thread works on.
struct TileShape {
  int32_t slots;     // a tile
  int32_t stride;    // bytes between slots: an odd number of 16-byte units, so that eight threads
                     // that read one unit of eight slots meet eight different banks
  int32_t units;     // 16-byte units a slot
  int32_t parts;     // threads that share a slot's product with q
  int32_t part;      // of this thread: it takes chunks part, part + parts, ...
  int32_t own_slot;  // within what a warp takes at once
};

__device__ __forceinline__ TileShape MakeTileShape(const SplitLayout& layout, int element_bytes) {
  TileShape shape;
  shape.units = element_bytes == 1 ? (layout.chunks + 1) / 2  // the last one may be half empty
                                   : layout.chunks * 8 * element_bytes / 16;
  shape.stride = (shape.units | 1) * 16;
  shape.slots = kMaxTileSlots;
  while (shape.slots * shape.stride > kStageBytes) shape.slots /= 2;
  shape.parts = min(kWarp, max(4, kSplitThreads / shape.slots));
  const int lane = threadIdx.x % kWarp;
  // Of four parts, neighbours read one unit of different slots; of more, units of one slot.
  shape.part = shape.parts == 4 ? lane / 8 : lane % shape.parts;
  shape.own_slot = shape.parts == 4 ? lane % 8 : lane / shape.parts;
  return shape;
}

// Begins to copy `count` slots from the split's slot `first` on; their keys or values.
template <typename T>
__device__ void CopyTile(const SplitLayout& layout, const SplitShared<>& shared,
                         const TileShape& tile, int first, int count, bool value,
                         unsigned char* stage) {
  const SplitFixed& item = *shared.fixed;
  const char* base = static_cast<const char*>(item.kv.data) +
                     (value ? item.kv.value_offset * int64_t{sizeof(T)} : 0);
  if (SlotsAreWide<kWideElements<T>>(item.kv)) {
    const int step_slots = kSplitThreads / tile.units;
    const int step_units = kSplitThreads % tile.units;
    int slot = threadIdx.x / tile.units;
    int unit = threadIdx.x % tile.units;
    while (slot < count) {
      CopyAsync16(stage + slot * tile.stride + unit * 16,
                  base + KeyOffset<T>(*shared.fixed, first + slot) + unit * 16);
      slot += step_slots;
      unit += step_units;
      if (unit >= tile.units) {
        unit -= tile.units;
        ++slot;
      }
    }
    return;
  }
  for (int slot = threadIdx.x / kWarp; slot < count; slot += kSplitThreads / kWarp) {
    const T* from = reinterpret_cast<const T*>(base + KeyOffset<T>(*shared.fixed, first + slot));
    T* to = reinterpret_cast<T*>(stage + slot * tile.stride);
    for (int d = threadIdx.x % kWarp; d < layout.chunks * 8; d += kWarp) {
      to[d] = d < layout.head_dim ? from[d] : FromFloat<T>(0.0f);
    }
  }
}

// weight[first + slot][query] = q[query] * k[slot] for the tile's slots.
template <typename T, int kQueries>
__device__ void ScoreTile(const SplitLayout& layout, const SplitShared<>& shared,
                          const TileShape& tile, int first, int count, const unsigned char* stage) {
  const int slots_a_warp = kWarp / tile.parts;
  const int slots_at_once = slots_a_warp * (kSplitThreads / kWarp);
  const int begin = threadIdx.x / kWarp * slots_a_warp;
  for (int warp_slot = begin; warp_slot < count; warp_slot += slots_at_once) {
    const int slot = warp_slot + tile.own_slot;
    const T* key = reinterpret_cast<const T*>(stage + slot * tile.stride);
    for (int query = 0; query < layout.queries; query += kQueries) {
      float sum[kQueries] = {};
      if (slot < count) {
        for (int chunk = tile.part; chunk < layout.chunks; chunk += tile.parts) {
          float k[8];
          LoadFloats<T, 8>(key + chunk * 8, k);
#pragma unroll
          for (int h = 0; h < kQueries; ++h) {
            const float4* q = shared.q + (query + h) * 2 * layout.chunks + chunk;
            const float4 low = q[0];
            const float4 high = q[layout.chunks];
            sum[h] = fmaf(low.x, k[0], sum[h]);
            sum[h] = fmaf(low.y, k[1], sum[h]);
            sum[h] = fmaf(low.z, k[2], sum[h]);
            sum[h] = fmaf(low.w, k[3], sum[h]);
            sum[h] = fmaf(high.x, k[4], sum[h]);
            sum[h] = fmaf(high.y, k[5], sum[h]);
            sum[h] = fmaf(high.z, k[6], sum[h]);
            sum[h] = fmaf(high.w, k[7], sum[h]);
          }
        }
      }
      const int first_mask = tile.parts == 4 ? 8 : 1;
      for (int mask = first_mask; mask < first_mask * tile.parts; mask *= 2) {
#pragma unroll
        for (int h = 0; h < kQueries; ++h) sum[h] += __shfl_xor_sync(kAllLanes, sum[h], mask);
      }
      if (tile.part == 0 && slot < count) {
        float* weight = shared.weight + (first + slot) * layout.queries + query;
        if constexpr (kIsScaled<T>) {
          const float scale = KeyScale(ScalesOf(*shared.fixed, first + slot));
#pragma unroll
          for (int h = 0; h < kQueries; ++h) sum[h] *= scale;
        }
#pragma unroll
        for (int h = 0; h < kQueries; ++h) weight[h] = sum[h];
      }
    }
  }
}

// A thread's share of the weighted values: eight dimensions of kQueries heads, over every
// `groups`-th slot.
struct ValueShare {
  int32_t chunk;    // dimensions 8 * chunk ... + 7
  int32_t query;    // the first one
  int32_t member;   // which (chunk, queries), of `members`
  int32_t members;  // of a group
  int32_t group;    // of slots; >= groups: the thread has no share
  int32_t groups;
};

__device__ __forceinline__ ValueShare MakeValueShare(const SplitLayout& layout,
                                                     int queries_a_thread) {
  ValueShare share;
  share.members = layout.chunks * (layout.queries / queries_a_thread);
  share.groups = kSplitThreads / share.members;
  share.group = threadIdx.x / share.members;
  share.member = threadIdx.x % share.members;
  share.chunk = share.member % layout.chunks;
  share.query = share.member / layout.chunks * queries_a_thread;
  return share;
}

template <typename T, int kQueries>
__device__ void WeighTile(const SplitLayout& layout, const SplitShared<>& shared,
                          const TileShape& tile, const ValueShare& share, int first, int count,
                          const unsigned char* stage, float (&total)[kQueries][8]) {
  constexpr int kWide = kQueries < 4 ? kQueries : 4;
  if (share.group >= share.groups) return;
  for (int slot = share.group; slot < count; slot += share.groups) {
    float v[8];
    LoadFloats<T, 8>(reinterpret_cast<const T*>(stage + slot * tile.stride) + share.chunk * 8, v);
    if constexpr (kIsScaled<T>) {
      const float scale = ValueScale(ScalesOf(*shared.fixed, first + slot));
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] *= scale;
    }
    const float* weights = shared.weight + (first + slot) * layout.queries + share.query;
#pragma unroll
    for (int h = 0; h < kQueries; h += kWide) {
      const auto weight = LoadPack<float, kWide>(weights + h);
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
#pragma unroll
        for (int i = 0; i < 8; ++i) total[h + j][i] = fmaf(weight.at[j], v[i], total[h + j][i]);
      }
    }
  }
}

// Adds up the groups' totals, pair by pair in a fixed order: group 0 ends with the sum. At most
// half of the threads store theirs at a time: kQueries * 4 KiB of the ring.
template <int kQueries>
__device__ void SumGroups(const ValueShare& share, float4* scratch, float (&total)[kQueries][8]) {
  static_assert(kQueries * 2 * (kSplitThreads / 2) * sizeof(float4) <= kStages * kStageBytes);
  for (int groups = share.groups; groups > 1; groups = (groups + 1) / 2) {
    const int half = (groups + 1) / 2;
    if (share.group >= half && share.group < groups) {
      float4* to = scratch + (share.group - half) * share.members + share.member;
#pragma unroll
      for (int i = 0; i < kQueries * 2; ++i) {
        const float* x = &total[i / 2][i % 2 * 4];
        to[i * (kSplitThreads / 2)] = make_float4(x[0], x[1], x[2], x[3]);
      }
    }
    __syncthreads();
    if (share.group + half < groups) {
      const float4* from = scratch + share.group * share.members + share.member;
#pragma unroll
      for (int i = 0; i < kQueries * 2; ++i) {
        const float4 other = from[i * (kSplitThreads / 2)];
        float* x = &total[i / 2][i % 2 * 4];
        x[0] += other.x;
        x[1] += other.y;
        x[2] += other.z;
        x[3] += other.w;
      }
    }
    __syncthreads();
  }
}

// By all threads: where the keys of the slots first ... first + count - 1 stand, and their scales.
template <bool kScaled>
__device__ __forceinline__ void FindSlots(const SplitShared<>& shared, const int32_t* block_table,
                                          int kv_head) {
  SplitFixed& fixed = *shared.fixed;
  const int thread = threadIdx.x;
  if (thread >= fixed.count) return;
  if constexpr (kScaled) {
    const int slot = fixed.first + thread;
    const int block = block_table[slot / fixed.kv.block_size];
    fixed.offset[thread] = OffsetInBlock(fixed.kv, block, kv_head, slot) << 16 |
                           LoadScales(fixed.kv, block, kv_head, slot % fixed.kv.block_size);
    return;
  }
  const int64_t element_bytes = fixed.kv.dtype == DType::kFloat32 ? 4 : 2;
  fixed.offset[thread] =
      SlotOffset(fixed.kv, block_table, kv_head, fixed.first + thread) * element_bytes;
}

// total += weights * values over slots first ... first + count - 1. Expects shape, kv, offset and q
// in shared memory. Between keys and values all threads call `softmax`, which turns products into
// weights; it may synchronise and change `total`.
template <typename T, int kQueries, typename Softmax>
__device__ void AttendSlotsOf(const SplitLayout& layout, const SplitShared<>& shared,
                              const ValueShare& share, float (&total)[kQueries][8],
                              const Softmax& softmax) {
  const TileShape tile = MakeTileShape(layout, sizeof(T));
  const int slots = shared.fixed->count;
  const int tiles = (slots + tile.slots - 1) / tile.slots;  // of keys; as many of values
  const auto stage_of = [&](int i) { return shared.fixed->ring[i % kStages]; };
  const auto copy = [&](int i) {
    if (i < 2 * tiles) {
      const int first = i % tiles * tile.slots;
      CopyTile<T>(layout, shared, tile, first, min(tile.slots, slots - first), i >= tiles,
                  stage_of(i));
    }
    CommitCopies();
  };
  for (int i = 0; i < kStages - 1; ++i) copy(i);
  for (int i = 0; i < 2 * tiles; ++i) {
    WaitForCopies<kStages - 2>();
    // Tile i is there for all threads, and all are done with tile i - 1, whose stage comes next.
    __syncthreads();
    copy(i + kStages - 1);
    const int first = i % tiles * tile.slots;
    const int count = min(tile.slots, slots - first);
    if (i >= tiles) {
      WeighTile<T, kQueries>(layout, shared, tile, share, first, count, stage_of(i), total);
      continue;
    }
    ScoreTile<T, kQueries>(layout, shared, tile, first, count, stage_of(i));
    if (i == tiles - 1) {
      __syncthreads();
      softmax();
    }
  }
  WaitForCopies<0>();
  __syncthreads();  // the ring is free
}
template <int kQueries, bool kScaled, typename Softmax>
__device__ __forceinline__ void AttendSlots(const SplitLayout& layout, const SplitShared<>& shared,
                                            const ValueShare& share, float (&total)[kQueries][8],
                                            const Softmax& softmax) {
  if constexpr (kScaled) {
    AttendSlotsOf<Float8, kQueries>(layout, shared, share, total, softmax);
    return;
  }
  switch (shared.fixed->kv.dtype) {
    case DType::kBFloat16:
      return AttendSlotsOf<__nv_bfloat16, kQueries>(layout, shared, share, total, softmax);
    case DType::kFloat16:
      return AttendSlotsOf<__half, kQueries>(layout, shared, share, total, softmax);
    default:  // float32
      break;
  }
  AttendSlotsOf<float, kQueries>(layout, shared, share, total, softmax);
}

// Group 0's totals to shared.q, which is not needed any more, as [queries][8 * chunks]. The block
// synchronises before they are read.
template <int kQueries>
__device__ __forceinline__ void ShareTotals(const SplitLayout& layout, const SplitShared<>& shared,
                                            const ValueShare& share,
                                            const float (&total)[kQueries][8]) {
  if (share.group != 0) return;
#pragma unroll
  for (int i = 0; i < kQueries * 2; ++i) {
    const float* x = &total[i / 2][i % 2 * 4];
    shared.q[((share.query + i / 2) * layout.chunks + share.chunk) * 2 + i % 2] =
        make_float4(x[0], x[1], x[2], x[3]);
  }
}

// q as float32, in the order that ScoreTile reads. `start(query)`: where its head begins in `q`;
// -1: there is none, and zeros take its place.
template <typename Start>
__device__ __forceinline__ void LoadQueries(const SplitLayout& layout, const SplitShared<>& shared,
                                            const Rows& q, const Start& start) {
  const int width = layout.chunks * 8;
  float* to = reinterpret_cast<float*>(shared.q);
  for (int i = threadIdx.x; i < layout.queries * width; i += kSplitThreads) {
    const int query = i / width;
    const int d = i - query * width;
    const int64_t from = start(query);
    const bool present = from >= 0 && d < layout.head_dim;
    const int part = (query * 2 + d % 8 / 4) * layout.chunks + d / 8;
    to[part * 4 + d % 4] = present ? LoadElement(q, from + d) : 0.0f;
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
