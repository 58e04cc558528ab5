// Attention of a decode step where a row's slots are shared by a cluster of thread blocks, which
// merge their parts through each other's shared memory: a few microseconds for a row of any usual
// length. Rows of many slots get several clusters, whose parts the last block to arrive merges.
//
// Where there are so many pairs of a row and a KV head that a warp or a few can have one each, and the
// host knows the layer, it is pair_attention.cu's.
//
// The warps of a block share its slots: many of them in tiles of 16 on the matrix units, in registers
// (cluster_tiles.cuh) or, where rows may have thousands, through a ring in shared memory
// (cluster_ring.cuh), few of them a slot at a time (cluster_slots.cuh). Parts are merged in their
// order (Dao et al., 2023). How many blocks share a row depends on its own slots and on the number
// of rows.
//
// Where q, k and v come as bare products (QkvAttentionParams), every block ends its query heads for
// itself, a warp a head, and the one that has the row's own slot also ends k and v: for the cache,
// and for itself. All that earlier steps have written is loaded before the wait, while the products
// are still made: a step's keys and values are written by this kernel alone, layer by layer. Norms
// and products in between (fused_norm.cu, panel_product.cu) let the next kernel begin before their
// own wait; this one, and what embeds, only after it, so that everything before the layer before,
// and before a step's rows were embedded, has ended here.
//
// In float8 (kernels/kv_scale.h) a lane applies its own pairs' scales, of keys to scores and of values
// to weights.
//
// Bytes: each key and value once, q and out once; where a row has several clusters their parts,
// (head_dim + 2) float32 a head, written and read once.
// Grid: (blocks of the row's clusters, groups of query heads, rows), with a ring (groups, rows, blocks of a
// row); 128 or 256 threads; blocks without slots end at once. Shared memory: 10 parts of head_dim + 2
// floats a query head, and 16 bytes a dimension for queries as operands; of more than four queries 32.
// With a ring 96 or 192 KiB for it and the parts in its place.
//
// Assumes: head_dim 64, 128 or 256; slots that begin at multiples of 16 bytes.
//
// Measured (tests/bench/attention_bench.cu): tests/bench/results/decode-log.md, attention over long
// contexts.
#include "kernels/cuda/path.h"

#if SIROCCO_HOPPER
#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/cluster_ends.cuh"
#include "kernels/cuda/cluster_item.cuh"
#include "kernels/cuda/cluster_merge.cuh"
#include "kernels/cuda/cluster_ring.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/cluster_tiles.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/pair_attention.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// That rows are cut for; no Hopper GPU has more.
constexpr int kMostMultiprocessors = 144;

// ---- The kernel ----------------------------------------------------------------------------------

// k and v of the row's own slot in a tile, in place of what the cache had there before this step.
template <typename Shared, typename Kv, int kDim>
__device__ __forceinline__ void TakeOwnSlot(const Shared& shared, int tile_slot, int position,
                                            SlotTile<Kv, kDim>& tile) {
  using Tile = SlotTile<Kv, kDim>;
  if (position >> kTileSlotBits != tile_slot >> kTileSlotBits) return;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    if (tile_slot + LaneGroup() + 8 * row != position) continue;
#pragma unroll
    for (int c = 0; c < Tile::kChunks; ++c) {
#pragma unroll
      for (int p = 0; p < Tile::kKeyPacks; ++p) {
        tile.k[c][row][p] =
            *reinterpret_cast<const uint4*>(&shared.kv[0][Tile::KeyDim(c, p, LaneInGroup())]);
      }
    }
    if constexpr (kIsScaled<Kv>) {
      tile.scales[row] = shared.kv[0][kDim].bits | uint32_t{shared.kv[1][kDim].bits} << 8;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (tile_slot + Tile::ValueSlot(i, LaneInGroup()) != position) continue;
#pragma unroll
    for (int c = 0; c < Tile::kChunks; ++c) {
      tile.v[c][i] = *reinterpret_cast<const typename Tile::ValuePack*>(
          &shared.kv[1][64 * c + 8 * LaneGroup()]);
    }
  }
}

