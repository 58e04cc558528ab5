// Attention of a decode step where a row's slots are shared by a cluster of thread blocks, which
// merge their parts through each other's shared memory: a few microseconds for a row of any usual
// length. Rows of many slots get several clusters, whose parts the last block to arrive merges.
//
// A warp takes one slot at a time, or two or four where heads are short: each lane has eight
// dimensions of q, k and v, straight from memory. Softmax is online (Milakov and Gimelshein, 2018),
// parts are merged in their order (Dao et al., 2023). How many blocks share a row depends on its own
// slots and on the number of rows.
//
// Bytes: each key and value once, q and out once; where a row has several clusters their parts,
// (head_dim + 2) float32 a head, written and read once.
// Grid: (blocks of the row's clusters, groups of query heads, rows), 256 threads; blocks without
// slots end at once. Shared memory: 9 parts of head_dim + 2 floats a query head.
//
// Assumes: head_dim 64, 128 or 256; slots that begin at multiples of 16 bytes.
#include <algorithm>

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/launch.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
// Slots that a block takes before its row gets another cluster.
constexpr int kBlockSlots = 128;
constexpr int kMostClusters = 16;  // of a row
// That rows are cut for; no Hopper GPU has more.
constexpr int kMostMultiprocessors = 144;
// Below every score, and finite: the difference of two of them is a number.
constexpr float kLowest = -1e30f;
constexpr float kLog2E = 1.4426950408889634f;

struct ClusterArgs {
  DecodeAttentionParams p;
  int32_t kv_heads;
  int32_t heads_a_kv_head;
  int32_t passes;         // groups of query heads of a KV head
  int32_t cluster;        // blocks of one
  int32_t most_clusters;  // of a row
  float4* values;         // [rows * groups][most_clusters][queries][head_dim]
  float2* statistics;     // [rows * groups][most_clusters][queries]: maximum, sum
  uint32_t* arrived;      // [rows * groups]
};

// What a block has to do, and where its row is.
struct ClusterItem {
  int pair;        // of the row and the group
  int64_t out;     // of the first query head's first element, in q and out
  int head_count;  // query heads
  int kv_head;
  int clusters;  // of the row, that have slots
  int part;      // of clusters * cluster parts
  int first;     // slots first ... end - 1 are this block's
  int end;
};

// ---- Shared memory -------------------------------------------------------------------------------

// Sums of one part, weighted by 2^(score - maximum).
template <int kQueries, int kDim>
struct Part {
  float4 values[kQueries][kDim / 4];
  float2 statistics[kQueries];  // maximum, sum of weights
};

// Four dimensions of a head as one block has them.
struct QuadPart {
  float4 values;
  float2 statistics;
};

template <int kQueries, int kDim>
struct ClusterShared {
  static constexpr int kQuads = kQueries * kDim / 4;
  Part<kQueries, kDim> warps[kWarps];
  // What the cluster's blocks have of this block's share of the quads: of its `cluster` blocks
  // [kQuads / cluster] each.
  QuadPart quads[kQuads];
};

// ---- A warp's part -------------------------------------------------------------------------------

__device__ __forceinline__ void LoadEight(const Rows& rows, int64_t at, float (&to)[8]) {
  switch (rows.dtype) {
    case DType::kBFloat16:
      return LoadFloats<__nv_bfloat16, 8>(static_cast<const __nv_bfloat16*>(rows.data) + at, to);
    case DType::kFloat16:
      return LoadFloats<__half, 8>(static_cast<const __half*>(rows.data) + at, to);
    case DType::kFloat32:
      break;
  }
  LoadFloats<float, 8>(static_cast<const float*>(rows.data) + at, to);
}

// Eight elements as they are in memory: 16-bit ones take half the registers.
template <typename Kv>
struct Eight {
  static constexpr int kPack = 16 / sizeof(Kv);
  Pack<Kv, kPack> at[8 / kPack];

  __device__ __forceinline__ void Load(const Kv* from) {
#pragma unroll
    for (int i = 0; i < 8 / kPack; ++i) at[i] = LoadPack<Kv, kPack>(from + i * kPack);
  }
  __device__ __forceinline__ float operator[](int i) const {
    return ToFloat(at[i / kPack].at[i % kPack]);
  }
};

