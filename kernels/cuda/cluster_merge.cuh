// Merging the parts of a row's attention (Dao et al., 2023): of a block's warps, of a cluster's
// blocks through each other's shared memory, of a row's clusters through scratch. Always in the
// parts' order.
#pragma once

#include <cstdint>
#include <type_traits>

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
template <typename Kv, int kQueries, int kDim, int kWarps, Tiling kTiling>
union WarpMemory {
  Part<kQueries, kDim> part;
};
template <typename Kv, int kQueries, int kDim, int kWarps>
union WarpMemory<Kv, kQueries, kDim, kWarps, Tiling::kRing> {
  WarpRing<Kv, kDim, kWarps> ring;
  Part<kQueries, kDim> part;
};
struct NoQueries {};

template <typename Kv, int kQueries, int kDim, int kWarps, Tiling kTiling>
struct ClusterShared {
  static constexpr int kQuads = kQueries * kDim / 4;
  WarpMemory<Kv, kQueries, kDim, kWarps, kTiling> warps[kWarps];
  // What the cluster's blocks have of this block's share of the quads: of its `cluster` blocks
  // [kQuads / cluster] each.
  QuadPart quads[kQuads];
  // Ended; the last two places are of k and v, on their way to `kv`.
  float heads[kQueries + 2][kDim];
  // Of the row's own slot, as the cache has them; in float8 each with its scale behind it.
  alignas(16) Kv kv[2][kDim + (kIsScaled<Kv> ? 16 : 0)];
  // Of a block that takes tiles in registers.
  std::conditional_t<kTiling == Tiling::kRegisters, TileQueries<kQueries, kDim>, NoQueries> queries;
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

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