// What the block's warps have left, over all blocks of the row.
template <int kQueries, int kDim, int kWarps, typename Shared>
__device__ __forceinline__ void MergeThroughCluster(const ClusterArgs& args,
                                                    const ClusterItem& item, Shared& shared) {
  constexpr int kQuads = kDim / 4;
  const bool alone = args.cluster == 1 && item.clusters == 1;
  WaitCluster();
  for (int i = threadIdx.x; i < kQueries * kQuads; i += kWarps * kWarp) {
    const int head = i / kQuads;
    const int quad = i % kQuads;
    float2 merged;
    const float4 total = MergeParts<kWarps>(
        kWarps, [&](int w) { return shared.warps[w].part.statistics[head]; },
        [&](int w) { return shared.warps[w].part.values[head][quad]; }, merged);
    if (alone) {
      StoreOut<kDim>(args.p.out, item, head, quad, total, merged.y);
      continue;
    }
    // To the block of the cluster whose share it is.
    constexpr int kQuadBits = std::bit_width(unsigned{kQueries * kQuads}) - 1;
    const int share_bits = kQuadBits - args.cluster_bits;
    const int rank = item.part & (args.cluster - 1);
    QuadPart* const own = &shared.quads[(rank << share_bits) + (i & ((1 << share_bits) - 1))];
    *SharedOfBlock(own, i >> share_bits) = {total, merged};
  }
  if (alone) return;
  ArriveCluster();
  WaitCluster();
  MergeBlocks<kQueries, kDim, kWarps>(args, item, shared);
  if (item.clusters == 1) return;
  if (LastToArrive(&args.arrived[item.pair],
                   static_cast<uint32_t>(item.clusters << args.cluster_bits))) {
    MergeClusters<kQueries, kDim, kWarps>(args, item);
  }
}

// Blocks of a multiprocessor, of kWarps each: registers for sixteen warps; tiles of 256 dimensions
// take those of two warps.
template <Tiling kTiling, int kQueries, int kLanes, int kWarps>
inline constexpr int kResidentBlocks =
    (kQueries > 4 || (kTiling != Tiling::kNone && kLanes > 16) ? 8 : 16) / kWarps;

