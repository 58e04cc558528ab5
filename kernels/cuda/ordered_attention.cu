// Attention whose every sum is made in one order, however many rows there are and whichever pass
// they are of: for `batch_invariant`, where blocks form clusters.
//
// The order. A row's slots are cut at multiples of 256 (a *split*), those of a split at multiples
// of 128, of long heads of 64 (a *group*). In a group the eight warps take slots in turn, from the
// first that the row sees on (cluster_slots.cuh); their parts are merged in their order, the
// groups' parts in theirs, the splits' in theirs (Dao et al., 2023). A part without slots adds
// nothing. So a row's bits hang on its queries, its position and the cache alone.
//
// What does hang on the number of rows is who does it: a split is one or more blocks', a cluster,
// up to one a group, and a row's clusters take its splits in turn. Of the query heads of a KV head
// a block takes one, two or four, which changes no sum. Where rows are many, heads of 64 or 128
// dimensions are the work of another kernel (ordered_block.cuh), which makes the same sums.
//
// Where q, k and v come as bare products (QkvAttentionParams) blocks end them as in
// cluster_attention.cu, and q is rounded as QkvEndParams leaves it: DecodeAttentionParams after
// QkvEndParams gives the same bits, for any number of rows of a lane.
//
// Bytes: each key and value once, q and out once; where a row has several splits their parts,
// (head_dim + 2) float32 a head, written and read once.
// Grid: (blocks of the row's clusters, groups of query heads, rows), 256 threads; clusters without
// splits end at once. Rows beyond what 32 MiB of parts are for are launched in turn. Shared memory:
// 16 parts of head_dim + 2 floats a query head.
//
// Assumes: head_dim 64, 128 or 256; slots that begin at multiples of 16 bytes.
#include "kernels/cuda/path.h"

#if SIROCCO_HOPPER
#include <algorithm>
#include <bit>

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/cluster_ends.cuh"
#include "kernels/cuda/cluster_item.cuh"
#include "kernels/cuda/cluster_merge.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ordered.h"
#include "kernels/cuda/ordered_block.cuh"
#include "kernels/cuda/ordered_parts.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kWarps = kClusterWarps;
constexpr int kThreads = kWarps * kWarp;
constexpr int kMostQueries = kOrderedQueries;  // of a block: more change the order
// Of the parts of one launch's rows.
constexpr int64_t kMostPartBytes = int64_t{32} << 20;

template <typename Kv, int kQueries, int kDim>
struct OrderedShared {
  static constexpr int kQuads = kQueries * kDim / 4;
  static constexpr int kGroups = GroupsOfSplit(kDim);
  Part<kQueries, kDim> warps[kWarps];
  // Of the split's groups this block's share of the quads: [kGroups][kQuads / blocks].
  QuadPart groups[kGroups * kQuads];
  // As ClusterShared's.
  float heads[kQueries + 2][kDim];
  alignas(16) Kv kv[2][kDim + (kIsScaled<Kv> ? 16 : 0)];
};

// The splits of a row that have slots, from the first on.
template <int kGroupBits>
struct RowSplits {
  int first_slot, position;
  int first, count;

  __device__ __forceinline__ RowSplits(const AttentionShape& shape, int position)
      : first_slot(FirstSlot(shape, position)),
        position(position),
        first(first_slot >> kSplitBits),
        count((position >> kSplitBits) - first + 1) {}
  // Groups of a split with slots: from the one to the other.
  __device__ __forceinline__ int FirstGroup(int split) const {
    return max(first_slot - ((first + split) << kSplitBits), 0) >> kGroupBits;
  }
  __device__ __forceinline__ int LastGroup(int split) const {
    return min(position - ((first + split) << kSplitBits), kSplitSlots - 1) >> kGroupBits;
  }
  __device__ __forceinline__ SlotRange SlotsOf(int split, int group) const {
    const int low = ((first + split) << kSplitBits) + (group << kGroupBits);
    return {max(low, first_slot), min(low + (1 << kGroupBits), position + 1)};
  }
};

