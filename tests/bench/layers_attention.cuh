// Attention in layers_kernel.cu: a block has a part of the slots of one query head, and afterwards
// its share of the head's dimensions over all parts.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cluster_merge.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/head_end.cuh"
#include "kernels/lanes.h"
#include "tests/bench/layers_kernel.h"
#include "tests/bench/layers_multiply.cuh"
#include "tests/bench/layers_plan.h"
#include "tests/bench/layers_words.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

constexpr int kAttentionThreads = kClusterThreads;  // the first of a block

struct LayersArgs {
  DecoderLayersParams p;
  LayersPlan plan;
};

__device__ __forceinline__ void AttentionBarrier() { BarrierOf<kAttentionThreads>(2); }

constexpr int kCachedBlocks = 128;  // of a layer group's block table

template <typename T, int kDim>
struct AttentionShared {
  int32_t blocks[kMaxLayerGroups][kCachedBlocks];
  Part<1, kDim> warps[kClusterWarps];
  float sums[3][kDim];   // bare products of the head, of k and of v
  float heads[3][kDim];  // ended; k and v on their way to kv
  alignas(16) T kv[2][kDim];
};

template <typename Shared>
__device__ __forceinline__ int BlockAt(const Shared& shared, const int32_t* table, int group,
                                       int index) {
  return index < kCachedBlocks ? shared.blocks[group][index] : __ldcg(table + index);
}

// What a block has of attention.
struct AttentionItem {
  int head, part, kv_head;
  bool writes;  // k and v, where it has the row's own slot
  int part_bits;
};

// The slots of a part.
__device__ __forceinline__ SlotRange PartOf(const AttentionShape& shape, int position, int parts,
                                            const AttentionItem& item) {
  const int first_slot = FirstSlot(shape, position);
  const int size = (position - first_slot + parts) >> item.part_bits;
  SlotRange slots;
  slots.first = first_slot + item.part * size;
  slots.end = min(slots.first + size, position + 1);
  return slots;
}

// Asks the L2 cache for the first keys and values that a thread will load.
template <typename T, int kDim>
__device__ __forceinline__ void PrefetchPart(const LayersArgs& args, const LayerParams& layer,
                                             int position, int lane, const AttentionItem& item,
                                             const AttentionShared<T, kDim>& shared) {
  using Batch = SlotBatch<T, 1, kDim / 8>;
  const KvLayer& kv = layer.kv;
  const SlotRange slots = PartOf(layer.attention, position, args.plan.parts, item);
  const BlockOf block_of(kv.block_size);
  const int32_t* const table = args.p.lanes.BlockTable(lane, kv.group);
  const int dim = static_cast<int>(threadIdx.x) % (kDim / 8) * 8;
  if (dim % 64 != 0) return;
#pragma unroll
  for (int j = 0; j < Batch::kBatch; ++j) {
    const int slot = Batch::Slot(Batch::First(slots), j);
    if (slot >= slots.end) return;
    const int index = block_of(slot);
    const int64_t block = BlockAt(shared, table, kv.group, index);
    const T* const key = static_cast<const T*>(kv.data) + block * kv.block_stride +
                         (item.kv_head * kv.block_size + slot - index * kv.block_size) * kDim + dim;
    PrefetchL2(key);
    PrefetchL2(key + kv.value_offset);
  }
}

