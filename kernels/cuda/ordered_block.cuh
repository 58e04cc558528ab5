// Attention in one order (ordered_attention.cu) where a row and a KV head are one block's: many rows,
// which keep a GPU busy by themselves. The same sums by other threads, so that less is done between
// them: bits are those of OrderedAttentionKernel, for values that are finite.
//
// A group of 128 slots stands in shared memory, each slot's key and value a row, copied there while
// the group before is worked on. Four or eight lanes share four slots' scores with all query heads, each
// with sixteen dimensions, so that what is read of keys and queries is used four times; the products of
// eight dimensions are added by halves, as lanes add theirs there. Then a thread has the softmax of a
// head's slots that one lane of eight dimensions has there (a *share*: all whose distance is a multiple
// of kStride), and of them knows every factor of the merges before a value is read. Then a lane has all
// values of some dimensions: a warp adds up those of a warp there, share by share, merges the shares in
// registers, and leaves a part.
//
// Bytes: as OrderedAttentionKernel. Grid: (1, groups of query heads, rows), of 128 threads for heads
// of 64 dimensions, 256 for 128. Shared memory: up to 52 or 97 KiB.
//
// Assumes: head_dim 64 or 128; 16 bits or float8; slots that begin at multiples of 16 bytes.
//
// Measured on an H200 (tests/bench/attention_bench.cu), of products, us a layer, and what
// OrderedAttentionKernel took: 64 rows of 150 slots, llama3.2-1b 11.5 (22.7), llama3.1-8b 21.5 (26.3); 256
// rows 44.1 (89.6), 79.3 (103.0). More in tests/bench/results/decode-log.md, attention of many short rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cluster_ends.cuh"
#include "kernels/cuda/cluster_item.cuh"
#include "kernels/cuda/cluster_merge.cuh"
#include "kernels/cuda/cluster_ring.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ordered_parts.cuh"
#include "kernels/cuda/path.h"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kOrderedQueries = 4;  // of a block

template <typename Kv, int kDim>
struct OrderedBlock {
  static_assert(GroupBits(kDim) == 7);
  static constexpr int kQueries = kOrderedQueries;
  static constexpr int kSlots = 1 << GroupBits(kDim);  // of a group
  static constexpr int kWarps = kDim / 16;
  static constexpr int kThreads = kWarps * kWarp;
  // How OrderedAttentionKernel deals out a group's slots: to lanes of kParts warps, each kBatch at a
  // time, kBatches times.
  using Batch = SlotBatch<Kv, kQueries, kDim / 8, kClusterWarps>;
  static constexpr int kParts = kClusterWarps;
  static constexpr int kBatch = Batch::kBatch;
  static constexpr int kStride = Batch::kStride;  // also the number of shares
  static constexpr int kAtOnce = Batch::kAtOnce;  // shares of a part
  static constexpr int kShareSlots = kSlots / kStride;
  static constexpr int kBatches = kShareSlots / kBatch;
  static_assert(kBatch == 4 && (kAtOnce == 2 || kAtOnce == 4));
  static constexpr int kMerges = kAtOnce / 2;  // of a part's shares, one after the other
  static constexpr int kScorers = kDim / 16;  // lanes that share scores
  static constexpr int kScoreStride = kThreads / kScorers;
  static_assert(kScoreStride == 32 && kSlots == 4 * kScoreStride);
  static constexpr int kQuads = kQueries * kDim / 4;
  static constexpr int kGroups = GroupsOfSplit(kDim);
  using Unit = RingUnit<Kv, kDim>;
  static constexpr int kTileBytes = kSlots * Unit::kRowBytes;

  struct alignas(128) Shared {
    unsigned char keys[kTileBytes];
    unsigned char values[kTileBytes];
    // Of the group at work and of the next: where a slot's key is; in float8, LoadScales.
    const unsigned char* places[2][kSlots];
    uint16_t scales[2][kIsScaled<Kv> ? kSlots : 1];
    float4 weights[kSlots];  // of the query heads; first their scores
    // Factors of the query heads, of shares: of what a batch finds of those before it, and of merges.
    float4 of_batch[kBatches][kStride];
    float4 of_merge[kMerges][kStride];
    Part<kQueries, kDim> warps[kParts];
    QuadPart groups[kGroups * kQuads];
    // As ClusterShared's.
    alignas(16) float heads[kQueries + 2][kDim];
    uint64_t came[kQueries + 2];
    alignas(16) Kv kv[2][kDim + (kIsScaled<Kv> ? 16 : 0)];
  };

