// Attention in layers.cu: a block has a part of the slots of one query head of one row. What
// it leaves is merged with the other parts where it is read.
//
// Every warp ends the query for itself. A lane has dimensions 4 l ... 4 l + 3 of both halves of a
// head, which turn together.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/layers/exchange.cuh"
#include "kernels/cuda/layers/multiply.cuh"
#include "kernels/cuda/layers/shape.h"
#include "kernels/cuda/layers/words.cuh"
#include "kernels/lanes.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

template <typename S>
struct AttentionShared {
  int32_t blocks[kMaxLayerGroups][kLayersCachedBlocks];  // of the block's row
  float2 statistics[S::kWarps];                          // maximum, sum
  alignas(16) float values[S::kWarps][S::kDim];
};

struct HeadShare {
  float at[8];  // 4 of a half, 4 of the other
};

// What a block has of attention, the same for all layers.
struct AttentionItem {
  int row, head, part, kv_head;
  int position;
  const int32_t* block_table;  // of the lane's first group
  int max_blocks;
};
// Of a block that has one.
template <typename S>
__device__ __forceinline__ AttentionItem ItemOf(const RowMap& map, const Lanes& lanes) {
  constexpr int kOfRow = S::kItems / S::kRows;
  const int block = static_cast<int>(blockIdx.x);
  AttentionItem item;
  item.row = block / kOfRow;
  item.head = block % kOfRow / S::kParts;
  item.part = block % kOfRow % S::kParts;
  item.kv_head = item.head / (S::kHeads / S::kKvHeads);
  item.position = __ldcg(map.position + item.row);
  item.block_table = lanes.BlockTable(__ldcg(map.lane + item.row), 0);
  item.max_blocks = lanes.max_blocks;
  return item;
}

// The row's block tables, as far as shared memory has them, by `threads` threads of which the
// calling one is `thread`.
template <typename S>
__device__ __forceinline__ void CacheBlockTable(const AttentionItem& item, int groups,
                                                AttentionShared<S>& shared, int thread,
                                                int threads) {
  for (int i = thread; i < groups * kLayersCachedBlocks; i += threads) {
    const int index = i % kLayersCachedBlocks;
    const int group = i / kLayersCachedBlocks;
    if (index < item.max_blocks) {
      shared.blocks[group][index] =
          __ldcg(item.block_table + int64_t{group} * item.max_blocks + index);
    }
  }
}

template <typename T>
__device__ __forceinline__ HeadShare Widen(const uint2& low, const uint2& high) {
  HeadShare to;
  const uint32_t of[4] = {low.x, low.y, high.x, high.y};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Pack<T, 2> two = *reinterpret_cast<const Pack<T, 2>*>(&of[i]);
    to.at[2 * i] = ToFloat(two.at[0]);
    to.at[2 * i + 1] = ToFloat(two.at[1]);
  }
  return to;
}

// The slots of a block's part, and where a warp's lanes find theirs.
template <typename T, typename S>
struct PartSlots {
  static constexpr int kLanes = S::kDim / 8;      // of a slot
  static constexpr int kAtOnce = kWarp / kLanes;  // slots of a warp
  static constexpr int kStride = S::kWarps * kAtOnce;
  static constexpr int kBatch = S::kDim < 128 ? 2 : S::kDim / 64;

  const KvLayer& kv;
  const AttentionItem& item;
  const AttentionShared<S>& shared;
  const DividedBy block_of;
  int first, end;
  T* data;