// Of a lane: eight dimensions of each query head, and the softmax of kOwn (slot, head) pairs of a
// batch. The lanes of a slot share the batch's pairs, v = slot * kQueries + head: lane s has pairs
// s * kPairs / kLanes and on, or, where lanes are more than pairs, the one that s * kPairs / kLanes
// is in.
template <typename Kv, int kQueries, int kLanes>
struct LaneSums {
  static constexpr int kBatch = sizeof(Kv) == 4 || kQueries > 4 ? 2 : 4;  // loads that wait together
  static constexpr int kPairs = kBatch * kQueries;
  static constexpr int kOwn = kPairs > kLanes ? kPairs / kLanes : 1;

  float maximum[kOwn];  // of the pair's head, over all slots so far
  float sum[kOwn];      // of weights of the pair's place in the batches
  float values[kQueries][8];

  __device__ LaneSums() {
#pragma unroll
    for (int m = 0; m < kOwn; ++m) {
      maximum[m] = kLowest;
      sum[m] = 0;
    }
#pragma unroll
    for (int h = 0; h < kQueries; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) values[h][i] = 0;
    }
  }

  __device__ __forceinline__ static int FirstPair() {
    return static_cast<int>(threadIdx.x) % kLanes * kPairs / kLanes;
  }
  // x of pair `pair`, from the lane that has it.
  __device__ __forceinline__ static float OfPair(const float (&x)[kOwn], int pair) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp / kLanes * kLanes;
    return __shfl_sync(kAllLanes, x[pair % kOwn], lane + pair / kOwn * (kLanes * kOwn / kPairs));
  }
  // Over the pairs of a head: the lanes of the batch's other slots.
  template <typename Join>
  __device__ __forceinline__ static float OverBatch(float x, const Join& join) {
#pragma unroll
    for (int offset = kLanes / kBatch; offset < kLanes; offset *= 2) {
      x = join(x, __shfl_xor_sync(kAllLanes, x, offset));
    }
    return x;
  }

  __device__ __forceinline__ void Scale(const float (&factor)[kOwn]) {
#pragma unroll
    for (int m = 0; m < kOwn; ++m) sum[m] *= factor[m];
#pragma unroll
    for (int h = 0; h < kQueries; ++h) {
      const float of_head = OfPair(factor, h);
#pragma unroll
      for (int i = 0; i < 8; ++i) values[h][i] *= of_head;
    }
  }
};

// Sums each of kCount values over kLanes lanes by halves: a lane gives away one half of what it has
// and gets the other's part of the half it keeps. It ends with those that LaneSums says, at the
// front.
template <int kCount, int kLanes>
__device__ __forceinline__ void SumByHalves(float (&x)[kCount]) {
  int count = kCount;
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    if (count == 1) {
      x[0] += __shfl_xor_sync(kAllLanes, x[0], offset);
      continue;
    }
    count /= 2;
    const bool upper = (threadIdx.x & offset) != 0;
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      if (i >= count) break;
      const float kept = upper ? x[i + count] : x[i];
      const float given = upper ? x[i] : x[i + count];
      x[i] = kept + __shfl_xor_sync(kAllLanes, given, offset);
    }
  }
}

