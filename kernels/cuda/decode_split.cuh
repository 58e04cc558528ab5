// One split of decode attention by one thread block: up to 256 slots of one sequence and KV head,
// for the query heads that share it.
//
// Keys, then values, stream through a ring of three tiles in shared memory (cp.async), so that
// two tiles are under way while one is computed on. Scores of all slots are made first, then their
// softmax, then the values are weighed: every KV element is read once for all heads.
#pragma once

#include "kernels/cuda/attention.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kDecodeThreads = 256;
static_assert(kDecodeThreads == kSplitSlots, "a thread finds each slot");
inline constexpr int kStages = 3;
// Room for one tile, whatever the KV's type, which the host may not know. A tile has as many slots
// as fit, a power of two: 128 of head_dim 64 in 16 bits, 64 of 128, 32 of 256.
inline constexpr int kStageBytes = 18 * 1024;
inline constexpr int kMaxTileSlots = 128;
inline constexpr int kMaxDecodeHeadDim = 1024;

// How a launch divides its work. The host makes it once a launch.
struct DecodeLayout {
  int32_t kv_heads;
  int32_t heads_a_kv_head;
  int32_t head_dim;
  int32_t chunks;      // of eight dimensions, the last one filled up with zeros
  int32_t heads;       // query heads a thread block takes: a multiple of the kernel's kHeads
  int32_t passes;      // thread blocks that a KV head's query heads need
  int32_t max_splits;  // of a row
};

// What a thread block works on: in shared memory, since registers are for sums.
struct DecodeItem {
  AttentionShape shape;  // these two stay
  KvLayer kv;
  const int32_t* block_table;
  int64_t out;         // of the first head's first element, in `out`
  int32_t row;         // of the step
  int32_t launch_row;  // of the launch
  int32_t group;       // of query heads: kv_head * passes + pass
  int32_t first_head;
  int32_t head_count;
  int32_t split;   // of those that the row sees
  int32_t splits;  // that the row sees
  int32_t first;   // slot
  int32_t count;   // slots, 1 ... 256
};

// Rows of one launch: every thread block has them in shared memory.
inline constexpr int kLaunchRows = 512;
inline constexpr int kMaxHeadsABlock = 32;

// The head of the block's shared memory.
struct DecodeFixed {
  alignas(16) unsigned char ring[kStages][kStageBytes];  // also the sums of slot groups
  int64_t offset[kSplitSlots];                           // bytes from kv.data to each slot's key
  DecodeItem item;
  float maximum[kMaxHeadsABlock];
  float sum[kMaxHeadsABlock];
  int32_t flag[kDecodeThreads / kWarp];
  int32_t lane[kLaunchRows];
  int32_t position[kLaunchRows];
  int32_t first_item[kLaunchRows + 1];  // splits of the rows before; of all rows
};

// The block's shared memory. `heads` and `chunks` as in the layout.
struct DecodeShared {
  DecodeFixed* fixed;
  float* weight;  // [256][heads]: products, then exp(score - maximum)
  float4* q;      // [heads][2][chunks]: dimensions 8c ... 8c + 3, and 8c + 4 ... 8c + 7
};

__device__ __forceinline__ DecodeShared CarveShared(unsigned char* base,
                                                    const DecodeLayout& layout) {
  DecodeShared shared;
  shared.fixed = reinterpret_cast<DecodeFixed*>(base);
  shared.weight = reinterpret_cast<float*>(base + CeilDiv(sizeof(DecodeFixed), 16) * 16);
  shared.q = reinterpret_cast<float4*>(shared.weight + layout.heads * kSplitSlots);
  return shared;
}
inline int64_t SharedBytes(const DecodeLayout& layout) {
  return CeilDiv(sizeof(DecodeFixed), 16) * 16 +
         int64_t{layout.heads} * (kSplitSlots * 4 + layout.chunks * 32);
}

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