// kEnds: q, k and v come as bare products. kTiling: how blocks of many slots take them.
template <bool kEnds, Tiling kTiling, typename Kv, int kQueries, int kLanes, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp,
                                  kResidentBlocks<kTiling, kQueries, kLanes, kWarps>)
    ClusterAttentionKernel(const __grid_constant__ ClusterArgs args) {
  constexpr int kDim = 8 * kLanes;
  using Batch = SlotBatch<Kv, kQueries, kLanes, kWarps>;
  using Shared = ClusterShared<Kv, kQueries, kDim, kWarps, kTiling>;
  constexpr bool kRing = kTiling == Tiling::kRing;
  using Ends = BlockEnds<Kv, kQueries, kDim, kWarps, false, kRing>;
  Shared& shared = *reinterpret_cast<Shared*>(DynamicShared());
  if constexpr (kEnds && kRing) Ends::InitBarriers(shared);
  const bool tabled = kEnds || args.p.layer.table != nullptr;
  const LayerParams* const layer = tabled ? &LayerOf(args.p.layer) : nullptr;
  const AttentionShape shape = tabled ? layer->attention : args.p.shape;
  const KvLayer kv = tabled ? layer->kv : args.p.kv;
  // All blocks have begun when its second part is over.
  if constexpr (!kRing) ArriveCluster();
  if (!kEnds) {  // the kernel before writes the cache
    WaitForDependency();
    LaunchDependents();
  }
  const BlockPlace place = kRing ? PlaceInParts() : PlaceInClusters();
  const int position = __ldcg(args.p.map.position + place.row);
  const int32_t* const block_table =
      args.p.lanes.BlockTable(__ldcg(args.p.map.lane + place.row), kv.group);
  const ClusterItem item = ItemOf<kQueries, kDim>(args, shape, kv.block_size, place, position);
  // All blocks of a cluster or none.
  if (item.part >> args.cluster_bits >= item.clusters) {
    if (kEnds) WaitForDependency();
    return;
  }

  // Ends q, k and v, where `ends` and the block of the cache that has the row's own slot are found, and what
  // else may be loaded before is on its way. store: of BlockEnds.
  const auto own_block = [&] { return __ldcg(block_table + DividedBy(kv.block_size)(position)); };
  const auto end_heads = [&](const Ends& ends, int block, const auto&... store) {
    Kv* const slot = static_cast<Kv*>(kv.data) + OffsetInBlock(kv, block, item.kv_head, position);
    uint8_t* scales = nullptr;
    if constexpr (kIsScaled<Kv>) {
      scales = static_cast<uint8_t*>(kv.data) +
               KvScaleOffset(kv, block, item.kv_head, position % kv.block_size);
    }
    WaitForDependency();
    LaunchDependents();
    ends(static_cast<const float*>(args.p.qkv.data) + int64_t{item.row} * args.p.qkv.width, slot,
         kv.value_offset, scales, shared, store...);
    __syncthreads();
  };
  const auto load_query = [&](int query, int dim, float(&x)[8]) {
    const int head = min(query, item.head_count - 1);
    if constexpr (kEnds) {
      LoadFloats<float, 8>(&shared.heads[head][dim], x);
    } else {
      LoadEight(args.p.q, item.out + head * kDim + dim, x);
    }
  };
  const bool is_tiled = kTiling != Tiling::kNone && item.is_tiled;
  auto& own_memory = shared.warps[threadIdx.x / kWarp];
  if constexpr (kTiling == Tiling::kRegisters) {
    if (is_tiled) {
      TileWarp<Kv, kQueries, kDim, kWarps> warp(kv, block_table, item.kv_head, item.slots);
      if constexpr (kEnds) {
        end_heads(Ends(args.p.layer, *layer, item, position), own_block());
      }
      warp.ShareQueries(shape, shared.queries, load_query);
      __syncthreads();
      warp.Run(shape, shared.queries, [&](int slot, auto& tile) {
        if constexpr (kEnds) TakeOwnSlot(shared, slot, position, tile);
      });
      warp.Store(own_memory.part);
    }
  }
  if constexpr (kRing) {
    static_assert(kQueries <= kWarps);
    if (is_tiled) {
      // Loads come back in the order they were issued in: before the ring's tiles whatever can be.
      const int query = static_cast<int>(threadIdx.x) / kWarp;  // of the warp
      typename Ends::Head::Half q[2] = {};
      const auto store = [&](int place, const auto& x) { shared.queries.Store(shape, place, x); };
      const auto ask = [&] {
        return RingWarp<Kv, kQueries, kDim>(kv, block_table, item.kv_head, item.slots,
                                            WarpOfBlock<kWarps>(), DividedBy(kv.block_size),
                                            own_memory.ring);
      };
      const auto attend = [&](auto& warp) {
        warp.TakeQueries(shared.queries);
        warp.Run(shape, kEnds ? position : -1, shared.kv);
        warp.Store(own_memory.part);
      };
      if constexpr (kEnds) {
        const Ends ends(args.p.layer, *layer, item, position);
        const int block = own_block();
        auto warp = ask();
        if (query >= item.head_count && query < kQueries) store(query, q);  // multiplied for nothing
        end_heads(ends, block, store);
        attend(warp);
      } else {
        if (query < item.head_count) LoadHead<kDim>(args.p.q, item.out + query * kDim, q);
        auto warp = ask();
        if (query < kQueries) store(query, q);
        __syncthreads();
        attend(warp);
      }
    }
  }
  if (!is_tiled) {
    const int dim = static_cast<int>(threadIdx.x) % kLanes * 8;
    const DividedBy block_of(kv.block_size);
    float q[kQueries][8];
    LaneSums<Kv, kQueries, kLanes> sums;
    // The first keys and values are on their way while the products are still made. One loop, for few
    // instructions: a kernel of a few microseconds waits for them more than for anything else.
    bool first = true;
#pragma unroll 1
    for (int base = Batch::First(item.slots);; base += Batch::kBatch * Batch::kStride) {
      const bool some = base < item.slots.end;  // of all lanes of a warp or none
      Batch batch;
      if (some) batch.Load(kv, block_table, item.kv_head, base, item.slots, block_of);
      if (first) {
        first = false;
        if constexpr (kEnds) end_heads(Ends(args.p.layer, *layer, item, position), own_block());
#pragma unroll
        for (int h = 0; h < kQueries; ++h) load_query(h, dim, q[h]);
      }
      if (!some) break;
      if constexpr (kEnds) TakeOwnSlot(shared, base, item.slots, position, batch);
      AttendBatch(batch, base, item.slots, shape, q, sums);
    }
    StoreWarp(sums, own_memory.part);
  }
  __syncthreads();
  if constexpr (kRing) {
    MergeRow<kQueries, kDim, kWarps>(args, item, shared);
  } else {
    MergeThroughCluster<kQueries, kDim, kWarps>(args, item, shared);
  }
}