// kEnds: q, k and v come as bare products.
template <bool kEnds, typename Kv, int kQueries, int kLanes>
__global__ void __launch_bounds__(kThreads, 2)
    OrderedAttentionKernel(const __grid_constant__ OrderedArgs args) {
  constexpr int kDim = 8 * kLanes;
  constexpr int kQuads = kDim / 4;
  constexpr int kQuadBits = std::bit_width(unsigned{kQueries * kQuads}) - 1;
  using Batch = SlotBatch<Kv, kQueries, kLanes, kWarps>;
  using Shared = OrderedShared<Kv, kQueries, kDim>;
  constexpr int kGroups = Shared::kGroups;
  Shared& shared = *reinterpret_cast<Shared*>(DynamicShared());
  const bool tabled = kEnds || args.p.layer.table != nullptr;
  const LayerParams* const layer = tabled ? &LayerOf(args.p.layer) : nullptr;
  const AttentionShape shape = tabled ? layer->attention : args.p.shape;
  const KvLayer kv = tabled ? layer->kv : args.p.kv;
  ArriveCluster();  // all blocks have begun when its second part is over
  if (!kEnds) {     // the kernel before writes the cache
    WaitForDependency();
    LaunchDependents();
  }
  const int position = __ldcg(args.p.map.position + blockIdx.z);
  const int32_t* const block_table =
      args.p.lanes.BlockTable(__ldcg(args.p.map.lane + blockIdx.z), kv.group);
  const RowSplits<GroupBits(kDim)> splits(shape, position);
  const int cluster = static_cast<int>(blockIdx.x) >> args.cluster_bits;
  const int rank = static_cast<int>(blockIdx.x) & ((1 << args.cluster_bits) - 1);
  // All blocks of a cluster or none.
  if (cluster >= splits.count) {
    if (kEnds) WaitForDependency();
    return;
  }
  const int share_bits = kQuadBits - args.cluster_bits;
  const int own_groups = kGroups >> args.cluster_bits;
  ClusterItem item = ItemOf<kQueries, kDim>(args);
  const int last = splits.count - 1;
  item.has_own = last % args.clusters == cluster && splits.LastGroup(last) / own_groups == rank;

  const int dim = static_cast<int>(threadIdx.x) % kLanes * 8;
  const DividedBy block_of(kv.block_size);
  float q[kQueries][8];
  bool ended = false;  // q is there
  bool waited = !kEnds;
  bool begun = false;  // the cluster
#pragma unroll 1
  for (int split = cluster; split < splits.count; split += args.clusters) {
    const int first_group = splits.FirstGroup(split);
    const int last_group = splits.LastGroup(split);
    const int end_group = min(last_group + 1, (rank + 1) * own_groups);
#pragma unroll 1
    for (int group = max(first_group, rank * own_groups); group < end_group; ++group) {
      const SlotRange slots = splits.SlotsOf(split, group);
      LaneSums<Kv, kQueries, kLanes> sums;
      // The first keys and values are on their way while the products are still made. One loop, for
      // few instructions.
#pragma unroll 1
      for (int base = Batch::First(slots);; base += Batch::kBatch * Batch::kStride) {
        const bool some = base < slots.end;  // of all lanes of a warp or none
        Batch batch;
        if (some) batch.Load(kv, block_table, item.kv_head, base, slots, block_of);
        if (!ended) {
          ended = true;
          if constexpr (kEnds) {
            const BlockEnds<Kv, kQueries, kDim, kWarps, true> ends(args.p.layer, *layer, item, position,
                                                           args.p.q.dtype);
            const int block = __ldcg(block_table + block_of(position));
            Kv* const slot =
                static_cast<Kv*>(kv.data) + OffsetInBlock(kv, block, item.kv_head, position);
            uint8_t* scales = nullptr;
            if constexpr (kIsScaled<Kv>) {
              scales = static_cast<uint8_t*>(kv.data) +
                       KvScaleOffset(kv, block, item.kv_head, position % kv.block_size);
            }
            if (!waited) {
              WaitForDependency();
              LaunchDependents();
              waited = true;
            }
            ends(static_cast<const float*>(args.p.qkv.data) + int64_t{item.row} * args.p.qkv.width,
                 slot, kv.value_offset, scales, shared);
            __syncthreads();
          }
#pragma unroll
          for (int h = 0; h < kQueries; ++h) {
            const int head = min(h, item.head_count - 1);
            if constexpr (kEnds) {
              LoadFloats<float, 8>(&shared.heads[head][dim], q[h]);
            } else {
              LoadEight(args.p.q, item.out + head * kDim + dim, q[h]);
            }
          }
        }
        if (!some) break;
        if constexpr (kEnds) TakeOwnSlot(shared, base, slots, position, batch);
        AttendBatch(batch, base, slots, shape, q, sums);
      }
      StoreWarp(sums, shared.warps[threadIdx.x / kWarp]);
      __syncthreads();
      if (!begun) WaitCluster();
      begun = true;
      for (int i = threadIdx.x; i < kQueries * kQuads; i += kThreads) {
        const int head = i / kQuads;
        const int quad = i % kQuads;
        float2 merged;
        const float4 total = MergeParts<kWarps>(
            kWarps, [&](int w) { return shared.warps[w].statistics[head]; },
            [&](int w) { return shared.warps[w].values[head][quad]; }, merged);
        // To the block of the cluster whose share it is.
        QuadPart* const own = &shared.groups[(group << share_bits) + (i & ((1 << share_bits) - 1))];
        *SharedOfBlock(own, i >> share_bits) = {total, merged};
      }
      __syncthreads();  // the warps' parts may be written again
    }
    if (!waited) {  // a block without groups
      WaitForDependency();
      LaunchDependents();
      waited = true;
    }
    if (!begun) WaitCluster();
    begun = true;
    ArriveCluster();
    WaitCluster();
    const int share = 1 << share_bits;
    for (int i = threadIdx.x; i < share; i += kThreads) {
      const int head = ((rank << share_bits) + i) / kQuads;
      const int quad = ((rank << share_bits) + i) % kQuads;
      float2 merged;
      const float4 total = MergeParts<kGroups>(
          last_group - first_group + 1,
          [&](int g) { return shared.groups[((first_group + g) << share_bits) + i].statistics; },
          [&](int g) { return shared.groups[((first_group + g) << share_bits) + i].values; },
          merged);
      if (splits.count == 1) {
        StoreOut<kDim>(args.p.out, item, head, quad, total, merged.y);
        continue;
      }
      const int64_t at = (int64_t{item.pair} * args.most_splits + split) * kQueries + head;
      args.values[at * kQuads + quad] = total;
      if (quad == 0) args.statistics[at] = merged;
    }
    if (split + args.clusters < splits.count) {  // the groups' parts may be written again
      ArriveCluster();
      WaitCluster();
    }
  }
  if (splits.count == 1) return;
  const int arriving = min(splits.count, args.clusters) << args.cluster_bits;
  if (LastToArrive(&args.arrived[item.pair], static_cast<uint32_t>(arriving))) {
    MergeSplits<kQueries, kDim, kThreads>(args, item, splits.count);
  }
}