  __device__ __forceinline__ PartSlots(const LayerParams& layer, const AttentionItem& item,
                                       const AttentionShared<S>& shared)
      : kv(layer.kv), item(item), shared(shared), block_of(layer.kv.block_size) {
    const int first_slot = FirstSlot(layer.attention, item.position);
    const int size = (item.position - first_slot + S::kParts) / S::kParts;
    first = first_slot + item.part * size;
    end = min(first + size, item.position + 1);
    data = static_cast<T*>(kv.data) + int64_t{item.kv_head} * kv.block_size * S::kDim +
           static_cast<int>(threadIdx.x) % kLanes * 4;
  }
  // The lane's first.
  __device__ __forceinline__ int base() const {
    return first + static_cast<int>(threadIdx.x) / kLanes;
  }
  __device__ __forceinline__ T* Key(int slot) const {
    const int index = block_of(slot);
    const int64_t block =
        index < kLayersCachedBlocks
            ? shared.blocks[kv.group][index]
            : __ldcg(item.block_table + int64_t{kv.group} * item.max_blocks + index);
    return data + block * kv.block_stride + (slot - index * kv.block_size) * S::kDim;
  }
  // Asks the L2 cache for the first batch.
  __device__ __forceinline__ void Prefetch() const {
#pragma unroll 1
    for (int j = 0; j < kBatch; ++j) {
      const int slot = base() + j * kStride;
      if (slot >= end) return;
      const T* const key = Key(slot);
      PrefetchL2(key);
      PrefetchL2(key + S::kDim / 2);
      PrefetchL2(key + kv.value_offset);
      PrefetchL2(key + kv.value_offset + S::kDim / 2);
    }
  }
};

// qkv_there: completes its phase `parity` when q, k and v are there, very likely.
template <typename T, typename S>
__device__ __forceinline__ void AttendPart(const LayerParams& layer, const AttentionItem& item,
                                           uint64_t* words, uint32_t tag,
                                           AttentionShared<S>& shared, uint64_t* qkv_there,
                                           uint32_t parity) {
  constexpr int kDim = S::kDim;
  using Slots = PartSlots<T, S>;
  constexpr int kLanes = Slots::kLanes;
  constexpr int kAtOnce = Slots::kAtOnce;
  constexpr int kStride = Slots::kStride;
  constexpr int kBatch = Slots::kBatch;
  constexpr int kHigh = kDim / 2;
  constexpr float kLog2E = 1.44269504f;
  const int warp = threadIdx.x / kWarp;
  const int dim = static_cast<int>(threadIdx.x) % kLanes * 4;
  const int own = static_cast<int>(threadIdx.x) % kWarp / kLanes;
  const int position = item.position;
  const AttentionShape shape = layer.attention;
  const Slots slots(layer, item, shared);
  const int first = slots.first, end = slots.end;
  const int64_t value_offset = layer.kv.value_offset;
  const auto load = [&](const float* from) {
    HeadShare to;
    const float4 low = __ldg(reinterpret_cast<const float4*>(from + dim));
    const float4 high = __ldg(reinterpret_cast<const float4*>(from + kHigh + dim));
    to = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
    return to;
  };

  uint2 k[kBatch][2], v[kBatch][2];
  const auto ask = [&](int base) {
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const T* const key = slots.Key(max(min(base + j * kStride, end - 1), 0));
      k[j][0] = __ldcg(reinterpret_cast<const uint2*>(key));
      k[j][1] = __ldcg(reinterpret_cast<const uint2*>(key + kHigh));
      v[j][0] = __ldcg(reinterpret_cast<const uint2*>(key + value_offset));
      v[j][1] = __ldcg(reinterpret_cast<const uint2*>(key + value_offset + kHigh));
    }
  };
  int base = slots.base();
  const int warp_base = first + warp * kAtOnce;
  ask(base);
  const bool normed = layer.q_norm != nullptr;
  HeadShare q_norm, k_norm, turn;
  if (normed) {
    q_norm = load(layer.q_norm);
    k_norm = load(layer.k_norm);
  }
  // Cosines of both, then sines.
  turn = load(layer.rotary.cos_sin + int64_t{position} * kDim);

  // The warp that has the row's own slot, which is not in the cache yet.
  const bool has_own =
      end == position + 1 && first < end && (position - first) / kAtOnce % S::kWarps == warp;
  const uint64_t* const q_at = words + S::kQkvAt + item.row * S::kQkvRows + item.head * kDim + dim;
  const uint64_t* const k_at =
      words + S::kQkvAt + item.row * S::kQkvRows + S::kQRows + item.kv_head * kDim + dim;
  const auto take = [&](const uint64_t* from, TwoWords(&to)[4]) {
    to[0] = LoadTwoWords(from);
    to[1] = LoadTwoWords(from + 2);
    to[2] = LoadTwoWords(from + kHigh);
    to[3] = LoadTwoWords(from + kHigh + 2);
  };
  const auto has = [&](const TwoWords(&of)[4]) {
    return of[0].Has(tag) && of[1].Has(tag) && of[2].Has(tag) && of[3].Has(tag);
  };
  const auto values = [](const TwoWords(&of)[4]) {
    HeadShare to;
#pragma unroll
    for (int i = 0; i < 8; ++i) to.at[i] = of[i / 2].value(i % 2);
    return to;
  };
  const auto squares = [&](const HeadShare& x) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(x.at[i], x.at[i], sum);
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, offset);
    }
    return rsqrtf(sum / kDim + layer.norm_epsilon);
  };
  const auto finish = [&](HeadShare& x, const HeadShare& norm) {
    if (normed) {
      const float inverse = squares(x);
#pragma unroll
      for (int i = 0; i < 8; ++i) x.at[i] *= inverse * norm.at[i];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float low = x.at[i], high = x.at[4 + i];
      x.at[i] = low * turn.at[i] - high * turn.at[4 + i];
      x.at[4 + i] = high * turn.at[i] + low * turn.at[4 + i];
    }
  };
  const auto narrow = [](const HeadShare& x, uint2(&to)[2]) {
    Pack<T, 4> low, high;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      low.at[i] = FromFloat<T>(x.at[i]);
      high.at[i] = FromFloat<T>(x.at[4 + i]);
    }
    to[0] = *reinterpret_cast<const uint2*>(&low);
    to[1] = *reinterpret_cast<const uint2*>(&high);
  };

  WaitCopyBarrier(qkv_there, parity);
  HeadShare q;
  uint2 own_k[2], own_v[2];
  {
    TwoWords taken[4];
    if (has_own) {
      TwoWords taken_k[4], taken_v[4];
      bool all;
      do {
        take(q_at, taken);
        take(k_at, taken_k);
        take(k_at + S::kKvRows, taken_v);
        all = has(taken) && has(taken_k) && has(taken_v);
      } while (!all);
      __syncwarp();
      HeadShare key = values(taken_k);
      finish(key, k_norm);
      narrow(key, own_k);
      narrow(values(taken_v), own_v);
      if (item.head % (S::kHeads / S::kKvHeads) == 0 && own == 0) {
        T* const to = slots.Key(position);
        *reinterpret_cast<uint2*>(to) = own_k[0];
        *reinterpret_cast<uint2*>(to + kHigh) = own_k[1];
        *reinterpret_cast<uint2*>(to + value_offset) = own_v[0];
        *reinterpret_cast<uint2*>(to + value_offset + kHigh) = own_v[1];
      }
    } else {
      do {
        take(q_at, taken);
      } while (!has(taken));
      __syncwarp();
    }
    q = values(taken);
  }
  finish(q, q_norm);

  float most = -1e30f, sum = 0;
  HeadShare out = {};