// ---- On the host -------------------------------------------------------------------------------

// Warps of a block where there are more blocks than find room side by side, two a multiprocessor, and
// a row of a few hundred slots leaves the last of eight warps without a tile. Measured on an H100 in
// whole steps of 20 to 276 slots, by blocks of eight, four and two warps, in us: llama3.2-1b with 64
// rows 1,512, 1,490, 1,547, with 256 rows 2,583, 2,397, 2,382; llama3.1-8b with 256 rows 10,811,
// 10,499, 10,485. gemma3-1b's heads of 256 dimensions with 64 rows 1,646, 1,708, 1,949.
constexpr int kFewWarps = 4;
constexpr int kFewWarpsQueries = 4;  // of a block, at most
constexpr int kFewWarpsDim = 128;    // of a head, at most

// Where rows may be as long as this, and a block serves four or more queries, many slots go through a
// ring. Shorter ones need less of a multiprocessor, so that blocks of the products around attention
// find room beside it.
constexpr int32_t kRingLength = 4096;
constexpr int kRingQueries = 4;
// Blocks with a ring are in no clusters: all of a cluster need room in one group of multiprocessors,
// and some of each group stay idle while others have two blocks. A row's blocks merge through scratch;
// of 64 and 128 dimensions, where there are pairs enough for all multiprocessors, rows of up to
// 2^slot_bits slots have one. Of 256 dimensions one block fills a multiprocessor: the more bytes are
// asked for at its beginning, the shorter memory idles between two kernels.
struct RingShape {
  int warps;      // of a block
  int blocks;     // of a multiprocessor
  int slot_bits;  // ClusterArgs::slot_bits
};
constexpr RingShape RingShapeOf(int head_dim) {
  return head_dim == 256 ? RingShape{.warps = 8, .blocks = 1, .slot_bits = 6}
                         : RingShape{.warps = 8, .blocks = 2, .slot_bits = 10};
}
// Of 256 dimensions a block takes slots in tiles beyond one.
constexpr int kWideRingLeastTiled = kTileSlots + 1;

struct ClusterLayout {
  int head_dim;
  int queries;    // of a block
  Tiling tiling;  // of blocks of many slots
  int warps;      // of a block
  ClusterArgs args;
};

// Query heads of a block. Fewer are fewer instructions and more blocks, which each read the row's
// keys and values, all but the first from the L2 cache: where there are few blocks, and little is
// read. Measured on an H200 with 1 to 128 rows of 20 to 276 slots: one KV head of 256 dimensions,
// and eight of 64 and of 128.
int QueriesOf(const DecodeRows& p, const AttentionHeads& heads) {
  constexpr int64_t kMostReadAgain = int64_t{64} << 20;  // bytes; 10 us of the L2 cache's
  const int64_t row_bytes = std::min<int64_t>(p.lanes.max_length, 4096) * heads.kv_heads *
                            heads.head_dim * 2 * static_cast<int64_t>(BytesOf(KvTypeOf(p)));
  for (int queries = 1; queries < std::min(heads.heads_a_kv_head, 8); queries *= 2) {
    const int64_t passes = CeilDiv(heads.heads_a_kv_head, queries);
    const int64_t most_pairs = queries == 1 ? 8 : 512;
    if (p.rows * heads.kv_heads * passes <= most_pairs &&
        p.rows * passes * row_bytes < kMostReadAgain) {
      return queries;
    }
  }
  return heads.heads_a_kv_head <= 1   ? 1
         : heads.heads_a_kv_head <= 2 ? 2
         : heads.heads_a_kv_head <= 4 ? 4
                                      : 8;
}

