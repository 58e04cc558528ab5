// Which part of a row's slots a block of cluster_attention.cu takes.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/cluster_tiles.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kMostClusters = 16;  // of a row
inline constexpr int kLeastStaggered = 8;  // slots of a part: so many times ClusterArgs::stagger

struct ClusterArgs {
  DecodeRows p;
  int32_t kv_heads;
  int32_t heads_a_kv_head;
  int32_t passes;         // groups of query heads of a KV head
  int32_t cluster;        // blocks of one: a power of two
  int32_t cluster_bits;
  int32_t most_clusters;  // of a row
  int32_t slot_bits;      // of the slots that a block takes before its row gets another cluster
  // Slots of a block from which on it takes them in tiles (cluster_tiles.cuh), where blocks of the
  // cache have whole tiles.
  int32_t least_tiled;
  // Slots that every second part of long rows has fewer than the others by, twice: blocks that do not
  // end all at once leave memory less idle between two kernels.
  int32_t stagger;
  float4* values;      // [rows * groups][most_clusters][queries][head_dim]
  float2* statistics;  // [rows * groups][most_clusters][queries]: maximum, sum
  void* parts;         // with a ring, in place of both: Part[rows * groups][most_clusters]
  uint32_t* arrived;   // [rows * groups]
};

// What a block has to do, and where its row is.
struct ClusterItem {
  int row;
  int pair;        // of the row and the group
  int64_t out;     // of the first query head's first element, in q and out
  int first_head;  // of the query heads
  int head_count;
  int kv_head;
  int pass;      // among the groups of the KV head
  int clusters;  // of the row, that have slots
  int part;      // of clusters * cluster parts
  SlotRange slots;
  bool has_own;  // the row's own slot is among them
  bool is_tiled;  // as all blocks of the row are: parts begin with tiles
};

// Whose part a block is.
struct BlockPlace {
  int row, group, part;
};
// Grids of clusters, which are of a row's parts.
__device__ __forceinline__ BlockPlace PlaceInClusters() {
  return {static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x)};
}
// Others. Blocks begin in the grid's order: those without slots last, and of each row the one that merges,
// which is where the kernel before ended last.
__device__ __forceinline__ BlockPlace PlaceInParts() {
  return {static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.z)};
}

// A block without slots has first >= end. Divisions are many instructions: none where numbers are
// powers of two, or one.
template <int kQueries, int kDim>
__device__ __forceinline__ ClusterItem ItemOf(const ClusterArgs& args, const AttentionShape& shape,
                                              int block_size, const BlockPlace& place,
                                              int position) {
  ClusterItem item;
  item.row = place.row;
  item.kv_head = place.group;
  item.pass = 0;
  if (args.passes > 1) {
    item.kv_head = place.group / args.passes;
    item.pass = place.group - item.kv_head * args.passes;
  }
  item.pair = item.row * args.kv_heads * args.passes + place.group;
  item.head_count = min(kQueries, args.heads_a_kv_head - item.pass * kQueries);
  item.first_head = item.kv_head * args.heads_a_kv_head + item.pass * kQueries;
  item.out = int64_t{item.row} * args.p.out.width + int64_t{item.first_head} * kDim;
  const int first_slot = FirstSlot(shape, position);
  const int slots = position - first_slot + 1;
  const auto share = [](int all, int bits) { return (all + (1 << bits) - 1) >> bits; };
  item.clusters = min(share(slots, args.cluster_bits + args.slot_bits), args.most_clusters);
  int size = share(slots, args.cluster_bits);
  if (item.clusters > 1) {
    const int parts = item.clusters << args.cluster_bits;
    size = (slots + parts - 1) / parts;
  }
  item.part = place.part;
  item.is_tiled = size >= args.least_tiled && block_size % kTileSlots == 0;
  int begin = first_slot;  // of the first part
  if (item.is_tiled) {
    begin = first_slot / kTileSlots * kTileSlots;
    const int parts = item.clusters << args.cluster_bits;
    size = (position + 1 - begin + parts - 1) / parts;
    size = (size + kTileSlots - 1) / kTileSlots * kTileSlots;
  }
  // Odd parts begin earlier: a part and the one after it differ by twice the stagger.
  const int parts = item.clusters << args.cluster_bits;
  const int stagger = item.is_tiled && size >= kLeastStaggered * args.stagger ? args.stagger : 0;
  const auto start = [&](int part) { return begin + part * size - (part % 2 != 0 ? stagger : 0); };
  const int from = start(item.part);
  const int to = item.part == parts - 1 ? position + 1 : start(item.part + 1);
  const int first = max(from, first_slot);
  const bool has_slots = item.part >> args.cluster_bits < item.clusters;
  item.slots = {first, has_slots ? min(to, position + 1) : first};
  item.has_own = first <= position && item.slots.end == position + 1;
  return item;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