// This block's part of a head's slots, by the first kAttentionThreads, and its share of the merged
// head.
template <typename T, int kDim>
__device__ __noinline__ void AttendPart(const LayersArgs& args, const LayerParams& layer,
                                        int position, int lane, const AttentionItem& item,
                                        uint64_t* words, uint32_t tag,
                                        AttentionShared<T, kDim>& shared) {
  constexpr int kLanes = kDim / 8;
  using Batch = SlotBatch<T, 1, kLanes>;
  const LayersPlan& plan = args.plan;
  const int head = item.head, part = item.part, kv_head = item.kv_head;
  const int warp = threadIdx.x / kWarp;
  const KvLayer& kv = layer.kv;
  const AttentionShape shape = layer.attention;
  const int32_t* const block_table = args.p.lanes.BlockTable(lane, kv.group);
  const SlotRange slots = PartOf(shape, position, plan.parts, item);
  const bool has_own = slots.first <= position && slots.end == position + 1;
  const BlockOf block_of(kv.block_size);
  float4 total = make_float4(0, 0, 0, 0);
  float2 merged = make_float2(kLowest, 0);
  constexpr int kQuads = kDim / 4;
  if (slots.first < slots.end) {
    const int dim = static_cast<int>(threadIdx.x) % kLanes * 8;
    LaneSums<T, 1, kLanes> sums;
    float q[1][8];
    bool first = true;
#pragma unroll 1
    for (int base = Batch::First(slots);; base += Batch::kBatch * Batch::kStride) {
      const bool some = base < slots.end;
      Batch batch;
      if (some) {
        const T* const data = static_cast<const T*>(kv.data) + dim;
#pragma unroll
        for (int j = 0; j < Batch::kBatch; ++j) {
          const int slot = min(Batch::Slot(base, j), slots.end - 1);
          const int index = block_of(slot);
          const int64_t block = BlockAt(shared, block_table, kv.group, index);
          const int in_block = kv_head * kv.block_size + slot - index * kv.block_size;
          const T* const key = data + block * kv.block_stride + in_block * kDim;
          batch.k[j].LoadL2(key);
          batch.v[j].LoadL2(key + kv.value_offset);
        }
      }
      if (first) {
        first = false;
        if (warp == 0 || (warp < 3 && has_own)) {
          // A warp a head: q's, k's, v's.
          const int own = (warp == 0 ? head : kv_head) * kDim;
          const int from = own + (warp == 0   ? 0
                                  : warp == 1 ? args.p.layer.q_rows
                                              : args.p.layer.q_rows + args.p.layer.kv_rows);
          float* const bare = shared.sums[warp];
          const int own_lane = threadIdx.x % kWarp;
          constexpr int kMost = (kDim / 2 + kWarp - 1) / kWarp;
          const float* const bias = warp == 0   ? layer.q_bias
                                    : warp == 1 ? layer.k_bias
                                                : layer.v_bias;
          const int turned = warp < 2 ? layer.rotary.dim : 0;
          using Head = HeadEnd<kDim>;
          const float* const norm = warp == 0 ? layer.q_norm : warp == 1 ? layer.k_norm : nullptr;
          const float* const turn = layer.rotary.cos_sin + int64_t{position} * turned;
          const auto load = [&](const float* from, typename Head::Half(&to)[2]) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              to[half] = LoadPack<float, Head::kVec>(from + Head::Begin(half));
            }
          };
          typename Head::Half x[2], added[2] = {}, weight[2], angle[2];
          if (bias != nullptr) load(bias + own, added);
          if (norm != nullptr) load(norm, weight);
          if (turned == kDim) load(turn, angle);
          TakeWords<kMost>(words + plan.words.qkv + from, own_lane, kWarp, kDim / 2, tag,
                           [&](int i, int, const TwoWords& two) {
                             bare[2 * i] = two.value(0);
                             bare[2 * i + 1] = two.value(1);
                           });
          __syncwarp();
          load(bare, x);
          float squares = 0;
#pragma unroll
          for (int i = 0; i < 2 * Head::kVec; ++i) {
            float& value = x[i / Head::kVec].at[i % Head::kVec];
            value += added[i / Head::kVec].at[i % Head::kVec];
            squares += value * value;
          }
          if (norm != nullptr) {
            const float inverse = rsqrtf(WarpSum(squares) / kDim + layer.norm_epsilon);
#pragma unroll
            for (int i = 0; i < 2 * Head::kVec; ++i) {
              x[i / Head::kVec].at[i % Head::kVec] *=
                  inverse * weight[i / Head::kVec].at[i % Head::kVec];
            }
          }
          if (turned == kDim) {
#pragma unroll
            for (int i = 0; i < Head::kVec; ++i) {
              const float cosine = angle[0].at[i], sine = angle[1].at[i];
              const float low = x[0].at[i], high = x[1].at[i];
              x[0].at[i] = low * cosine - high * sine;
              x[1].at[i] = high * cosine + low * sine;
            }
          }
          const int block = BlockAt(shared, block_table, kv.group, block_of(position));
          T* const cache = static_cast<T*>(kv.data) + OffsetInBlock(kv, block, kv_head, position);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int begin = Head::Begin(half);
            if (warp == 0) {
              StoreFloats<float, Head::kVec>(x[half].at, shared.heads[0] + begin);
              continue;
            }
            StoreFloats<T, Head::kVec>(x[half].at, &shared.kv[warp - 1][begin]);
            if (item.writes) {
              StoreFloats<T, Head::kVec>(x[half].at,
                                         cache + (warp == 2 ? kv.value_offset : 0) + begin);
            }
          }
        }
        AttentionBarrier();
        LoadFloats<float, 8>(&shared.heads[0][dim], q[0]);
      }
      if (!some) break;