// ---- On the host -------------------------------------------------------------------------------

int32_t MostSplits(const DecodeRows& p) {
  return static_cast<int32_t>(CeilDiv(p.lanes.max_length, kSplitSlots));
}

int64_t PartBytesARow(const DecodeRows& p) {
  if (MostSplits(p) == 1) return 0;
  const AttentionHeads heads = HeadsOf(p);
  const int64_t queries = CeilDiv(heads.heads_a_kv_head, kMostQueries) * kMostQueries;
  return heads.kv_heads * queries * MostSplits(p) *
         static_cast<int64_t>(heads.head_dim * sizeof(float) + sizeof(float2));
}

// Rows of one launch: as many as have counters and room for their parts.
int64_t RowsALaunch(const DecodeRows& p) {
  const AttentionHeads heads = HeadsOf(p);
  const int64_t rows = std::min<int64_t>(
      {p.rows, 65535, kCounters / (int64_t{heads.kv_heads} * heads.heads_a_kv_head)});
  const int64_t bytes = PartBytesARow(p);
  return std::max<int64_t>(1, bytes == 0 ? rows : std::min(rows, kMostPartBytes / bytes));
}

// Query heads of a block, by what cluster_attention.cu found.
int QueriesOf(const DecodeRows& p, const AttentionHeads& heads) {
  constexpr int64_t kMostReadAgain = int64_t{64} << 20;
  const int64_t row_bytes = std::min<int64_t>(p.lanes.max_length, 4096) * heads.kv_heads *
                            heads.head_dim * 2 * static_cast<int64_t>(BytesOf(KvTypeOf(p)));
  for (int queries = 1; queries < std::min(heads.heads_a_kv_head, kMostQueries); queries *= 2) {
    const int64_t passes = CeilDiv(heads.heads_a_kv_head, queries);
    const int64_t most_pairs = queries == 1 ? 8 : 512;
    if (p.rows * heads.kv_heads * passes <= most_pairs &&
        p.rows * passes * row_bytes < kMostReadAgain) {
      return queries;
    }
  }
  return heads.heads_a_kv_head <= 1 ? 1 : heads.heads_a_kv_head <= 2 ? 2 : kMostQueries;
}