  // ---- Copies ----------------------------------------------------------------------------------

  // Where the keys of a group's slots stand; of those beyond the last, where the last one's do. Returns,
  // in float8, the scales of the thread's slot.
  __device__ __forceinline__ static uint32_t FindSlots(const KvLayer& kv, const int32_t* block_table,
                                                       int kv_head, const SlotRange& slots,
                                                       const DividedBy& block_of,
                                                       const unsigned char* (&places)[kSlots]) {
    if (threadIdx.x >= kSlots) return 0;
    const int slot = min(slots.first + static_cast<int>(threadIdx.x), slots.end - 1);
    const int index = block_of(slot);
    const int64_t block = __ldcg(block_table + index);
    const int in_block = slot - index * kv.block_size;
    places[threadIdx.x] = reinterpret_cast<const unsigned char*>(
        static_cast<const Kv*>(kv.data) + block * kv.block_stride +
        (kv_head * kv.block_size + in_block) * kDim);
    uint32_t scales = 0;
    if constexpr (kIsScaled<Kv>) scales = LoadScales(kv, block, kv_head, in_block);
    return scales;
  }
  // What stands `offset` bytes behind the places of `count` slots, and of some more. Commits a group of
  // copies.
  __device__ __forceinline__ static void Copy(const unsigned char* const (&places)[kSlots],
                                              int64_t offset, int count, unsigned char* tile) {
    constexpr unsigned kRows = kThreads / Unit::kPieces;  // at once: they have one key
    static_assert(kRows % 8 == 0);
    const unsigned row = threadIdx.x / Unit::kPieces, piece = threadIdx.x % Unit::kPieces;
    const int64_t from = offset + piece * 16;
    const uint32_t to = SharedAddress(tile) + Unit::Place(row, piece);
#pragma unroll
    for (unsigned first = 0; first < kSlots; first += kRows) {
      if (first >= static_cast<unsigned>(count)) break;
      CopyAsync16To(to + first * Unit::kRowBytes, places[first + row] + from);
    }
    CommitCopies();
  }

  // ---- Scores ----------------------------------------------------------------------------------