__device__ __forceinline__ TileShape MakeTileShape(const DecodeLayout& layout, int element_bytes) {
  TileShape shape;
  shape.units = layout.chunks * 8 * element_bytes / 16;
  shape.stride = (shape.units | 1) * 16;
  shape.slots = kMaxTileSlots;
  while (shape.slots * shape.stride > kStageBytes) shape.slots /= 2;
  shape.parts = min(kWarp, max(4, kDecodeThreads / shape.slots));
  const int lane = threadIdx.x % kWarp;
  // Of four parts, neighbours read one unit of different slots; of more, units of one slot.
  shape.part = shape.parts == 4 ? lane / 8 : lane % shape.parts;
  shape.own_slot = shape.parts == 4 ? lane % 8 : lane / shape.parts;
  return shape;
}

// Begins to copy `count` slots from the split's slot `first` on; their keys or values.
template <typename T>
__device__ void CopyTile(const DecodeLayout& layout, const DecodeShared& shared,
                         const TileShape& tile, int first, int count, bool value,
                         unsigned char* stage) {
  const DecodeItem& item = shared.fixed->item;
  const char* base = static_cast<const char*>(item.kv.data) +
                     (value ? item.kv.value_offset * int64_t{sizeof(T)} : 0);
  if (SlotsAreWide(item.kv)) {
    const int step_slots = kDecodeThreads / tile.units;
    const int step_units = kDecodeThreads % tile.units;
    int slot = threadIdx.x / tile.units;
    int unit = threadIdx.x % tile.units;
    while (slot < count) {
      CopyAsync16(stage + slot * tile.stride + unit * 16,
                  base + shared.fixed->offset[first + slot] + unit * 16);
      slot += step_slots;
      unit += step_units;
      if (unit >= tile.units) {
        unit -= tile.units;
        ++slot;
      }
    }
    return;
  }
  for (int slot = threadIdx.x / kWarp; slot < count; slot += kDecodeThreads / kWarp) {
    const T* from = reinterpret_cast<const T*>(base + shared.fixed->offset[first + slot]);
    T* to = reinterpret_cast<T*>(stage + slot * tile.stride);
    for (int d = threadIdx.x % kWarp; d < layout.chunks * 8; d += kWarp) {
      to[d] = d < layout.head_dim ? from[d] : FromFloat<T>(0.0f);
    }
  }
}

