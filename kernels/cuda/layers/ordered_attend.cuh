// Attention in ordered_layers.cu, in the order of ordered_attention.cu: a block has the slots of
// one group of one query head, its eight warps take them in turn. What it leaves is merged with the
// other groups' where it is read.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cluster_merge.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/head_end.cuh"
#include "kernels/cuda/layers/ordered_shape.h"
#include "kernels/cuda/layers/ordered_shared.cuh"
#include "kernels/cuda/layers/words.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Of a head that a warp has whole, a lane's elements, as in HeadEnd: four of each half.
struct HeadQuads {
  float at[2][4];
};

template <typename S>
struct OrderedAttend {
  using T = Element;
  static constexpr int kDim = S::kDim;
  static constexpr int kLanes = kDim / 8;
  static_assert(kLanes == kWarp);
  using Batch = SlotBatch<T, 1, kLanes, S::kAttending>;
  using Sums = LaneSums<T, 1, kLanes>;

  const LayerParams& layer;
  const OrderedRow& row;
  OrderedShared<S>& shared;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int head = static_cast<int>(blockIdx.x) % S::kHeads;
  const int kv_head = head / (S::kHeads / S::kKvHeads);
  const int place = static_cast<int>(blockIdx.x) / S::kHeads;  // of the group, from the first on
  const RowGroups<S> groups{layer.attention, row.position};

  __device__ __forceinline__ bool has_slots() const {
    return groups.first() + place <= groups.last();
  }
  __device__ __forceinline__ SlotRange slots() const {
    return groups.SlotsOf(groups.first() + place);
  }
  // The lane's elements of a slot's key.
  __device__ __forceinline__ T* Key(int slot, const DividedBy& block_of) const {
    const KvLayer& kv = layer.kv;
    const int index = block_of(slot);
    const int64_t block =
        index < kLayersCachedBlocks
            ? shared.blocks[kv.group][index]
            : __ldcg(row.block_table + int64_t{kv.group} * row.max_blocks + index);
    return static_cast<T*>(kv.data) + block * kv.block_stride +
           (kv_head * kv.block_size + slot - index * kv.block_size) * kDim + 8 * lane;
  }
  __device__ __forceinline__ void Load(Batch& batch, int base, const SlotRange& range,
                                       const DividedBy& block_of) const {
#pragma unroll
    for (int j = 0; j < Batch::kBatch; ++j) {
      const T* const key = Key(min(Batch::Slot(base, j), range.end - 1), block_of);
      batch.k[j].LoadL2(key);
      batch.v[j].LoadL2(key + layer.kv.value_offset);
    }
  }
  // Asks the L2 cache for all slots of the block, by one warp.
  __device__ __forceinline__ void Prefetch() const {
    if (!has_slots()) return;
    const SlotRange range = slots();
    const DividedBy block_of(layer.kv.block_size);
    // Eight lanes a slot: a line each of its key and its value.
    const int64_t own = lane % 4 * 64 - 8 * lane + (lane / 4 % 2 == 0 ? 0 : layer.kv.value_offset);
#pragma unroll 1
    for (int slot = range.first + lane / 8; slot < range.end; slot += 4) {
      PrefetchL2(Key(slot, block_of) + own);
    }
  }