template <typename Kv, int kQueries, int kLanes>
__device__ __forceinline__ void AttendSlots(const KvLayer& kv, const AttentionShape& shape,
                                            const int32_t* block_table, const ClusterItem& item,
                                            const float (&q)[kQueries][8],
                                            LaneSums<Kv, kQueries, kLanes>& sums) {
  using Sums = LaneSums<Kv, kQueries, kLanes>;
  constexpr int kBatch = Sums::kBatch;
  constexpr int kOwn = Sums::kOwn;
  constexpr int kAtOnce = kWarp / kLanes;    // slots of a warp
  constexpr int kStride = kWarps * kAtOnce;  // of the block
  const int lane = threadIdx.x % kWarp;
  const Kv* const data = static_cast<const Kv*>(kv.data) + lane % kLanes * 8;
  // The same number of rounds for all lanes of a warp.
#pragma unroll 1
  for (int base = item.first + static_cast<int>(threadIdx.x) / kWarp * kAtOnce; base < item.end;
       base += kBatch * kStride) {
    const auto slot_of = [&](int j) { return base + lane / kLanes + j * kStride; };
    Eight<Kv> k[kBatch], v[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      // The last slot in place of those beyond it: their scores are not used.
      const int slot = min(slot_of(j), item.end - 1);
      const Kv* key = data + SlotOffset(kv, block_table, item.kv_head, slot);
      k[j].Load(key);
      v[j].Load(key + kv.value_offset);
    }
    float score[Sums::kPairs];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
#pragma unroll
      for (int h = 0; h < kQueries; ++h) {
        float product = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) product = fmaf(q[h][i], k[j][i], product);
        score[j * kQueries + h] = product;
      }
    }
    SumByHalves<Sums::kPairs, kLanes>(score);
    float factor[kOwn], weight[kOwn];
#pragma unroll
    for (int m = 0; m < kOwn; ++m) {
      const bool inside = slot_of((Sums::FirstPair() + m) / kQueries) < item.end;
      const float own = inside ? AdjustScore(shape, score[m]) * kLog2E : -INFINITY;
      const float highest = Sums::OverBatch(own, [](float a, float b) { return fmaxf(a, b); });
      const float maximum = fmaxf(sums.maximum[m], highest);
      factor[m] = Exp2(sums.maximum[m] - maximum);
      weight[m] = Exp2(own - maximum);
      sums.maximum[m] = maximum;
    }
    sums.Scale(factor);
#pragma unroll
    for (int m = 0; m < kOwn; ++m) sums.sum[m] += weight[m];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
#pragma unroll
      for (int h = 0; h < kQueries; ++h) {
        const float of_pair = Sums::OfPair(weight, j * kQueries + h);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          sums.values[h][i] = fmaf(of_pair, v[j][i], sums.values[h][i]);
        }
      }
    }
  }
}

// Joins what the warp's lanes have of different slots, and leaves it in shared memory.
template <typename Kv, int kQueries, int kLanes>
__device__ __forceinline__ void StoreWarp(LaneSums<Kv, kQueries, kLanes>& sums,
                                          Part<kQueries, 8 * kLanes>& part) {
  using Sums = LaneSums<Kv, kQueries, kLanes>;
  constexpr int kOwn = Sums::kOwn;
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int m = 0; m < kOwn; ++m) {
    sums.sum[m] = Sums::OverBatch(sums.sum[m], [](float a, float b) { return a + b; });
  }
#pragma unroll
  for (int offset = kLanes; offset < kWarp; offset *= 2) {
    float factor[kOwn];
#pragma unroll
    for (int m = 0; m < kOwn; ++m) {
      const float maximum =
          fmaxf(sums.maximum[m], __shfl_xor_sync(kAllLanes, sums.maximum[m], offset));
      factor[m] = Exp2(sums.maximum[m] - maximum);
      sums.maximum[m] = maximum;
    }
    sums.Scale(factor);
#pragma unroll
    for (int m = 0; m < kOwn; ++m) sums.sum[m] += __shfl_xor_sync(kAllLanes, sums.sum[m], offset);
#pragma unroll
    for (int h = 0; h < kQueries; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sums.values[h][i] += __shfl_xor_sync(kAllLanes, sums.values[h][i], offset);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < kQueries; ++h) {
    const float2 statistics = {Sums::OfPair(sums.maximum, h), Sums::OfPair(sums.sum, h)};
    if (lane == 0) part.statistics[h] = statistics;
    if (lane >= kLanes) continue;
    const float(&x)[8] = sums.values[h];
    part.values[h][2 * lane] = make_float4(x[0], x[1], x[2], x[3]);
    part.values[h][2 * lane + 1] = make_float4(x[4], x[5], x[6], x[7]);
  }
}

