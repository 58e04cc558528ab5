// Merging the parts of a row's attention (Dao et al., 2023): of a block's warps, of a cluster's
// blocks through each other's shared memory, of a row's clusters through scratch. Always in the
// same order.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/cluster_item.cuh"
#include "kernels/cuda/cluster_ring.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/cluster_tiles.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// ---- Shared memory -------------------------------------------------------------------------------

// Four dimensions of a head as one block has them.
struct QuadPart {
  float4 values;
  float2 statistics;
};

// How the blocks of a kernel take many slots.
enum class Tiling {
  kNone,       // a slot at a time, as few
  kRegisters,  // cluster_tiles.cuh
  kRing,       // cluster_ring.cuh
};

// What a warp has in the end; a ring is there before it, in the same place.
template <typename Kv, int kQueries, int kDim, Tiling kTiling>
union WarpMemory {
  Part<kQueries, kDim> part;
};
template <typename Kv, int kQueries, int kDim>
union WarpMemory<Kv, kQueries, kDim, Tiling::kRing> {
  WarpRing<Kv, kDim> ring;
  Part<kQueries, kDim> part;
};
// Queries as operands, of a block that takes tiles.
template <typename Kv, int kQueries, int kDim, Tiling kTiling>
struct BlockQueries {};
template <typename Kv, int kQueries, int kDim>
struct BlockQueries<Kv, kQueries, kDim, Tiling::kRegisters> : TileQueries<kQueries, kDim> {};
template <typename Kv, int kQueries, int kDim>
struct BlockQueries<Kv, kQueries, kDim, Tiling::kRing> : RingQueries<Kv, kQueries, kDim> {};

template <typename Kv, int kQueries, int kDim, int kWarps, Tiling kTiling>
struct ClusterShared {
  static constexpr int kQuads = kQueries * kDim / 4;
  WarpMemory<Kv, kQueries, kDim, kTiling> warps[kWarps];
  // What the cluster's blocks have of this block's share of the quads: of its `cluster` blocks
  // [kQuads / cluster] each.
  QuadPart quads[kTiling == Tiling::kRing ? 1 : kQuads];
  // Ended; the last two places are of k and v, on their way to `kv`. With a ring also as products, which
  // `came` counts.
  alignas(16) float heads[kQueries + 2][kDim];
  uint64_t came[kTiling == Tiling::kRing ? kQueries + 2 : 1];
  // Of the row's own slot, as the cache has them; in float8 each with its scale behind it.
  alignas(16) Kv kv[2][kDim + (kIsScaled<Kv> ? 16 : 0)];
  BlockQueries<Kv, kQueries, kDim, kTiling> queries;
};

// ---- Merging parts -------------------------------------------------------------------------------

// The sum of four dimensions of a head over `count` parts, in their order: statistics_of(i) and
// values_of(i) are part i's.
template <int kMost, typename StatisticsOf, typename ValuesOf>
__device__ __forceinline__ float4 MergeParts(int count, const StatisticsOf& statistics_of,
                                             const ValuesOf& values_of, float2& merged) {
  float2 statistics[kMost];
  float maximum = kLowest;
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    if (i < count) statistics[i] = statistics_of(i);
    if (i < count) maximum = fmaxf(maximum, statistics[i].x);
  }
  float4 total = make_float4(0, 0, 0, 0);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    if (i >= count) break;
    const float factor = Exp2(statistics[i].x - maximum);
    const float4 values = values_of(i);
    sum = fmaf(factor, statistics[i].y, sum);
    total.x = fmaf(factor, values.x, total.x);
    total.y = fmaf(factor, values.y, total.y);
    total.z = fmaf(factor, values.z, total.z);
    total.w = fmaf(factor, values.w, total.w);
  }
  merged = make_float2(maximum, sum);
  return total;
}

template <int kDim>
__device__ __forceinline__ void StoreOut(const Rows& out, const ClusterItem& item, int head,
                                         int quad, const float4& total, float sum) {
  if (head >= item.head_count) return;
  const float part = 1.0f / sum;
  const float x[4] = {total.x * part, total.y * part, total.z * part, total.w * part};
  StoreFour(out, item.out + head * kDim, 4 * quad, kDim, x);
}

// The row's clusters, by the last of their blocks.
template <int kQueries, int kDim, int kWarps>
__device__ void MergeClusters(const ClusterArgs& args, const ClusterItem& item) {
  constexpr int kQuads = kDim / 4;
  const int64_t first = int64_t{item.pair} * args.most_clusters * kQueries;
  for (int i = threadIdx.x; i < item.head_count * kQuads; i += kWarps * kWarp) {
    const int head = i / kQuads;
    const int quad = i % kQuads;
    float2 merged;
    const float4 total = MergeParts<kMostClusters>(
        item.clusters,
        [&](int c) { return args.statistics[first + c * kQueries + head]; },
        [&](int c) { return args.values[(first + c * kQueries + head) * kQuads + quad]; }, merged);
    StoreOut<kDim>(args.p.out, item, head, quad, total, merged.y);
  }
}