#pragma unroll
      for (int j = 0; j < Batch::kBatch; ++j) {
        if (min(Batch::Slot(base, j), slots.end - 1) != position) continue;
        batch.k[j].LoadShared(&shared.kv[0][dim]);
        batch.v[j].LoadShared(&shared.kv[1][dim]);
      }
      AttendBatch(batch, base, slots, shape, q, sums);
    }
    StoreWarp(sums, shared.warps[warp]);
    AttentionBarrier();
    if (threadIdx.x < kQuads) {
      total = MergeParts<kClusterWarps>(
          kClusterWarps, [&](int w) { return shared.warps[w].statistics[0]; },
          [&](int w) { return shared.warps[w].values[0][threadIdx.x]; }, merged);
    }
  }
  const int64_t of_head = int64_t{head} * plan.parts;
  if (threadIdx.x < kQuads) {
    uint64_t* const to = words + plan.words.parts + (of_head + part) * kDim + 4 * threadIdx.x;
    StoreTwoWords(to, total.x, total.y, tag);
    StoreTwoWords(to + 2, total.z, total.w, tag);
    if (threadIdx.x == 0) {
      StoreTwoWords(words + plan.words.statistics + (of_head + part) * 2, merged.x, merged.y, tag);
    }
  }
  // This block's share of the head's dimensions, over all parts: a lane a part.
  if (threadIdx.x >= kDim) return;
  const int share = kDim >> item.part_bits;
  const int element = part * share + (static_cast<int>(threadIdx.x) >> item.part_bits);
  const int of = static_cast<int>(threadIdx.x) & (plan.parts - 1);
  const uint64_t* const value_at = words + plan.words.parts + (of_head + of) * kDim + element;
  const uint64_t* const statistics_at = words + plan.words.statistics + (of_head + of) * 2;
  uint64_t value;
  TwoWords statistics;
  do {
    value = LoadWord(value_at);
    statistics = LoadTwoWords(statistics_at);
  } while (static_cast<uint32_t>(value >> 32) != tag || !statistics.Has(tag));
  float maximum = statistics.value(0);
  for (int step = 1; step < plan.parts; step *= 2) {
    maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, step));
  }
  const float factor = Exp2(statistics.value(0) - maximum);
  float sum = factor * statistics.value(1);
  float out = factor * __uint_as_float(static_cast<uint32_t>(value));
  for (int step = 1; step < plan.parts; step *= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, step);
    out += __shfl_xor_sync(kAllLanes, out, step);
  }
  if (of == 0) StoreWord(words + plan.words.attention + head * kDim + element, out / sum, tag);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