// weight[first + slot][head] = q[head] * k[slot] for the tile's slots.
template <typename T, int kHeads>
__device__ void ScoreTile(const DecodeLayout& layout, const DecodeShared& shared,
                          const TileShape& tile, int first, int count, const unsigned char* stage) {
  const int slots_a_warp = kWarp / tile.parts;
  const int slots_at_once = slots_a_warp * (kDecodeThreads / kWarp);
  const int begin = threadIdx.x / kWarp * slots_a_warp;
  for (int warp_slot = begin; warp_slot < count; warp_slot += slots_at_once) {
    const int slot = warp_slot + tile.own_slot;
    const T* key = reinterpret_cast<const T*>(stage + slot * tile.stride);
    for (int head = 0; head < layout.heads; head += kHeads) {
      float sum[kHeads] = {};
      if (slot < count) {
        for (int chunk = tile.part; chunk < layout.chunks; chunk += tile.parts) {
          float k[8];
          LoadEight(key + chunk * 8, k);
#pragma unroll
          for (int h = 0; h < kHeads; ++h) {
            const float4* q = shared.q + (head + h) * 2 * layout.chunks + chunk;
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
        for (int h = 0; h < kHeads; ++h) sum[h] += __shfl_xor_sync(kAllLanes, sum[h], mask);
      }
      if (tile.part == 0 && slot < count) {
        float* weight = shared.weight + (first + slot) * layout.heads + head;
#pragma unroll
        for (int h = 0; h < kHeads; ++h) weight[h] = sum[h];
      }
    }
  }
}

// Turns the products of all slots into weights exp(score - maximum); a warp a head.
__device__ __forceinline__ void SoftmaxSplit(const DecodeLayout& layout,
                                             const DecodeShared& shared) {
  const DecodeItem& item = shared.fixed->item;
  const int lane = threadIdx.x % kWarp;
  for (int head = threadIdx.x / kWarp; head < layout.heads; head += kDecodeThreads / kWarp) {
    float maximum = -INFINITY;
    for (int slot = lane; slot < item.count; slot += kWarp) {
      float* at = shared.weight + slot * layout.heads + head;
      *at = AdjustScore(item.shape, *at);
      maximum = fmaxf(maximum, *at);
    }
    maximum = WarpMax(maximum);
    float sum = 0;
    for (int slot = lane; slot < item.count; slot += kWarp) {
      float* at = shared.weight + slot * layout.heads + head;
      *at = expf(*at - maximum);
      sum += *at;
    }
    sum = WarpSum(sum);
    if (lane == 0) {
      shared.fixed->maximum[head] = maximum;
      shared.fixed->sum[head] = sum;
    }
  }
}

// A thread's share of the weighted values: eight dimensions of kHeads heads, over every
// `groups`-th slot.
struct ValueShare {
  int32_t chunk;    // dimensions 8 * chunk ... + 7
  int32_t head;     // the first one
  int32_t member;   // which (chunk, heads), of `members`
  int32_t members;  // of a group
  int32_t group;    // of slots; >= groups: the thread has no share
  int32_t groups;
};

__device__ __forceinline__ ValueShare MakeValueShare(const DecodeLayout& layout,
                                                     int heads_a_thread) {
  ValueShare share;
  share.members = layout.chunks * (layout.heads / heads_a_thread);
  share.groups = kDecodeThreads / share.members;
  share.group = threadIdx.x / share.members;
  share.member = threadIdx.x % share.members;
  share.chunk = share.member % layout.chunks;
  share.head = share.member / layout.chunks * heads_a_thread;
  return share;
}

template <typename T, int kHeads>
__device__ void WeighTile(const DecodeLayout& layout, const DecodeShared& shared,
                          const TileShape& tile, const ValueShare& share, int first, int count,
                          const unsigned char* stage, float (&total)[kHeads][8]) {
  constexpr int kWide = kHeads < 4 ? kHeads : 4;
  if (share.group >= share.groups) return;
  for (int slot = share.group; slot < count; slot += share.groups) {
    float v[8];
    LoadEight(reinterpret_cast<const T*>(stage + slot * tile.stride) + share.chunk * 8, v);
    const float* weights = shared.weight + (first + slot) * layout.heads + share.head;
#pragma unroll
    for (int h = 0; h < kHeads; h += kWide) {
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
// half of the threads store theirs at a time: kHeads * 4 KiB of the ring.
template <int kHeads>
__device__ void SumGroups(const ValueShare& share, float4* scratch, float (&total)[kHeads][8]) {
  static_assert(kHeads * 2 * (kDecodeThreads / 2) * sizeof(float4) <= kStages * kStageBytes);
  for (int groups = share.groups; groups > 1; groups = (groups + 1) / 2) {
    const int half = (groups + 1) / 2;
    if (share.group >= half && share.group < groups) {
      float4* to = scratch + (share.group - half) * share.members + share.member;
#pragma unroll
      for (int i = 0; i < kHeads * 2; ++i) {
        const float* x = &total[i / 2][i % 2 * 4];
        to[i * (kDecodeThreads / 2)] = make_float4(x[0], x[1], x[2], x[3]);
      }
    }
    __syncthreads();
    if (share.group + half < groups) {
      const float4* from = scratch + share.group * share.members + share.member;
#pragma unroll
      for (int i = 0; i < kHeads * 2; ++i) {
        const float4 other = from[i * (kDecodeThreads / 2)];
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

// The whole split. Expects shared.item, offset and q; leaves maximum and sum in shared memory and
// the weighted values in `total` of group 0's threads.
template <typename T, int kHeads>
__device__ void AttendSplit(const DecodeLayout& layout, const DecodeShared& shared,
                            const ValueShare& share, float (&total)[kHeads][8]) {
  const TileShape tile = MakeTileShape(layout, sizeof(T));
  const int slots = shared.fixed->item.count;
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
      WeighTile<T, kHeads>(layout, shared, tile, share, first, count, stage_of(i), total);
      continue;
    }
    ScoreTile<T, kHeads>(layout, shared, tile, first, count, stage_of(i));
    if (i == tiles - 1) {
      __syncthreads();
      SoftmaxSplit(layout, shared);
    }
  }
  WaitForCopies<0>();
  __syncthreads();  // the ring is free
  SumGroups<kHeads>(share, reinterpret_cast<float4*>(shared.fixed->ring), total);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