// This block's share of the cluster's dimensions, over all its blocks: to `out`, or, where the row
// has more clusters, to scratch.
template <int kQueries, int kDim, int kWarps, typename Shared>
__device__ __forceinline__ void MergeBlocks(const ClusterArgs& args, const ClusterItem& item,
                                            const Shared& shared) {
  constexpr int kQuads = kDim / 4;
  const int share = kQueries * kQuads >> args.cluster_bits;
  const int rank = item.part & (args.cluster - 1);
  for (int i = threadIdx.x; i < share; i += kWarps * kWarp) {
    const int head = (rank * share + i) / kQuads;
    const int quad = (rank * share + i) % kQuads;
    float2 merged;
    const float4 total = MergeParts<kMostCluster>(
        args.cluster, [&](int r) { return shared.quads[r * share + i].statistics; },
        [&](int r) { return shared.quads[r * share + i].values; }, merged);
    if (item.clusters == 1) {
      StoreOut<kDim>(args.p.out, item, head, quad, total, merged.y);
      continue;
    }
    const int cluster = item.part >> args.cluster_bits;
    const int64_t at = (int64_t{item.pair} * args.most_clusters + cluster) * kQueries + head;
    args.values[at * kQuads + quad] = total;
    if (quad == 0) args.statistics[at] = merged;
  }
}

// ---- With a ring
// ---------------------------------------------------------------------------------

// How many parts of a row fit where the rings of a block's `warps` were.
constexpr int MostRingParts(int head_dim, int queries, int warps) {
  const int bytes = queries * static_cast<int>(head_dim * sizeof(float) + sizeof(float2));
  const int fit = warps * RingBytes(head_dim) / bytes;
  return fit < kMostClusters ? fit : kMostClusters;
}

// The row's blocks, which have left their parts in scratch, by the last of them: copied to shared
// memory, where the ring was, so that all of it is on its way at once. Sixteen lanes have as many
// quads of one head, and each of them the statistics of a part: few instructions, since fetching
// them is much of what the end of a kernel takes.
template <int kQueries, int kDim, int kWarps>
__device__ __forceinline__ void MergeRingParts(const ClusterArgs& args, const ClusterItem& item,
                                               const Part<kQueries, kDim>* parts,
                                               unsigned char* room) {
  using RowPart = Part<kQueries, kDim>;
  constexpr int kQuads = kDim / 4;
  constexpr int kLanes = kMostClusters;
  static_assert(kLanes == 16 && kQuads % kLanes == 0);
  static_assert(kQueries * kQuads % kWarp == 0 && sizeof(RowPart) % 16 == 0);
  const int pieces = item.clusters * static_cast<int>(sizeof(RowPart) / 16);
#pragma unroll 4
  for (int i = threadIdx.x; i < pieces; i += kWarps * kWarp) {
    CopyAsync16(room + 16 * i, reinterpret_cast<const unsigned char*>(parts) + 16 * i);
  }
  CommitCopies();
  WaitForCopies<0>();
  __syncthreads();
  const RowPart* const copied = reinterpret_cast<const RowPart*>(room);
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int first_lane = static_cast<int>(threadIdx.x) % kWarp - lane;
#pragma unroll 1
  for (int i = threadIdx.x; i < kQueries * kQuads; i += kWarps * kWarp) {
    const int head = i / kQuads;
    const int quad = i % kQuads;
    float2 own = make_float2(kLowest, 0);
    if (lane < item.clusters) own = copied[lane].statistics[head];
    float maximum = own.x;
#pragma unroll
    for (int offset = 1; offset < kLanes; offset *= 2) {
      maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, offset));
    }
    const float factor = Exp2(own.x - maximum);
    float sum = factor * own.y;
#pragma unroll
    for (int offset = 1; offset < kLanes; offset *= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, offset);
    }
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (int p = 0; p < item.clusters; ++p) {
      const float of_part = __shfl_sync(kAllLanes, factor, first_lane + p);
      const float4 values = copied[p].values[head][quad];
      total.x = fmaf(of_part, values.x, total.x);
      total.y = fmaf(of_part, values.y, total.y);
      total.z = fmaf(of_part, values.z, total.z);
      total.w = fmaf(of_part, values.w, total.w);
    }
    StoreOut<kDim>(args.p.out, item, head, quad, total, sum);
  }
}

// What the block's warps have left, and then all blocks of the row.
template <int kQueries, int kDim, int kWarps, typename Shared>
__device__ __forceinline__ void MergeRow(const ClusterArgs& args, const ClusterItem& item,
                                         Shared& shared) {
  constexpr int kQuads = kDim / 4;
  auto* const parts =
      static_cast<Part<kQueries, kDim>*>(args.parts) + int64_t{item.pair} * args.most_clusters;
  for (int i = threadIdx.x; i < kQueries * kQuads; i += kWarps * kWarp) {
    const int head = i / kQuads;
    const int quad = i % kQuads;
    float2 merged;
    const float4 total = MergeParts<kWarps>(
        kWarps, [&](int w) { return shared.warps[w].part.statistics[head]; },
        [&](int w) { return shared.warps[w].part.values[head][quad]; }, merged);
    if (item.clusters == 1) {
      StoreOut<kDim>(args.p.out, item, head, quad, total, merged.y);
      continue;
    }
    parts[item.part].values[head][quad] = total;
    if (quad == 0) parts[item.part].statistics[head] = merged;
  }
  if (item.clusters == 1) return;
  // Of 256 dimensions by the block of the last slots, known beforehand: the others, which have begun
  // before it, end without waiting for the sum of their arrivals, and make room for the next kernel.
  uint32_t* const arrived = &args.arrived[item.pair];
  bool merges;
  if constexpr (kDim == 256) {
    merges = item.part == item.clusters - 1;
    __syncthreads();
    if (threadIdx.x == 0) {
      if (merges) {
        WaitForArrivals(arrived, static_cast<uint32_t>(item.clusters - 1));
      } else {
        Arrive(arrived);
      }
    }
    if (merges) __syncthreads();
  } else {
    merges = LastToArrive(arrived, static_cast<uint32_t>(item.clusters));
  }
  if (merges) {
    MergeRingParts<kQueries, kDim, kWarps>(args, item, parts,
                                           reinterpret_cast<unsigned char*>(shared.warps));
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