// Slots that a block takes before its row gets another cluster, where there is no ring.
constexpr int kBlockSlotBits = 7;

// Slots of a block from which on tiles are faster. Measured on an H200 with 1 to 256 rows of 277
// and 512 slots.
int LeastTiledSlots(int head_dim, int queries) {
  if (head_dim > 128) return 192;
  return queries > 2 ? 64 : 128;
}

// Clusters that are sure to run side by side where each block has a multiprocessor for itself:
// multiprocessors come in groups of up to 18, which a cluster does not leave. An H200 with 132 of
// them holds 30 clusters of four, and 15 of eight; one more would begin when others have ended.
int64_t ClustersAtOnce(int multiprocessors, int cluster) {
  return (cluster >= 4 ? multiprocessors * 10 / 11 : multiprocessors) / cluster;
}

// Whether many slots go through a ring. pairs: of a row and a group of query heads. Of 64 and 128
// dimensions few pairs are better off in clusters while rows are short, and of many blocks are of
// few warps.
bool TakesRing(const ClusterLayout& layout, int64_t pairs, int multiprocessors) {
  const DecodeRows& p = layout.args.p;
  return KvTypeOf(p) != DType::kFloat32 && p.lanes.max_length >= kRingLength &&
         layout.queries >= kRingQueries &&
         (layout.head_dim == 256 ||
          (3 * pairs > multiprocessors && pairs <= 2 * int64_t{multiprocessors}));
}

// Where there is no ring.
Tiling TilingOf(const ClusterLayout& layout, int64_t pairs, int multiprocessors) {
  if (KvTypeOf(layout.args.p) == DType::kFloat32) return Tiling::kNone;
  // Of 256 dimensions tiles in registers take a whole multiprocessor, for which a block must wait
  // until the kernel before is done: with 16 rows of few slots a step of gemma3-1b took 1,536 us in
  // place of 1,366; with 64 rows, in clusters of two, 1,554 in place of 1,643. Where there are more
  // blocks, two side by side are worth more.
  const bool fits = layout.args.cluster <= 2 && pairs * layout.args.cluster <= multiprocessors;
  return layout.head_dim <= 128 || layout.queries > 4 || fits ? Tiling::kRegisters : Tiling::kNone;
}

// Clusters of a row, of which `at_once` would run side by side.
int32_t MostClusters(const ClusterArgs& args, int64_t at_once, int most) {
  const int64_t useful = CeilDiv(args.p.lanes.max_length, int64_t{args.cluster} << args.slot_bits);
  return static_cast<int32_t>(std::clamp<int64_t>(at_once, 1, std::min(useful, int64_t{most})));
}

void LayOutRing(ClusterLayout& layout, int64_t pairs, int multiprocessors) {
  const RingShape shape = RingShapeOf(layout.head_dim);
  ClusterArgs& args = layout.args;
  layout.tiling = Tiling::kRing;
  layout.warps = shape.warps;
  args.cluster = 1;
  args.cluster_bits = 0;
  args.slot_bits = shape.slot_bits;
  args.most_clusters = MostClusters(args, shape.blocks * multiprocessors / pairs,
                                    MostRingParts(layout.head_dim, layout.queries, shape.warps));
  args.stagger = layout.head_dim == 256 ? shape.warps * kTileSlots : 0;
  args.least_tiled = layout.head_dim == 256 ? kWideRingLeastTiled
                                            : LeastTiledSlots(layout.head_dim, layout.queries);
}