// A warp's part of the block's slots.
template <typename Kv, int kQueries, int kLanes>
__device__ __forceinline__ void AttendWarp(const KvLayer& kv, const AttentionShape& shape,
                                           const int32_t* block_table, const ClusterItem& item,
                                           const float (&q)[kQueries][8],
                                           Part<kQueries, 8 * kLanes>& part) {
  LaneSums<Kv, kQueries, kLanes> sums;
  AttendSlots(kv, shape, block_table, item, q, sums);
  StoreWarp(sums, part);
}

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
__device__ __forceinline__ void StoreOut(const ClusterArgs& args, const ClusterItem& item, int head,
                                         int quad, const float4& total, float sum) {
  if (head >= item.head_count) return;
  const float x[4] = {total.x / sum, total.y / sum, total.z / sum, total.w / sum};
  StoreFour(args.p.out, item.out + head * kDim, 4 * quad, kDim, x);
}

// The row's clusters, by the last of their blocks.
template <int kQueries, int kDim>
__device__ void MergeClusters(const ClusterArgs& args, const ClusterItem& item) {
  constexpr int kQuads = kDim / 4;
  const int64_t first = int64_t{item.pair} * args.most_clusters * kQueries;
  for (int i = threadIdx.x; i < item.head_count * kQuads; i += kThreads) {
    const int head = i / kQuads;
    const int quad = i % kQuads;
    float2 merged;
    const float4 total = MergeParts<kMostClusters>(
        item.clusters,
        [&](int c) { return args.statistics[first + c * kQueries + head]; },
        [&](int c) { return args.values[(first + c * kQueries + head) * kQuads + quad]; }, merged);
    StoreOut<kDim>(args, item, head, quad, total, merged.y);
  }
}

// This block's share of the cluster's dimensions, over all its blocks: to `out`, or, where the row
// has more clusters, to scratch.
template <int kQueries, int kDim>
__device__ __forceinline__ void MergeBlocks(const ClusterArgs& args, const ClusterItem& item,
                                            const ClusterShared<kQueries, kDim>& shared) {
  constexpr int kQuads = kDim / 4;
  const int share = kQueries * kQuads / args.cluster;
  const int rank = item.part % args.cluster;
  for (int i = threadIdx.x; i < share; i += kThreads) {
    const int head = (rank * share + i) / kQuads;
    const int quad = (rank * share + i) % kQuads;
    float2 merged;
    const float4 total = MergeParts<kMostCluster>(
        args.cluster, [&](int r) { return shared.quads[r * share + i].statistics; },
        [&](int r) { return shared.quads[r * share + i].values; }, merged);
    if (item.clusters == 1) {
      StoreOut<kDim>(args, item, head, quad, total, merged.y);
      continue;
    }
    const int cluster = item.part / args.cluster;
    const int64_t at = (int64_t{item.pair} * args.most_clusters + cluster) * kQueries + head;
    args.values[at * kQuads + quad] = total;
    if (quad == 0) args.statistics[at] = merged;
  }
}

// ---- The kernel ----------------------------------------------------------------------------------

// After the wait. A block without slots has first >= end.
template <int kQueries, int kDim>
__device__ __forceinline__ ClusterItem ItemOf(const ClusterArgs& args, const AttentionShape& shape,
                                              int position) {
  ClusterItem item;
  const int groups = args.kv_heads * args.passes;
  const int group = blockIdx.y;
  const int row = blockIdx.z;
  const int pass_head = group % args.passes * kQueries;
  item.kv_head = group / args.passes;
  item.pair = row * groups + group;
  item.head_count = min(kQueries, args.heads_a_kv_head - pass_head);
  const int first_head = item.kv_head * args.heads_a_kv_head + pass_head;
  item.out = int64_t{row} * args.p.out.width + int64_t{first_head} * kDim;
  const int first_slot = FirstSlot(shape, position);
  const int slots = position - first_slot + 1;
  const int cluster_slots = args.cluster * kBlockSlots;
  item.clusters = min((slots + cluster_slots - 1) / cluster_slots, args.most_clusters);
  const int parts = item.clusters * args.cluster;
  const int size = (slots + parts - 1) / parts;
  item.part = blockIdx.x;
  item.first = first_slot + item.part * size;
  item.end = item.part < parts ? min(item.first + size, position + 1) : item.first;
  return item;
}