  // Four floats of shared.ends, which thread `thread` brings there.
  __device__ __forceinline__ float4 LoadEnd(int thread) const {
    const int of = thread / (kDim / 4);
    const float* const from = of == 0   ? layer.q_norm
                              : of == 1 ? layer.k_norm
                                        : layer.rotary.cos_sin + int64_t{row.position} * kDim;
    return of < 3 && from != nullptr
               ? __ldg(reinterpret_cast<const float4*>(from) + thread % (kDim / 4))
               : float4{};
  }
  __device__ __forceinline__ void StoreEnd(int thread, const float4& four) const {
    if (thread < 3 * (kDim / 4)) reinterpret_cast<float4*>(shared.ends)[thread] = four;
  }
  __device__ __forceinline__ HeadQuads End(int of) const {
    HeadQuads to;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Pack<float, 4> four =
          LoadPack<float, 4>(&shared.ends[of][half * (kDim / 2) + lane * 4]);
#pragma unroll
      for (int i = 0; i < 4; ++i) to.at[half][i] = four.at[i];
    }
    return to;
  }
  // What HeadEnd does, with weights and angles of shared.ends.
  __device__ __forceinline__ void End(HeadQuads& x, int of, bool normed) const {
    float squares = 0;
    const HeadQuads norm = End(of), turn = End(2);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i) squares = fmaf(x.at[half][i], x.at[half][i], squares);
    }
    if (normed) {
      const float inverse = rsqrtf(WarpSum(squares) / kDim + layer.norm_epsilon);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          x.at[half][i] = __fmul_rn(x.at[half][i], __fmul_rn(inverse, norm.at[half][i]));
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      TurnTwo(turn.at[0][i], turn.at[1][i], x.at[0][i], x.at[1][i]);
    }
  }
  struct HeadWords {
    TwoWords at[4];

    __device__ __forceinline__ void Load(const uint64_t* from, int lane) {
      at[0] = LoadTwoWords(from + 4 * lane);
      at[1] = LoadTwoWords(from + 4 * lane + 2);
      at[2] = LoadTwoWords(from + kDim / 2 + 4 * lane);
      at[3] = LoadTwoWords(from + kDim / 2 + 4 * lane + 2);
    }
    __device__ __forceinline__ bool Has(uint32_t tag) const {
      return at[0].Has(tag) && at[1].Has(tag) && at[2].Has(tag) && at[3].Has(tag);
    }
    __device__ __forceinline__ HeadQuads Values() const {
      HeadQuads to;
#pragma unroll
      for (int i = 0; i < 8; ++i) to.at[i / 4][i % 4] = at[i / 2].value(i % 2);
      return to;
    }
  };
  // A head in the cache's type, through the warp's own room: from this lane's quads to its eight.
  __device__ __forceinline__ void Exchange8(const HeadQuads& x, T* room) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      StoreFloats<T, 4>(x.at[half], room + half * (kDim / 2) + 4 * lane);
    }
  }

  // qkv_there: completes its phase `parity` when q, k and v are there, very likely.
  __device__ __forceinline__ void Run(uint64_t* words, uint32_t tag, uint32_t parity) const {
    const SlotRange range = slots();
    const DividedBy block_of(layer.kv.block_size);
    const int position = row.position;
    int base = Batch::First(range);
    constexpr int kStep = Batch::kBatch * Batch::kStride;
    Batch batch;
    if (base < range.end) Load(batch, base, range, block_of);
    const bool normed = layer.q_norm != nullptr;
    const bool has_own = range.end == position + 1 && (position - range.first) % S::kAttending == warp;
    WaitCopyBarrier(&shared.qkv_there, parity);
    // Query, key and value of the row, each in a place of the warp's own.
    T* const room = shared.x[warp];
    {
      const uint64_t* const q_at = words + S::kQkvAt + head * kDim;
      const uint64_t* const k_at = words + S::kQkvAt + S::kQRows + kv_head * kDim;
      // Key and value are asked for while what came before them is ended.
      HeadWords taken;
      const auto take = [&](const uint64_t* from) {
        while (!taken.Has(tag)) taken.Load(from, lane);
        __syncwarp();
      };
      do taken.Load(q_at, lane);
      while (!taken.Has(tag));
      __syncwarp();
      HeadQuads x = taken.Values();
      if (has_own) taken.Load(k_at, lane);
      End(x, 0, normed);
      Exchange8(x, room);
      if (has_own) {
        take(k_at);
        x = taken.Values();
        taken.Load(k_at + S::kKvRows, lane);
        End(x, 1, normed);
        Exchange8(x, room + kDim);
        take(k_at + S::kKvRows);
        Exchange8(taken.Values(), room + 2 * kDim);
      }
      __syncwarp();
    }
    float q[1][8];
    LoadFloats<T, 8>(room + 8 * lane, q[0]);
    if (has_own && head % (S::kHeads / S::kKvHeads) == 0) {
      T* const key = Key(position, block_of);
      *reinterpret_cast<uint4*>(key) = *reinterpret_cast<const uint4*>(room + kDim + 8 * lane);
      *reinterpret_cast<uint4*>(key + layer.kv.value_offset) =
          *reinterpret_cast<const uint4*>(room + 2 * kDim + 8 * lane);
    }
    Sums sums;
#pragma unroll 1
    while (base < range.end) {
#pragma unroll
      for (int j = 0; j < Batch::kBatch; ++j) {
        // In place of those beyond the end, too, which have no weight: what the cache has there may
        // be no number.
        if (min(Batch::Slot(base, j), range.end - 1) != position) continue;
        if (has_own) {
          batch.k[j].LoadShared(room + kDim + 8 * lane);
          batch.v[j].LoadShared(room + 2 * kDim + 8 * lane);
        } else {
          batch.k[j] = {};
          batch.v[j] = {};
        }
      }
      AttendBatch(batch, base, range, layer.attention, q, sums);
      base += kStep;
      // Earlier it would take registers, of which there are none: what is spilled costs more than this
      // wait.
      if (base < range.end) Load(batch, base, range, block_of);
    }
    StoreWarp(sums, shared.parts[warp]);
    BarrierOf<S::kAttending * kWarp>(2);
    const int quad = static_cast<int>(threadIdx.x);
    if (quad >= kDim / 4) return;
    float2 merged;
    const float4 total = MergeParts<S::kAttending>(
        S::kAttending, [&](int w) { return shared.parts[w].statistics[0]; },
        [&](int w) { return shared.parts[w].values[0][quad]; }, merged);
    const int item = head * S::kMostGroups + place;
    uint64_t* const to = words + S::kPartsAt + item * kDim + 4 * quad;
    StoreTwoWords(to, total.x, total.y, tag);
    StoreTwoWords(to + 2, total.z, total.w, tag);
    if (quad == 0) StoreTwoWords(words + S::kStatisticsAt + 2 * item, merged.x, merged.y, tag);
  }
};