ClusterLayout LayoutOf(const DecodeRows& p, int multiprocessors) {
  const AttentionHeads heads = HeadsOf(p);
  ClusterLayout layout = {};
  layout.head_dim = heads.head_dim;
  layout.queries = QueriesOf(p, heads);
  ClusterArgs& args = layout.args;
  args.p = p;
  args.kv_heads = heads.kv_heads;
  args.heads_a_kv_head = heads.heads_a_kv_head;
  args.passes = static_cast<int32_t>(CeilDiv(heads.heads_a_kv_head, layout.queries));
  const int64_t pairs = int64_t{p.rows} * args.kv_heads * args.passes;
  if (TakesRing(layout, pairs, multiprocessors)) {
    LayOutRing(layout, pairs, multiprocessors);
    return layout;
  }
  // About one block a multiprocessor: more share their instructions' way, which is what short rows
  // wait for.
  const int64_t blocks = std::max<int64_t>(1, multiprocessors / pairs);
  args.cluster_bits = 0;
  args.slot_bits = kBlockSlotBits;
  // Clusters of eight on all multiprocessors took longer than of four on half of them: 1,290 us and
  // 1,285 (gemma3-1b, 8 rows), 842 and 809 (llama3.2-1b, one row).
  const int64_t most_cluster = std::min<int64_t>(pairs <= 8 ? kMostCluster : 4, blocks);
  while ((2 << args.cluster_bits) <= most_cluster) ++args.cluster_bits;
  args.cluster = 1 << args.cluster_bits;
  layout.tiling = TilingOf(layout, pairs, multiprocessors);
  const int64_t at_once = layout.tiling == Tiling::kRegisters
                              ? ClustersAtOnce(multiprocessors, args.cluster) / pairs
                              : blocks / args.cluster;
  args.most_clusters = MostClusters(args, at_once, kMostClusters);
  layout.warps = kClusterWarps;
  if (layout.head_dim <= kFewWarpsDim && layout.queries <= kFewWarpsQueries &&
      pairs > 2 * multiprocessors) {
    layout.warps = kFewWarps;
  }
  args.least_tiled = layout.tiling == Tiling::kNone
                         ? std::numeric_limits<int32_t>::max()
                         : LeastTiledSlots(layout.head_dim, layout.queries);
  return layout;
}

template <bool kEnds, Tiling kTiling, typename Kv, int kQueries, int kLanes, int kWarps>
cudaError_t Launch(const ClusterArgs& args, const LaunchContext& context) {
  constexpr size_t kShared = sizeof(ClusterShared<Kv, kQueries, 8 * kLanes, kWarps, kTiling>);
  const auto kernel = ClusterAttentionKernel<kEnds, kTiling, Kv, kQueries, kLanes, kWarps>;
  if (const cudaError_t error = AllowShared(kernel, kShared); error != cudaSuccess) return error;
  const auto parts = static_cast<unsigned>(args.cluster * args.most_clusters);
  const auto groups = static_cast<unsigned>(args.kv_heads * args.passes);
  const auto rows = static_cast<unsigned>(args.p.rows);
  const dim3 grid =
      kTiling == Tiling::kRing ? dim3(groups, rows, parts) : dim3(parts, groups, rows);
  return LaunchClusters(kernel, grid, dim3(kWarps * kWarp), static_cast<unsigned>(args.cluster),
                        kShared, context, args);
}

template <bool kEnds, typename Kv, int kQueries, int kLanes>
cudaError_t Launch(const ClusterLayout& layout, const LaunchContext& context) {
  constexpr int kDim = 8 * kLanes;
  if constexpr (kCanTile<Kv>) {
    if constexpr (kQueries >= kRingQueries) {
      if (layout.tiling == Tiling::kRing) {
        return Launch<kEnds, Tiling::kRing, Kv, kQueries, kLanes, RingShapeOf(kDim).warps>(
            layout.args, context);
      }
    }
    if constexpr (kQueries <= kFewWarpsQueries && kDim <= kFewWarpsDim) {
      if (layout.warps == kFewWarps) {
        return Launch<kEnds, Tiling::kRegisters, Kv, kQueries, kLanes, kFewWarps>(layout.args,
                                                                                  context);
      }
    }
    if constexpr (kDim <= kFewWarpsDim || kQueries > 4) {
      return Launch<kEnds, Tiling::kRegisters, Kv, kQueries, kLanes, kClusterWarps>(layout.args,
                                                                                    context);
    } else if (layout.tiling == Tiling::kRegisters) {
      return Launch<kEnds, Tiling::kRegisters, Kv, kQueries, kLanes, kClusterWarps>(layout.args,
                                                                                    context);
    }
  }
  if constexpr (!kCanTile<Kv> || (kDim > kFewWarpsDim && kQueries <= 4)) {
    return Launch<kEnds, Tiling::kNone, Kv, kQueries, kLanes, kClusterWarps>(layout.args, context);
  }
}