  // Of kCount slots, kScoreStride from each other, and all query heads, by kScorers lanes, each with two
  // times eight dimensions. own: the row's own slot among the group's, or one that is not.
  template <int kCount>
  __device__ __forceinline__ static void ScoreSlots(Shared& shared, int count, int own,
                                                    [[maybe_unused]] const uint16_t* scales) {
    // In eight lanes that are served at once neither two slots of one key, nor two parts of q that
    // stand in the same banks.
    constexpr unsigned kApart = kWarp / kScorers;
    const unsigned warp = threadIdx.x / kWarp, scorer = threadIdx.x % kWarp / kApart;
    const unsigned first = kApart == 8 ? warp * 8 + threadIdx.x % 8
                                       : warp / 2 * 8 + warp % 2 + threadIdx.x % 4 * 2;
    unsigned row[kCount], key[kCount];
#pragma unroll
    for (unsigned j = 0; j < kCount; ++j) {
      const unsigned slot = first + j * kScoreStride;
      const bool is_own = static_cast<int>(slot) == own;
      // From the keys: all is in shared memory, as the compiler then sees.
      row[j] = is_own ? static_cast<unsigned>(offsetof(Shared, kv) - offsetof(Shared, keys))
                      : slot * Unit::kRowBytes;
      key[j] = is_own ? 0 : Unit::Key(static_cast<int>(slot));
    }
    float sums[kCount * kQueries];
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned lane = scorer + half * kScorers;  // of eight dimensions
      float k[kCount][8];
#pragma unroll
      for (unsigned j = 0; j < kCount; ++j) {
        const unsigned byte = lane * 8 * sizeof(Kv);
        LoadFloats<Kv, 8>(reinterpret_cast<const Kv*>(shared.keys + row[j] +
                                                      (byte / 16 ^ key[j]) * 16 + byte % 16),
                          k[j]);
      }
#pragma unroll
      for (int h = 0; h < kQueries; ++h) {
        float q[8];
        LoadFloats<float, 8>(&shared.heads[h][8 * lane], q);
#pragma unroll
        for (unsigned j = 0; j < kCount; ++j) {
          float product = 0;
#pragma unroll
          for (int i = 0; i < 8; ++i) product = fmaf(q[i], k[j][i], product);
          float& sum = sums[j * kQueries + h];
          sum = half == 0 ? product : sum + product;
        }
      }
    }
    SumByHalves<kCount * kQueries, kScorers, kApart>(sums);
    // Now the lane has the sums from scorer * kCount * kQueries / kScorers on, or that one.
    constexpr unsigned kOwn = kCount * kQueries > kScorers ? kCount * kQueries / kScorers : 1;
    const unsigned at = scorer * kCount * kQueries / kScorers;
    const unsigned slot = first + at / kQueries * kScoreStride;
    float scores[kOwn];
#pragma unroll
    for (unsigned m = 0; m < kOwn; ++m) scores[m] = sums[m];
    if constexpr (kIsScaled<Kv>) {
      const float scale =
          KeyScale(static_cast<int>(slot) == own ? shared.kv[0][kDim].bits : scales[slot]);
#pragma unroll
      for (unsigned m = 0; m < kOwn; ++m) scores[m] *= scale;
    }
    if (slot >= static_cast<unsigned>(count)) return;
    StoreFloats<float, kOwn>(scores,
                             reinterpret_cast<float*>(&shared.weights[slot]) + at % kQueries);
  }
  __device__ __forceinline__ static void Score(Shared& shared, int count, int own,
                                               const uint16_t* scales) {
    if (count > kScoreStride) {
      ScoreSlots<kSlots / kScoreStride>(shared, count, own, scales);
    } else {
      ScoreSlots<1>(shared, count, own, scales);
    }
  }

  // ---- Softmax ---------------------------------------------------------------------------------

  // Of a head and a share, by a thread: as AttendBatch and StoreWarp.
  __device__ __forceinline__ static void Weigh(const AttentionShape& shape, Shared& shared, int count,
                                               [[maybe_unused]] int own,
                                               [[maybe_unused]] const uint16_t* scales) {
    if (threadIdx.x >= kQueries * kStride) return;  // whole warps
    const int head = static_cast<int>(threadIdx.x / kStride);
    const int share = static_cast<int>(threadIdx.x % kStride);
    const auto of_head = [&](float4* of) { return reinterpret_cast<float*>(of) + head; };
    float maximum = kLowest;
    float sums[kBatch] = {};
#pragma unroll
    for (int b = 0; b < kBatches; ++b) {
      float score[kBatch];
      float raised = maximum;
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int slot = share + (b * kBatch + j) * kStride;
        score[j] = slot < count
                       ? __fmul_rn(AdjustScore(shape, *of_head(&shared.weights[slot])), kLog2E)
                       : -INFINITY;
        raised = fmaxf(raised, score[j]);
      }
      const float factor = Exp2(maximum - raised);
      maximum = raised;
      if (b > 0) *of_head(&shared.of_batch[b][share]) = factor;
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int slot = share + (b * kBatch + j) * kStride;
        float weight = Exp2(score[j] - maximum);
        sums[j] = __fmul_rn(sums[j], factor) + weight;
        if constexpr (kIsScaled<Kv>) {
          if (slot < count) {
            const uint32_t of_slot =
                slot == own ? uint32_t{shared.kv[1][kDim].bits} << 8 : scales[slot];
            weight *= ValueScale(of_slot);
          }
        }
        if (slot < count) *of_head(&shared.weights[slot]) = weight;
      }
    }
    float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#pragma unroll
    for (int m = 0; m < kMerges; ++m) {
      const float raised = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, 1 << m));
      const float factor = Exp2(maximum - raised);
      maximum = raised;
      *of_head(&shared.of_merge[m][share]) = factor;
      sum = __fmul_rn(sum, factor);
      sum += __shfl_xor_sync(kAllLanes, sum, 1 << m);
    }
    if (share % kAtOnce == 0) {
      shared.warps[share / kAtOnce].statistics[head] = make_float2(maximum, sum);
    }
  }

  // ---- Values ----------------------------------------------------------------------------------

  static constexpr int kVec = kDim / kWarp;  // dimensions of a lane
  struct Sums {
    float at[kQueries][kVec];

    __device__ __forceinline__ void Scale(const float4& factors) {
#pragma unroll
      for (int d = 0; d < kVec; ++d) {
        at[0][d] = __fmul_rn(at[0][d], factors.x);
        at[1][d] = __fmul_rn(at[1][d], factors.y);
        at[2][d] = __fmul_rn(at[2][d], factors.z);
        at[3][d] = __fmul_rn(at[3][d], factors.w);
      }
    }
    __device__ __forceinline__ void Add(const float4& weights, const float (&v)[kVec]) {
#pragma unroll
      for (int d = 0; d < kVec; ++d) {
        at[0][d] = fmaf(weights.x, v[d], at[0][d]);
        at[1][d] = fmaf(weights.y, v[d], at[1][d]);
        at[2][d] = fmaf(weights.z, v[d], at[2][d]);
        at[3][d] = fmaf(weights.w, v[d], at[3][d]);
      }
    }
    __device__ __forceinline__ void Add(const Sums& other) {
#pragma unroll
      for (int h = 0; h < kQueries; ++h) {
#pragma unroll
        for (int d = 0; d < kVec; ++d) at[h][d] += other.at[h][d];
      }
    }
  };

  // kFull: all slots of the group are there.
  template <bool kFull>
  __device__ __forceinline__ static Sums AddShare(const Shared& shared, int count, int share) {
    const int byte = static_cast<int>(threadIdx.x % kWarp * kVec * sizeof(Kv));
    // A share's slots have one key.
    static_assert(kStride % 8 == 0);
    const unsigned char* const from =
        shared.values + Unit::Place(share, byte / 16) + byte % 16;
    Sums sums = {};
#pragma unroll
    for (int i = 0; i < kShareSlots; ++i) {
      if (!kFull && share + i * kStride >= count) break;
      if (i > 0 && i % kBatch == 0) sums.Scale(shared.of_batch[i / kBatch][share]);
      float v[kVec];
      LoadFloats<Kv, kVec>(
          reinterpret_cast<const Kv*>(from + i * kStride * Unit::kRowBytes), v);
      sums.Add(shared.weights[share + i * kStride], v);
    }
    return sums;
  }
  // Of kCount shares from `share` on.
  template <bool kFull, int kCount>
  __device__ __forceinline__ static Sums AddShares(const Shared& shared, int count, int share) {
    if constexpr (kCount == 1) {
      return AddShare<kFull>(shared, count, share);
    } else {
      constexpr int kMerge = kCount / 4;  // 2: the first, 4: the second
      Sums low = AddShares<kFull, kCount / 2>(shared, count, share);
      Sums high = AddShares<kFull, kCount / 2>(shared, count, share + kCount / 2);
      low.Scale(shared.of_merge[kMerge][share]);
      high.Scale(shared.of_merge[kMerge][share + kCount / 2]);
      low.Add(high);
      return low;
    }
  }
  template <bool kFull>
  __device__ __forceinline__ static void AddValues(Shared& shared, int count) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