// Attention's output of head `head`, its quad `quad`, by whole warps: its groups merged as those of
// a split are, then the splits, to four elements at `to`.
template <typename S>
__device__ __forceinline__ void MergeGroups(const RowGroups<S>& groups, int head, int quad,
                                            const uint64_t* words, uint32_t tag, Element* to) {
  constexpr int kOfSplit = 4;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int count = groups.last() - groups.first() + 1;
  static_assert(S::kMostGroups <= kWarp);
  // A group's maximum and sum, a lane each; the first split's values are asked for with them.
  const uint64_t* const statistics_at =
      words + S::kStatisticsAt + 2 * (head * S::kMostGroups + min(lane, count - 1));
  TwoWords own = LoadTwoWords(statistics_at);
  float2 statistics = {};
  float greatest = 0;
  const int first_split = groups.first() / kOfSplit, last_split = groups.last() / kOfSplit;
  const bool one = first_split == last_split;
  float all_sum = 0;
  float all[4] = {};
#pragma unroll 1
  for (int split = first_split; split <= last_split; ++split) {
    const int first = max(split * kOfSplit, groups.first()) - groups.first();
    const int parts =
        min(split * kOfSplit + kOfSplit - 1, groups.last()) - groups.first() - first + 1;
    const uint64_t* const at =
        words + S::kPartsAt + (head * S::kMostGroups + first) * S::kDim + 4 * quad;
    TwoWords values[kOfSplit][2];
    bool there;
    do {
      there = true;
#pragma unroll
      for (int g = 0; g < kOfSplit; ++g) {
        if (g >= parts) break;
#pragma unroll
        for (int i = 0; i < 2; ++i) values[g][i] = LoadTwoWords(at + g * S::kDim + 2 * i);
      }
#pragma unroll
      for (int g = 0; g < kOfSplit; ++g) {
        if (g >= parts) break;
#pragma unroll
        for (int i = 0; i < 2; ++i) there = there && values[g][i].Has(tag);
      }
    } while (!there);
    __syncwarp();
    if (split == first_split) {
      while (!own.Has(tag)) own = LoadTwoWords(statistics_at);
      __syncwarp();
      statistics = make_float2(own.value(0), own.value(1));
      if (!one) greatest = WarpMax(statistics.x);
    }
    float maxima[kOfSplit], sums[kOfSplit];
    float maximum = kLowest;
#pragma unroll
    for (int g = 0; g < kOfSplit; ++g) {
      maxima[g] = __shfl_sync(kAllLanes, statistics.x, (first + g) % kWarp);
      sums[g] = __shfl_sync(kAllLanes, statistics.y, (first + g) % kWarp);
      if (g < parts) maximum = fmaxf(maximum, maxima[g]);
    }
    float sum = 0;
    float total[4] = {};
#pragma unroll
    for (int g = 0; g < kOfSplit; ++g) {
      if (g >= parts) break;
      const float factor = Exp2(maxima[g] - maximum);
      sum = fmaf(factor, sums[g], sum);
#pragma unroll
      for (int i = 0; i < 4; ++i) total[i] = fmaf(factor, values[g][i / 2].value(i % 2), total[i]);
    }
    if (one) {
      all_sum = sum;
#pragma unroll
      for (int i = 0; i < 4; ++i) all[i] = total[i];
      break;
    }
    const float factor = Exp2(maximum - greatest);
    all_sum = fmaf(factor, sum, all_sum);
#pragma unroll
    for (int i = 0; i < 4; ++i) all[i] = fmaf(factor, total[i], all[i]);
  }
  const float share = 1.0f / all_sum;
#pragma unroll
  for (int i = 0; i < 4; ++i) all[i] *= share;
  StoreFloats<Element, 4>(all, to);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