#pragma unroll 1
  for (int at = warp_base; at < end;) {
    float scores[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int slot = base + j * kStride;
      if (has_own && slot == position) {
        k[j][0] = own_k[0];
        k[j][1] = own_k[1];
        v[j][0] = own_v[0];
        v[j][1] = own_v[1];
      }
      const HeadShare key = Widen<T>(k[j][0], k[j][1]);
      float a = 0, b = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a = fmaf(q.at[i], key.at[i], a);
        b = fmaf(q.at[4 + i], key.at[4 + i], b);
      }
      scores[j] = a + b;
    }
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2) {
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        scores[j] += __shfl_xor_sync(kAllLanes, scores[j], offset);
      }
    }
    float greatest = most;
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      scores[j] = base + j * kStride < end ? AdjustScore(shape, scores[j]) * kLog2E : -INFINITY;
      greatest = fmaxf(greatest, scores[j]);
    }
    const float before = Exp2(most - greatest);
    most = greatest;
    sum *= before;
#pragma unroll
    for (int i = 0; i < 8; ++i) out.at[i] *= before;
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const float share = Exp2(scores[j] - greatest);
      sum += share;
      const HeadShare value = Widen<T>(v[j][0], v[j][1]);
#pragma unroll
      for (int i = 0; i < 8; ++i) out.at[i] = fmaf(share, value.at[i], out.at[i]);
    }
    at += kBatch * kStride;
    base += kBatch * kStride;
    if (at < end) ask(base);
  }
  // Slots that other lanes have.