#pragma unroll 1
    for (int part = static_cast<int>(threadIdx.x / kWarp); part < PartsOf(count); part += kWarps) {
      const Sums sums = AddShares<kFull, kAtOnce>(shared, count, part * kAtOnce);
#pragma unroll
      for (int h = 0; h < kQueries; ++h) {
        StoreFloats<float, kVec>(
            sums.at[h], reinterpret_cast<float*>(shared.warps[part].values[h]) + lane * kVec);
      }
    }
  }

  // Parts with slots.
  __device__ __forceinline__ static int PartsOf(int count) {
    return min((count + kAtOnce - 1) / kAtOnce, kParts);
  }
};

// kEnds: q, k and v come as bare products.
template <bool kEnds, typename Kv, int kDim>
__global__ void __launch_bounds__(OrderedBlock<Kv, kDim>::kThreads,
                                  16 / OrderedBlock<Kv, kDim>::kWarps)
    OrderedBlockKernel(const __grid_constant__ OrderedArgs args) {
  using Block = OrderedBlock<Kv, kDim>;
  using Shared = typename Block::Shared;
  constexpr int kQueries = Block::kQueries;
  constexpr int kThreads = Block::kThreads;
  constexpr int kBits = GroupBits(kDim);
  using Ends = BlockEnds<Kv, kQueries, kDim, Block::kWarps, true, true>;
  Shared& shared = *reinterpret_cast<Shared*>(DynamicShared());
  if constexpr (kEnds) Ends::InitBarriers(shared);
  const bool tabled = kEnds || args.p.layer.table != nullptr;
  const LayerParams* const layer = tabled ? &LayerOf(args.p.layer) : nullptr;
  const AttentionShape shape = tabled ? layer->attention : args.p.shape;
  const KvLayer kv = tabled ? layer->kv : args.p.kv;
  if (!kEnds) {  // the kernel before writes the cache
    WaitForDependency();
    LaunchDependents();
  }
  const int position = __ldcg(args.p.map.position + blockIdx.z);
  const int32_t* const block_table =
      args.p.lanes.BlockTable(__ldcg(args.p.map.lane + blockIdx.z), kv.group);
  const DividedBy block_of(kv.block_size);
  ClusterItem item = ItemOf<kQueries, kDim>(args);
  item.has_own = true;
  const int first_slot = FirstSlot(shape, position);
  const int first = first_slot >> kBits;  // of the groups with slots
  const int last = position >> kBits;
  const auto slots_of = [&](int group) {
    return SlotRange{max(group << kBits, first_slot), min((group + 1) << kBits, position + 1)};
  };
  const auto count_of = [&](int group) {
    const SlotRange slots = slots_of(group);
    return slots.end - slots.first;
  };
  const int own_slot = kEnds ? position : -1;
  // Of a group: where its slots stand, its scales.
  const auto find = [&](int group) {
    return Block::FindSlots(kv, block_table, item.kv_head, slots_of(group), block_of,
                            shared.places[group % 2]);
  };
  const auto keep_scales = [&](int group, [[maybe_unused]] uint32_t scales) {
    if constexpr (kIsScaled<Kv>) {
      if (threadIdx.x < Block::kSlots) {
        shared.scales[group % 2][threadIdx.x] = static_cast<uint16_t>(scales);
      }
    }
  };
  const auto copy_keys = [&](int group) {
    Block::Copy(shared.places[group % 2], 0, count_of(group), shared.keys);
  };
  const auto copy_values = [&](int group) {
    Block::Copy(shared.places[group % 2], kv.value_offset * static_cast<int64_t>(sizeof(Kv)),
                count_of(group), shared.values);
  };

  // The first keys and values are on their way while the products are still made.
  keep_scales(first, find(first));
  __syncthreads();
  copy_keys(first);
  copy_values(first);
  if constexpr (kEnds) {
    const Ends ends(args.p.layer, *layer, item, position, args.p.q.dtype);
    const int index = block_of(position);
    const int64_t block = __ldcg(block_table + index);
    const int in_block = position - index * kv.block_size;
    Kv* const slot = static_cast<Kv*>(kv.data) + block * kv.block_stride +
                     (item.kv_head * kv.block_size + in_block) * kDim;
    uint8_t* scales = nullptr;
    if constexpr (kIsScaled<Kv>) {
      scales = static_cast<uint8_t*>(kv.data) + KvScaleOffset(kv, block, item.kv_head, in_block);
    }
    WaitForDependency();
    LaunchDependents();
    ends(static_cast<const float*>(args.p.qkv.data) + int64_t{item.row} * args.p.qkv.width, slot,
         kv.value_offset, scales, shared);
  } else {
    for (unsigned i = threadIdx.x; i < kQueries * kDim / 8; i += kThreads) {
      const int head = static_cast<int>(i / (kDim / 8));
      const int dim = static_cast<int>(i % (kDim / 8) * 8);
      float q[8];
      LoadEight(args.p.q, item.out + min(head, item.head_count - 1) * kDim + dim, q);
      StoreFloats<float, 8>(q, &shared.heads[head][dim]);
    }
  }

#pragma unroll 1
  for (int group = first; group <= last; ++group) {
    const int count = count_of(group);
    const uint16_t* const scales = shared.scales[group % 2];
    const int own = own_slot - slots_of(group).first;
    uint32_t next_scales = 0;
    if (group < last) next_scales = find(group + 1);
    WaitForCopies<1>();
    __syncthreads();  // keys are there, and the ends
    Block::Score(shared, count, own, scales);
    __syncthreads();
    if (group < last) {
      copy_keys(group + 1);
    } else {
      CommitCopies();
    }
    Block::Weigh(shape, shared, count, own, scales);
    WaitForCopies<1>();
    __syncthreads();  // weights and values are there
    if (kEnds && group == last) {  // the row's own slot's, in place of what the cache had there
      constexpr unsigned kPieces = Block::Unit::kPieces;
      if (threadIdx.x < kPieces) {
        *reinterpret_cast<uint4*>(
            shared.values + Block::Unit::Place(own, static_cast<int>(threadIdx.x))) =
            *(reinterpret_cast<const uint4*>(shared.kv[1]) + threadIdx.x);
      }
      __syncthreads();
    }
    if (count == Block::kSlots) {
      Block::template AddValues<true>(shared, count);
    } else {
      Block::template AddValues<false>(shared, count);
    }
    __syncthreads();
    if (group < last) {
      copy_values(group + 1);
      keep_scales(group + 1, next_scales);
    } else {
      CommitCopies();
    }
    const int split = group / Block::kGroups;
    const int first_of_split = max(split * Block::kGroups, first);
    const bool is_last = group == last || group % Block::kGroups == Block::kGroups - 1;
    const bool is_only = first / Block::kGroups == last / Block::kGroups;
    for (unsigned i = threadIdx.x; i < Block::kQuads; i += kThreads) {
      const int head = static_cast<int>(i / (kDim / 4));
      const int quad = static_cast<int>(i % (kDim / 4));
      QuadPart merged;
      merged.values = MergeParts<Block::kParts>(
          Block::PartsOf(count), [&](int w) { return shared.warps[w].statistics[head]; },
          [&](int w) { return shared.warps[w].values[head][quad]; }, merged.statistics);
      // Of parts without slots a zero: it makes -0 zero.
      merged.values.x += 0.0f;
      merged.values.y += 0.0f;
      merged.values.z += 0.0f;
      merged.values.w += 0.0f;
      QuadPart* const own_quads = shared.groups + i;
      own_quads[group % Block::kGroups * Block::kQuads] = merged;
      if (!is_last) continue;
      float2 statistics;
      const float4 total = MergeParts<Block::kGroups>(
          group - first_of_split + 1,
          [&](int g) {
            return own_quads[(first_of_split + g) % Block::kGroups * Block::kQuads].statistics;
          },
          [&](int g) {
            return own_quads[(first_of_split + g) % Block::kGroups * Block::kQuads].values;
          },
          statistics);
      if (is_only) {
        StoreOut<kDim>(args.p.out, item, head, quad, total, statistics.y);
        continue;
      }
      const int64_t at =
          (int64_t{item.pair} * args.most_splits + split - first / Block::kGroups) * kQueries + head;
      args.values[at * (kDim / 4) + quad] = total;
      if (quad == 0) args.statistics[at] = statistics;
    }
  }
  const int splits = last / Block::kGroups - first / Block::kGroups + 1;
  if (splits == 1) return;
  __syncthreads();
  MergeSplits<kQueries, kDim, kThreads>(args, item, splits);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