template <bool kEnds, typename Kv, int kQueries, int kLanes>
cudaError_t Launch(const OrderedArgs& args, const LaunchContext& context) {
  constexpr size_t kShared = sizeof(OrderedShared<Kv, kQueries, 8 * kLanes>);
  const auto kernel = OrderedAttentionKernel<kEnds, Kv, kQueries, kLanes>;
  if (const cudaError_t error = AllowShared(kernel, kShared); error != cudaSuccess) return error;
  const int cluster = 1 << args.cluster_bits;
  const dim3 grid(static_cast<unsigned>(cluster * args.clusters),
                  static_cast<unsigned>(args.kv_heads * args.passes),
                  static_cast<unsigned>(args.p.rows));
  return LaunchClusters(kernel, grid, dim3(kThreads), static_cast<unsigned>(cluster), kShared,
                        context, args);
}

template <bool kEnds, typename Kv, int kQueries>
cudaError_t Launch(const OrderedArgs& args, int head_dim, const LaunchContext& context) {
  switch (head_dim) {
    case 64:
      return Launch<kEnds, Kv, kQueries, 8>(args, context);
    case 128:
      return Launch<kEnds, Kv, kQueries, 16>(args, context);
    default:
      return Launch<kEnds, Kv, kQueries, 32>(args, context);
  }
}

// Where a row and a KV head are one block's. Heads are of 64 or 128 dimensions, of 16 bits or float8.
template <bool kEnds, typename Kv, int kDim>
cudaError_t LaunchBlocks(const OrderedArgs& args, const LaunchContext& context) {
  using Block = OrderedBlock<Kv, kDim>;
  constexpr size_t kShared = sizeof(typename Block::Shared);
  const auto kernel = OrderedBlockKernel<kEnds, Kv, kDim>;
  if (const cudaError_t error = AllowShared(kernel, kShared); error != cudaSuccess) return error;
  const dim3 grid(1, static_cast<unsigned>(args.kv_heads * args.passes),
                  static_cast<unsigned>(args.p.rows));
  return LaunchClusters(kernel, grid, dim3(Block::kThreads), 1, kShared, context, args);
}
template <bool kEnds, typename Kv>
cudaError_t LaunchBlocks(const OrderedArgs& args, int head_dim, const LaunchContext& context) {
  return head_dim == 64 ? LaunchBlocks<kEnds, Kv, 64>(args, context)
                        : LaunchBlocks<kEnds, Kv, 128>(args, context);
}
template <bool kEnds>
cudaError_t LaunchBlocks(const OrderedArgs& args, int head_dim, const LaunchContext& context) {
  switch (KvTypeOf(args.p)) {
    case DType::kBFloat16:
      return LaunchBlocks<kEnds, __nv_bfloat16>(args, head_dim, context);
    case DType::kFloat16:
      return LaunchBlocks<kEnds, __half>(args, head_dim, context);
    case DType::kFloat8:
      return LaunchBlocks<kEnds, Float8>(args, head_dim, context);
    default:  // float32: BlocksCanTake
      break;
  }
  return cudaErrorInvalidValue;
}

template <bool kEnds>
cudaError_t Launch(const OrderedArgs& args, int queries, int head_dim,
                   const LaunchContext& context) {
  const auto launch = [&](auto zero) {
    using Kv = decltype(zero);
    cudaError_t error = cudaSuccess;
    // All are loaded: steps of other sizes take others.
    if (context.load_only || queries == 1) error = Launch<kEnds, Kv, 1>(args, head_dim, context);
    if (error == cudaSuccess && (context.load_only || queries == 2)) {
      error = Launch<kEnds, Kv, 2>(args, head_dim, context);
    }
    if (error == cudaSuccess && (context.load_only || queries == 4)) {
      error = Launch<kEnds, Kv, 4>(args, head_dim, context);
    }
    return error;
  };
  const DType dtype = KvTypeOf(args.p);
  return dtype == DType::kFloat8 ? launch(Float8{}) : WithType(dtype, launch);
}

// Rows [first, first + rows).
DecodeRows PartOf(const DecodeRows& p, int64_t first, int64_t rows) {
  const auto from = [&](Rows all) {
    if (all.data == nullptr) return all;
    all.data =
        static_cast<char*>(all.data) + first * all.width * static_cast<int64_t>(BytesOf(all.dtype));
    return all;
  };
  DecodeRows part = p;
  part.rows = static_cast<int32_t>(rows);
  part.map = {p.map.lane + first, p.map.position + first};
  part.q = from(p.q);
  part.qkv = from(p.qkv);
  part.out = from(p.out);
  return part;
}