template <bool kEnds, typename Kv, int kQueries>
cudaError_t Launch(const ClusterLayout& layout, const LaunchContext& context) {
  switch (layout.head_dim) {
    case 64:
      return Launch<kEnds, Kv, kQueries, 8>(layout, context);
    case 128:
      return Launch<kEnds, Kv, kQueries, 16>(layout, context);
    default:
      break;
  }
  return Launch<kEnds, Kv, kQueries, 32>(layout, context);
}

template <bool kEnds>
cudaError_t Launch(const ClusterLayout& layout, const LaunchContext& context) {
  const auto launch = [&](auto zero) {
    using Kv = decltype(zero);
    switch (layout.queries) {
      case 1:
        return Launch<kEnds, Kv, 1>(layout, context);
      case 2:
        return Launch<kEnds, Kv, 2>(layout, context);
      case 4:
        return Launch<kEnds, Kv, 4>(layout, context);
      default:
        return Launch<kEnds, Kv, 8>(layout, context);
    }
  };
  const DType dtype = KvTypeOf(layout.args.p);
  return dtype == DType::kFloat8 ? launch(Float8{}) : WithType(dtype, launch);
}

}  // namespace

bool ClusterAttentionTakes(const DecodeRows& p) {
  const ClusterLayout layout = LayoutOf(p, kMostMultiprocessors);
  const ClusterArgs& args = layout.args;
  const bool dim = layout.head_dim == 64 || layout.head_dim == 128 || layout.head_dim == 256;
  const Rows& in = p.qkv.data != nullptr ? p.qkv : p.q;
  return dim && int64_t{args.p.rows} * args.kv_heads * args.passes <= kCounters &&
         args.p.rows <= 65535 && args.kv_heads * args.passes <= 65535 &&
         // A layer's table cannot be asked: there all slots are wide (engine's KV layout).
         (p.layer.table != nullptr ||
          (KvTypeOf(p) == DType::kFloat8 ? SlotsAreWide<16>(p.kv) : SlotsAreWide(p.kv))) &&
         IsAligned(in.data, 16);
}

size_t ClusterAttentionScratch(const DecodeRows& p) {
  // Where several clusters share a row, there are no more of them than fit: of all rows together.
  constexpr int64_t kMostBlocks = 2 * kMostMultiprocessors;
  constexpr int64_t kMostQueries = 8;
  return static_cast<size_t>(kMostBlocks * kMostQueries) *
         (HeadsOf(p).head_dim * sizeof(float) + sizeof(float2));
}

cudaError_t LaunchClusterAttention(const DecodeRows& p, const LaunchContext& context) {
  if (PairAttentionTakes(p, std::min(context.multiprocessors, kMostMultiprocessors))) {
    return LaunchPairAttention(p, context);
  }
  ClusterLayout layout = LayoutOf(p, std::min(context.multiprocessors, kMostMultiprocessors));
  const int64_t pairs = int64_t{p.rows} * layout.args.kv_heads * layout.args.passes;
  const int64_t heads = pairs * layout.args.most_clusters * layout.queries;
  layout.args.values = static_cast<float4*>(context.scratch);
  layout.args.statistics =
      reinterpret_cast<float2*>(layout.args.values + heads * (layout.head_dim / 4));
  layout.args.parts = context.scratch;
  layout.args.arrived = context.counters;
  return p.qkv.data != nullptr ? Launch<true>(layout, context) : Launch<false>(layout, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