template <int kQueries, int kLanes>
__global__ void __launch_bounds__(kThreads, kQueries > 4 ? 1 : 2)
    ClusterAttentionKernel(const __grid_constant__ ClusterArgs args) {
  constexpr int kDim = 8 * kLanes;
  constexpr int kQuads = kDim / 4;
  using Shared = ClusterShared<kQueries, kDim>;
  Shared& shared = *reinterpret_cast<Shared*>(DynamicShared());
  const bool tabled = args.p.layer.table != nullptr;
  const LayerParams* const layer = tabled ? &LayerOf(args.p.layer) : nullptr;
  const AttentionShape shape = tabled ? layer->attention : args.p.shape;
  const KvLayer kv = tabled ? layer->kv : args.p.kv;
  ArriveCluster();  // all blocks have begun when its second part is over
  WaitForDependency();
  LaunchDependents();

  const int row = blockIdx.z;
  const int position = args.p.map.position[row];
  const int32_t* const block_table = args.p.lanes.BlockTable(args.p.map.lane[row], kv.group);
  const ClusterItem item = ItemOf<kQueries, kDim>(args, shape, position);
  // All blocks of a cluster or none.
  if (item.part >= item.clusters * args.cluster) return;
  float q[kQueries][8];
#pragma unroll
  for (int h = 0; h < kQueries; ++h) {
    const int head = min(h, item.head_count - 1);
    LoadEight(args.p.q, item.out + head * kDim + threadIdx.x % kLanes * 8, q[h]);
  }
  Part<kQueries, kDim>& part = shared.warps[threadIdx.x / kWarp];
  switch (kv.dtype) {
    case DType::kBFloat16:
      AttendWarp<__nv_bfloat16, kQueries, kLanes>(kv, shape, block_table, item, q, part);
      break;
    case DType::kFloat16:
      AttendWarp<__half, kQueries, kLanes>(kv, shape, block_table, item, q, part);
      break;
    default:
      AttendWarp<float, kQueries, kLanes>(kv, shape, block_table, item, q, part);
  }
  __syncthreads();

  const bool alone = args.cluster == 1 && item.clusters == 1;
  WaitCluster();
  for (int i = threadIdx.x; i < kQueries * kQuads; i += kThreads) {
    const int head = i / kQuads;
    const int quad = i % kQuads;
    float2 merged;
    const float4 total = MergeParts<kWarps>(
        kWarps, [&](int w) { return shared.warps[w].statistics[head]; },
        [&](int w) { return shared.warps[w].values[head][quad]; }, merged);
    if (alone) {
      StoreOut<kDim>(args, item, head, quad, total, merged.y);
      continue;
    }
    // To the block of the cluster whose share it is.
    const int share = kQueries * kQuads / args.cluster;
    QuadPart* const own = &shared.quads[item.part % args.cluster * share + i % share];
    *SharedOfBlock(own, i / share) = {total, merged};
  }
  if (alone) return;
  ArriveCluster();
  WaitCluster();
  MergeBlocks<kQueries, kDim>(args, item, shared);
  if (item.clusters == 1) return;
  if (LastToArrive(&args.arrived[item.pair],
                   static_cast<uint32_t>(item.clusters * args.cluster))) {
    MergeClusters<kQueries, kDim>(args, item);
  }
}

// ---- On the host -------------------------------------------------------------------------------

struct ClusterLayout {
  int head_dim;
  int queries;  // of a block
  ClusterArgs args;
};