#pragma unroll
  for (int offset = kLanes; offset < kWarp; offset *= 2) {
    const float greatest = fmaxf(most, __shfl_xor_sync(kAllLanes, most, offset));
    const float factor = Exp2(most - greatest);
    most = greatest;
    sum *= factor;
    sum += __shfl_xor_sync(kAllLanes, sum, offset);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      out.at[i] *= factor;
      out.at[i] += __shfl_xor_sync(kAllLanes, out.at[i], offset);
    }
  }
  if (own == 0) {
    float* const to = &shared.values[warp][dim];
    *reinterpret_cast<float4*>(to) = make_float4(out.at[0], out.at[1], out.at[2], out.at[3]);
    *reinterpret_cast<float4*>(to + kHigh) =
        make_float4(out.at[4], out.at[5], out.at[6], out.at[7]);
    if (dim == 0) shared.statistics[warp] = make_float2(most, sum);
  }
  BarrierOf<S::kWarps * kWarp>(2);
  constexpr int kQuads = kDim / 4;
  const int quad = threadIdx.x;
  if (quad >= kQuads) return;
  float maxima[S::kWarps];
  float greatest = -1e30f;
#pragma unroll
  for (int w = 0; w < S::kWarps; ++w) {
    maxima[w] = shared.statistics[w].x;
    greatest = fmaxf(greatest, maxima[w]);
  }
  float total = 0;
  float4 of = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int w = 0; w < S::kWarps; ++w) {
    const float factor = Exp2(maxima[w] - greatest);
    total = fmaf(factor, shared.statistics[w].y, total);
    const float4 value = *reinterpret_cast<const float4*>(&shared.values[w][4 * quad]);
    of.x = fmaf(factor, value.x, of.x);
    of.y = fmaf(factor, value.y, of.y);
    of.z = fmaf(factor, value.z, of.z);
    of.w = fmaf(factor, value.w, of.w);
  }
  const float inverse = total > 0 ? 1 / total : 0.0f;
  Pack<T, 2> low, high;
  low.at[0] = FromFloat<T>(of.x * inverse);
  low.at[1] = FromFloat<T>(of.y * inverse);
  high.at[0] = FromFloat<T>(of.z * inverse);
  high.at[1] = FromFloat<T>(of.w * inverse);
  const float weight = total > 0 ? greatest + __log2f(total) : -1e30f;
  StoreWideWord(
      words + S::kPartsAt +
          2 * (((item.row * S::kHeads + item.head) * S::kParts + item.part) * kQuads + quad),
      *reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high),
      __float_as_uint(weight), tag);
}

// Four elements of attention's output, over all parts: the words are there when they have the tag.
template <typename T, int kParts>
__device__ __forceinline__ bool PartsHave(const WideWord (&parts)[kParts], uint32_t tag) {
  bool all = true;
#pragma unroll
  for (int p = 0; p < kParts; ++p) all = all && parts[p].Has(tag);
  return all;
}
template <typename T, int kParts>
__device__ __forceinline__ Pack<T, 4> MergeParts4(const WideWord (&parts)[kParts]) {
  if constexpr (kParts == 1) {
    const uint2 bits = make_uint2(parts[0].bits(0), parts[0].bits(1));
    return *reinterpret_cast<const Pack<T, 4>*>(&bits);
  } else {
    float greatest = -1e30f;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      greatest = fmaxf(greatest, __uint_as_float(parts[p].bits(2)));
    }
    float total = 0;
    float of[4] = {};
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const float share = Exp2(__uint_as_float(parts[p].bits(2)) - greatest);
      total += share;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t bits = parts[p].bits(i);
        const Pack<T, 2> two = *reinterpret_cast<const Pack<T, 2>*>(&bits);
        of[2 * i] = fmaf(share, ToFloat(two.at[0]), of[2 * i]);
        of[2 * i + 1] = fmaf(share, ToFloat(two.at[1]), of[2 * i + 1]);
      }
    }
    Pack<T, 4> merged;
#pragma unroll
    for (int i = 0; i < 4; ++i) merged.at[i] = FromFloat<T>(of[i] / total);
    return merged;
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