// Whether OrderedBlockKernel can do it. Where a row's cluster would have two blocks or one, it does: from
// half as many pairs of a row and a KV head on as there are multiprocessors. Measured on an H200, of
// products, us a layer of llama3.2-1b, with clusters and by blocks: 8 rows (64 pairs) of 150 slots 6.1
// and 6.1, of 2,048 28.4 and 41.6; 12 rows 7.2 and 6.3, 50.5 and 43.1; 64 rows 22.7 and 11.5, 152.7 and
// 79.5.
bool BlocksCanTake(const DecodeRows& p, const AttentionHeads& heads) {
  return heads.head_dim <= 128 && heads.heads_a_kv_head > 2 && KvTypeOf(p) != DType::kFloat32;
}

// With `queries` query heads of a block.
OrderedArgs ArgsOf(const DecodeRows& p, const AttentionHeads& heads, int queries,
                   const LaunchContext& context) {
  OrderedArgs args = {};
  args.p = p;
  args.kv_heads = heads.kv_heads;
  args.heads_a_kv_head = heads.heads_a_kv_head;
  args.passes = static_cast<int32_t>(CeilDiv(heads.heads_a_kv_head, queries));
  args.most_splits = MostSplits(p);
  // Two blocks a multiprocessor find room at once: a split's first, then more of a row's splits.
  const int64_t pairs = int64_t{p.rows} * args.kv_heads * args.passes;
  const int64_t blocks = std::max<int64_t>(1, 2 * context.multiprocessors / pairs);
  args.cluster_bits =
      std::min(kSplitBits - GroupBits(heads.head_dim), blocks >= 4 ? 2 : blocks >= 2 ? 1 : 0);
  args.clusters =
      static_cast<int32_t>(std::clamp<int64_t>(blocks >> args.cluster_bits, 1, args.most_splits));
  args.values = static_cast<float4*>(context.scratch);
  args.statistics = reinterpret_cast<float2*>(args.values + pairs * args.most_splits * queries *
                                                                (heads.head_dim / 4));
  args.arrived = context.counters;
  return args;
}

template <bool kEnds>
cudaError_t LaunchRows(const DecodeRows& p, const LaunchContext& context) {
  const AttentionHeads heads = HeadsOf(p);
  if (BlocksCanTake(p, heads)) {
    const OrderedArgs args = ArgsOf(p, heads, kOrderedQueries, context);
    const int64_t pairs = int64_t{p.rows} * args.kv_heads * args.passes;
    const bool takes = 2 * pairs > context.multiprocessors;
    if (context.load_only || takes) {
      const cudaError_t error = LaunchBlocks<kEnds>(args, heads.head_dim, context);
      if (!context.load_only || error != cudaSuccess) return error;
    }
  }
  const int queries = QueriesOf(p, heads);
  return Launch<kEnds>(ArgsOf(p, heads, queries, context), queries, heads.head_dim, context);
}

}  // namespace

bool OrderedAttentionTakes(const DecodeRows& p) {
  const AttentionHeads heads = HeadsOf(p);
  const int dim = heads.head_dim;
  const Rows& in = p.qkv.data != nullptr ? p.qkv : p.q;
  return (dim == 64 || dim == 128 || dim == 256) &&
         int64_t{heads.kv_heads} * heads.heads_a_kv_head <= kCounters &&
         // A layer's table cannot be asked: there all slots are wide (engine's KV layout).
         (p.layer.table != nullptr ||
          (KvTypeOf(p) == DType::kFloat8 ? SlotsAreWide<16>(p.kv) : SlotsAreWide(p.kv))) &&
         IsAligned(in.data, 16);
}

size_t OrderedAttentionScratch(const DecodeRows& p) {
  return static_cast<size_t>(RowsALaunch(p) * PartBytesARow(p));
}

cudaError_t LaunchOrderedAttention(const DecodeRows& p, const LaunchContext& context) {
  const int64_t most = RowsALaunch(p);
  cudaError_t error = cudaSuccess;
  for (int64_t first = 0; first < p.rows && error == cudaSuccess; first += most) {
    const DecodeRows part = PartOf(p, first, std::min(most, p.rows - first));
    error = p.qkv.data != nullptr ? LaunchRows<true>(part, context)
                                  : LaunchRows<false>(part, context);
  }
  return error;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