ClusterLayout LayoutOf(const DecodeAttentionParams& p, int multiprocessors) {
  const AttentionHeads heads = HeadsOf(p);
  ClusterLayout layout = {};
  layout.head_dim = heads.head_dim;
  layout.queries = heads.heads_a_kv_head <= 1   ? 1
                   : heads.heads_a_kv_head <= 2 ? 2
                   : heads.heads_a_kv_head <= 4 ? 4
                                                : 8;
  ClusterArgs& args = layout.args;
  args.p = p;
  args.kv_heads = heads.kv_heads;
  args.heads_a_kv_head = heads.heads_a_kv_head;
  args.passes = static_cast<int32_t>(CeilDiv(heads.heads_a_kv_head, layout.queries));
  // About two blocks a multiprocessor.
  const int64_t pairs = int64_t{p.rows} * args.kv_heads * args.passes;
  const int64_t blocks = std::max<int64_t>(1, 2 * multiprocessors / pairs);
  args.cluster = 1;
  while (args.cluster < kMostCluster && 2 * args.cluster <= blocks) args.cluster *= 2;
  const int64_t useful = CeilDiv(p.lanes.max_length, int64_t{args.cluster} * kBlockSlots);
  args.most_clusters =
      static_cast<int32_t>(std::min({blocks / args.cluster, useful, int64_t{kMostClusters}}));
  return layout;
}

bool Takes(const ClusterLayout& layout) {
  const ClusterArgs& args = layout.args;
  const bool dim = layout.head_dim == 64 || layout.head_dim == 128 || layout.head_dim == 256;
  return dim && int64_t{args.p.rows} * args.kv_heads * args.passes <= kCounters &&
         args.p.rows <= 65535 && args.kv_heads * args.passes <= 65535 &&
         // A layer's table cannot be asked: there all slots are wide (engine's KV layout).
         (args.p.layer.table != nullptr || SlotsAreWide(args.p.kv)) && IsAligned(args.p.q.data, 16);
}

template <int kQueries, int kLanes>
cudaError_t Launch(const ClusterArgs& args, const LaunchContext& context) {
  constexpr size_t kShared = sizeof(ClusterShared<kQueries, 8 * kLanes>);
  const auto kernel = ClusterAttentionKernel<kQueries, kLanes>;
  if (const cudaError_t error = AllowShared(kernel, kShared); error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(args.cluster * args.most_clusters),
                  static_cast<unsigned>(args.kv_heads * args.passes),
                  static_cast<unsigned>(args.p.rows));
  return LaunchClusters(kernel, grid, dim3(kThreads), static_cast<unsigned>(args.cluster), kShared,
                        context, args);
}

template <int kQueries>
cudaError_t Launch(const ClusterLayout& layout, const LaunchContext& context) {
  switch (layout.head_dim) {
    case 64:
      return Launch<kQueries, 8>(layout.args, context);
    case 128:
      return Launch<kQueries, 16>(layout.args, context);
    default:
      return Launch<kQueries, 32>(layout.args, context);
  }
}

}  // namespace

size_t ClusterAttentionScratch(const DecodeAttentionParams& p) {
  const AttentionHeads heads = HeadsOf(p);
  if (heads.head_dim > 256) return 0;
  // Where several clusters share a row, there are no more of them than fit: of all rows together.
  constexpr int64_t kMostBlocks = 2 * kMostMultiprocessors;
  constexpr int64_t kMostQueries = 8;
  return static_cast<size_t>(kMostBlocks * kMostQueries * (heads.head_dim * sizeof(float) +
                                                           sizeof(float2)));
}

cudaError_t LaunchClusterAttention(const DecodeAttentionParams& p, const LaunchContext& context) {
  ClusterLayout layout = LayoutOf(p, std::min(context.multiprocessors, kMostMultiprocessors));
  if (!Takes(layout)) return cudaErrorNotSupported;
  const int64_t pairs = int64_t{p.rows} * layout.args.kv_heads * layout.args.passes;
  const int64_t heads = pairs * layout.args.most_clusters * layout.queries;
  layout.args.values = static_cast<float4*>(context.scratch);
  layout.args.statistics =
      reinterpret_cast<float2*>(layout.args.values + heads * (layout.head_dim / 4));
  layout.args.arrived = context.counters;
  switch (layout.queries) {
    case 1:
      return Launch<1>(layout, context);
    case 2:
      return Launch<2>(layout, context);
    case 4:
      return Launch<4>(layout, context);
    default:
      return Launch<8>(layout, context);
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
