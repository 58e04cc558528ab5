// Attention of a decode step: split-KV in one launch. Where thread blocks form clusters,
// cluster_attention.cu takes most shapes instead.
//
// Work is cut into items of (row, split, KV head); a split is 256 slots, or fewer where rows are
// few (decode_plan.h). Their number is only known on the device: every thread block counts the
// rows' splits for itself and takes items round robin, so one fixed grid (what the GPU holds at
// once, or fewer) serves any lengths. A row of several splits leaves partials (maximum, sum,
// weighted values) in scratch, and the last thread block to arrive merges them in the splits'
// order; a row of one split is written at once. Each split is computed and merged the same way
// whatever else runs.
//
// Bytes: each key and value once, q and out once; partials of rows of several splits, written and
// read once, (head_dim + 2) float32 a head and split: 1.6% of the KV where splits are 256 slots at
// head_dim 128, four heads a KV head, 16 bits; where they are 32, eight times that.
// Grid: at most 3 blocks of 256 threads a multiprocessor. Shared memory: 54 KiB for tiles, 9 KiB
// for rows and slots, and 1,024 + 4 * head_dim bytes a query head of the block.
//
// Assumes: head_dim 1 ... 1,024; positions below lanes.max_length. Copies are wide where head_dim
// is a multiple of 8. Up to 512 rows (65,536 pairs of a row and a KV head) are one launch.

#include <algorithm>

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/attend_split.cuh"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ordered.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// Rows of one launch: every thread block has them in shared memory.
constexpr int kLaunchRows = 512;

// The queries of a thread block are query heads of one row and KV head.
struct DecodeLayout : SplitLayout {
  int32_t kv_heads;
  int32_t heads_a_kv_head;
  int32_t passes;       // thread blocks that a KV head's query heads need
  int32_t fine_splits;  // decode_plan.h
  int32_t max_splits;   // of a row
};

struct DecodeArgs {
  DecodeRows p;
  DecodeLayout layout;
  int32_t first_row;  // of the launch's
  int32_t rows;
  float* values;       // [rows][kv_heads * passes][max_splits][layout.queries][8 * chunks]
  float2* statistics;  // [rows][kv_heads * passes][max_splits][layout.queries]: maximum, sum
  uint32_t* arrived;   // [rows][kv_heads * passes]
};

// What a thread block works on: in shared memory, since registers are for sums.
struct DecodeItem {
  int64_t out;         // of the first head's first element, in `out`
  int32_t row;         // of the step
  int32_t launch_row;  // of the launch
  int32_t group;       // of query heads: kv_head * passes + pass
  int32_t first_head;
  int32_t head_count;
  int32_t split;   // of those that the row sees
  int32_t splits;  // that the row sees
};

struct DecodeFixed : SplitFixed {
  DecodeItem item;
  int32_t warp_splits[kSplitThreads / kWarp];
  int32_t lane[kLaunchRows];
  int32_t position[kLaunchRows];
  int32_t first_item[kLaunchRows + 1];  // splits of the rows before; of all rows
};
using DecodeShared = SplitShared<DecodeFixed>;

// ---- On the device -----------------------------------------------------------------------------

// first_item[r] = splits of the rows before r; [rows]: of all.
__device__ void CountSplits(const DecodeArgs& args, const DecodeShared& shared) {
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  int before = 0;
  for (int first = 0; first < args.rows; first += kSplitThreads) {
    const int row = first + static_cast<int>(threadIdx.x);
    int splits = 0;
    if (row < args.rows) {
      const int position = args.p.map.position[args.first_row + row];
      shared.fixed->position[row] = position;
      shared.fixed->lane[row] = args.p.map.lane[args.first_row + row];
      const int first_slot = FirstSlot(shared.fixed->shape, position);
      const int bits = SplitBitsOf(first_slot, position, args.layout.fine_splits);
      splits = (position >> bits) - (first_slot >> bits) + 1;
    }
    int sum = WarpPrefixSum(splits);
    if (lane == kWarp - 1) shared.fixed->warp_splits[warp] = sum;
    __syncthreads();
    int all = 0;
    for (int w = 0; w < kSplitThreads / kWarp; ++w) {
      if (w == warp) sum += all;
      all += shared.fixed->warp_splits[w];
    }
    if (row < args.rows) shared.fixed->first_item[row] = before + sum - splits;
    before += all;
    __syncthreads();
  }
  if (threadIdx.x == 0) shared.fixed->first_item[args.rows] = before;
  __syncthreads();
}

// The row whose splits `item` is among.
__device__ __forceinline__ int RowOf(const int32_t* first_item, int rows, int item) {
  int low = 0;
  int high = rows;  // first_item[low] <= item < first_item[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (item < first_item[middle] ? high : low) = middle;
  }
  return low;
}

// By one thread: what item `i` is.
__device__ void FindItem(const DecodeArgs& args, const DecodeShared& shared, int i) {
  const DecodeLayout& layout = args.layout;
  DecodeItem& item = shared.fixed->item;
  const int groups = layout.kv_heads * layout.passes;
  const int row_split = i / groups;
  item.group = i - row_split * groups;
  item.launch_row = RowOf(shared.fixed->first_item, args.rows, row_split);
  item.row = args.first_row + item.launch_row;
  item.split = row_split - shared.fixed->first_item[item.launch_row];
  item.splits =
      shared.fixed->first_item[item.launch_row + 1] - shared.fixed->first_item[item.launch_row];
  const int position = shared.fixed->position[item.launch_row];
  const int first_slot = FirstSlot(shared.fixed->shape, position);
  const int bits = SplitBitsOf(first_slot, position, layout.fine_splits);
  const int split = (first_slot >> bits) + item.split;
  const int first = max(split << bits, first_slot);
  shared.fixed->first = first;
  shared.fixed->count = min(((split + 1) << bits) - 1, position) - first + 1;
  const int pass_head = item.group % layout.passes * layout.queries;
  item.head_count = min(layout.queries, layout.heads_a_kv_head - pass_head);
  item.first_head = item.group / layout.passes * layout.heads_a_kv_head + pass_head;
  item.out = int64_t{item.row} * args.p.out.width + int64_t{item.first_head} * layout.head_dim;
}

// Turns the products of all slots into weights exp(score - maximum); a warp a head.
__device__ void SoftmaxSplit(const SplitLayout& layout, const DecodeShared& shared) {
  const DecodeFixed& fixed = *shared.fixed;
  const int lane = threadIdx.x % kWarp;
  for (int head = threadIdx.x / kWarp; head < layout.queries; head += kSplitThreads / kWarp) {
    float maximum = -INFINITY;
    for (int slot = lane; slot < fixed.count; slot += kWarp) {
      float* at = shared.weight + slot * layout.queries + head;
      *at = AdjustScore(fixed.shape, *at);
      maximum = fmaxf(maximum, *at);
    }
    maximum = WarpMax(maximum);
    float sum = 0;
    for (int slot = lane; slot < fixed.count; slot += kWarp) {
      float* at = shared.weight + slot * layout.queries + head;
      *at = expf(*at - maximum);
      sum += *at;
    }
    sum = WarpSum(sum);
    if (lane == 0) {
      shared.fixed->maximum[head] = maximum;
      shared.fixed->sum[head] = sum;
    }
  }
}

// Four dimensions of a head of the item: values / sum.
__device__ __forceinline__ void StoreHead(const DecodeArgs& args, const DecodeItem& item, int head,
                                          int dim, const float4& values, float sum) {
  const float x[4] = {values.x / sum, values.y / sum, values.z / sum, values.w / sum};
  const int head_dim = args.layout.head_dim;
  StoreFour(args.p.out, item.out + int64_t{head} * head_dim, dim, head_dim, x);
}

// Merges the partials of a (row, heads) in the splits' order (Dao et al., 2023) and writes `out`.
__device__ void MergeSplits(const DecodeArgs& args, const DecodeShared& shared, int64_t pair) {
  const DecodeLayout& layout = args.layout;
  const DecodeItem& item = shared.fixed->item;
  const int splits = item.splits;
  const float2* statistics = args.statistics + pair * layout.max_splits * layout.queries;
  const int lane = threadIdx.x % kWarp;
  for (int head = threadIdx.x / kWarp; head < item.head_count; head += kSplitThreads / kWarp) {
    float maximum = -INFINITY;
    for (int split = lane; split < splits; split += kWarp) {
      maximum = fmaxf(maximum, statistics[split * layout.queries + head].x);
    }
    maximum = WarpMax(maximum);
    float sum = 0;
    for (int split = lane; split < splits; split += kWarp) {
      const float2 of_split = statistics[split * layout.queries + head];
      sum += of_split.y * expf(of_split.x - maximum);
    }
    sum = WarpSum(sum);
    if (lane == 0) {
      shared.fixed->maximum[head] = maximum;
      shared.fixed->sum[head] = sum;
    }
  }
  __syncthreads();
  const int quads = layout.chunks * 2;  // of four dimensions
  const float4* values = reinterpret_cast<const float4*>(args.values) +
                         pair * layout.max_splits * layout.queries * quads;
  for (int i = threadIdx.x; i < item.head_count * quads; i += kSplitThreads) {
    const int head = i / quads;
    const int dim = (i - head * quads) * 4;
    const float maximum = shared.fixed->maximum[head];
    const float2* of_split = statistics + head;
    const float4* from = values + i;
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (int split = 0; split < splits; ++split) {
      const float factor = expf(of_split->x - maximum);
      const float4 value = *from;
      of_split += layout.queries;
      from += layout.queries * quads;
      total.x = fmaf(factor, value.x, total.x);
      total.y = fmaf(factor, value.y, total.y);
      total.z = fmaf(factor, value.z, total.z);
      total.w = fmaf(factor, value.w, total.w);
    }
    StoreHead(args, item, head, dim, total, shared.fixed->sum[head]);
  }
}

// The result of a row's only split.
template <int kQueries>
__device__ void WriteOut(const DecodeArgs& args, const DecodeShared& shared,
                         const ValueShare& share, const float (&total)[kQueries][8]) {
  ShareTotals(args.layout, shared, share, total);
  __syncthreads();
  const DecodeItem& item = shared.fixed->item;
  const int quads = args.layout.chunks * 2;
  for (int i = threadIdx.x; i < item.head_count * quads; i += kSplitThreads) {
    const int head = i / quads;
    StoreHead(args, item, head, (i - head * quads) * 4, shared.q[i], shared.fixed->sum[head]);
  }
}

// The partial of one split of several.
template <int kQueries>
__device__ void WritePartial(const DecodeArgs& args, const DecodeShared& shared,
                             const ValueShare& share, int64_t pair,
                             const float (&total)[kQueries][8]) {
  const DecodeLayout& layout = args.layout;
  const int64_t first_head = (pair * layout.max_splits + shared.fixed->item.split) * layout.queries;
  if (threadIdx.x < layout.queries) {
    args.statistics[first_head + threadIdx.x] =
        make_float2(shared.fixed->maximum[threadIdx.x], shared.fixed->sum[threadIdx.x]);
  }
  if (share.group != 0) return;
#pragma unroll
  for (int h = 0; h < kQueries; ++h) {
    float* to = args.values + ((first_head + share.query + h) * layout.chunks + share.chunk) * 8;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* x = &total[h][4 * half];
      *reinterpret_cast<float4*>(to + 4 * half) = make_float4(x[0], x[1], x[2], x[3]);
    }
  }
}

// Blocks a multiprocessor, as registers allow.
template <int kQueries>
constexpr int kResidentBlocks = kQueries > 4 ? 2 : 3;

// kScaled: the KV is float8.
template <int kQueries, bool kScaled>
__global__ void __launch_bounds__(kSplitThreads, kResidentBlocks<kQueries>)
    DecodeAttentionKernel(const __grid_constant__ DecodeArgs args) {
  const DecodeLayout& layout = args.layout;
  const DecodeShared shared(DynamicShared(), layout);
  if (threadIdx.x == 0) {
    shared.fixed->shape = args.p.shape;
    shared.fixed->kv = args.p.kv;
    if (args.p.layer.table != nullptr) {
      const LayerParams& layer = LayerOf(args.p.layer);
      shared.fixed->shape = layer.attention;
      shared.fixed->kv = layer.kv;
    }
  }
  __syncthreads();
  WaitForDependency();
  LaunchDependents();
  CountSplits(args, shared);
  const int groups = layout.kv_heads * layout.passes;
  const int items = shared.fixed->first_item[args.rows] * groups;
  const ValueShare share = MakeValueShare(layout, kQueries);
  for (int i = blockIdx.x; i < items; i += gridDim.x) {
    if (threadIdx.x == 0) FindItem(args, shared, i);
    __syncthreads();
    const DecodeItem& item = shared.fixed->item;
    FindSlots<kScaled>(
        shared,
        args.p.lanes.BlockTable(shared.fixed->lane[item.launch_row], shared.fixed->kv.group),
        item.group / layout.passes);
    LoadQueries(layout, shared, args.p.q, [&](int head) {
      return head < item.head_count ? int64_t{item.row} * args.p.q.width +
                                          int64_t{item.first_head + head} * layout.head_dim
                                    : int64_t{-1};
    });
    __syncthreads();
    float total[kQueries][8] = {};
    AttendSlots<kQueries, kScaled>(layout, shared, share, total,
                                   [&] { SoftmaxSplit(layout, shared); });
    SumGroups<kQueries>(share, reinterpret_cast<float4*>(shared.fixed->ring), total);
    if (item.splits == 1) {
      WriteOut<kQueries>(args, shared, share, total);
    } else {
      const int64_t pair = int64_t{item.launch_row} * groups + item.group;
      WritePartial<kQueries>(args, shared, share, pair, total);
      if (LastToArrive(args.arrived + pair, item.splits)) MergeSplits(args, shared, pair);
    }
    __syncthreads();  // shared memory is free for the next item
  }
}

// ---- On the host -------------------------------------------------------------------------------

// Shared memory that blocks of a multiprocessor can have: of sm_90, and of sm_80. sm_86 and sm_89
// have 100 KiB, so that some of the grid's blocks begin there only when others have ended.
constexpr int64_t kMultiprocessorShared = (SIROCCO_HOPPER ? 227 : 163) * 1024;

// Query heads that a thread holds sums of. Eight of the largest ones would not fit into a block's
// shared memory.
int HeadsAThread(const DecodeLayout& layout) {
  if (layout.heads_a_kv_head <= 2) return layout.heads_a_kv_head;
  return layout.heads_a_kv_head <= 4 || layout.chunks > kSplitThreads / 4 ? 4 : 8;
}

// `ordered`: splits are of 256 slots, whatever the rows.
DecodeLayout LayoutOf(const DecodeRows& p, bool ordered) {
  DecodeLayout layout;
  const AttentionHeads heads = HeadsOf(p);
  layout.head_dim = heads.head_dim;
  layout.kv_heads = heads.kv_heads;
  layout.heads_a_kv_head = heads.heads_a_kv_head;
  layout.chunks = static_cast<int32_t>(CeilDiv(layout.head_dim, 8));
  // As many heads a block as its threads and shared memory allow.
  const int step = HeadsAThread(layout);
  const int most = step * std::max(1, kSplitThreads / layout.chunks);
  layout.queries = static_cast<int32_t>(CeilDiv(layout.heads_a_kv_head, step)) * step;
  layout.queries = std::min({layout.queries, most, kMaxSplitQueries});
  while (layout.queries > step && DecodeShared::Bytes(layout) > kMaxBlockShared)
    layout.queries -= step;
  layout.passes = static_cast<int32_t>(CeilDiv(layout.heads_a_kv_head, layout.queries));
  layout.fine_splits =
      ordered ? 1 : FineSplitsFor(int64_t{p.rows} * layout.kv_heads * layout.passes);
  layout.max_splits = MostSplits(p.lanes.max_length, layout.fine_splits);
  return layout;
}

// Rows of one launch: as many as can be counted in shared memory and have counters.
int RowsALaunch(const DecodeRows& p, const DecodeLayout& layout) {
  return std::min(
      {p.rows, kLaunchRows, std::max(1, kCounters / (layout.kv_heads * layout.passes))});
}

int64_t PairsOf(const DecodeLayout& layout, int rows) {
  return int64_t{rows} * layout.kv_heads * layout.passes;
}

size_t SplitsScratch(const DecodeRows& p, bool ordered) {
  const DecodeLayout layout = LayoutOf(p, ordered);
  const int64_t pairs = PairsOf(layout, RowsALaunch(p, layout));
  const int64_t partials = MostSplitsOfAll(pairs, p.lanes.max_length) * layout.queries;
  return static_cast<size_t>(partials) * (layout.chunks * 8 * sizeof(float) + sizeof(float2));
}

template <bool kScaled>
cudaError_t LaunchSplits(const DecodeRows& p, bool ordered, const LaunchContext& context) {
  DecodeArgs args;
  args.p = p;
  args.layout = LayoutOf(p, ordered);
  const DecodeLayout& layout = args.layout;
  if (layout.head_dim > kMaxSplitHeadDim) return cudaErrorNotSupported;
  const int rows_a_launch = RowsALaunch(p, layout);
  const int64_t partials = PairsOf(layout, rows_a_launch) * layout.max_splits * layout.queries;
  args.values = static_cast<float*>(context.scratch);
  args.statistics = reinterpret_cast<float2*>(args.values + partials * layout.chunks * 8);
  args.arrived = context.counters;
  const int64_t shared_bytes = DecodeShared::Bytes(layout);
  const auto launch = [&](void (*kernel)(DecodeArgs), int resident_blocks) {
    // About as many as are resident at once, by registers and by shared memory.
    const int64_t blocks =
        std::clamp<int64_t>(kMultiprocessorShared / (shared_bytes + 1024), 1, resident_blocks);
    cudaError_t error = AllowShared(kernel, shared_bytes);
    for (int row = 0; row < p.rows && error == cudaSuccess; row += rows_a_launch) {
      args.first_row = row;
      args.rows = std::min(rows_a_launch, p.rows - row);
      const int64_t items = PairsOf(layout, args.rows) * layout.max_splits;
      const auto grid = static_cast<unsigned>(std::min(items, blocks * context.multiprocessors));
      error = LaunchKernel(kernel, dim3(grid), dim3(kSplitThreads),
                           static_cast<size_t>(shared_bytes), context, args);
    }
    return error;
  };
  switch (HeadsAThread(layout)) {
    case 1:
      return launch(DecodeAttentionKernel<1, kScaled>, kResidentBlocks<1>);
    case 2:
      return launch(DecodeAttentionKernel<2, kScaled>, kResidentBlocks<2>);
    case 4:
      return launch(DecodeAttentionKernel<4, kScaled>, kResidentBlocks<4>);
    default:
      return launch(DecodeAttentionKernel<8, kScaled>, kResidentBlocks<8>);
  }
}
cudaError_t LaunchSplits(const DecodeRows& p, bool ordered, const LaunchContext& context) {
  return KvTypeOf(p) == DType::kFloat8 ? LaunchSplits<true>(p, ordered, context)
                                       : LaunchSplits<false>(p, ordered, context);
}

DecodeRows RowsOf(const DecodeAttentionParams& p) {
  return {p.rows, p.map, p.lanes, p.q, p.shape, p.kv, LayerRef(), Rows(), p.out};
}

DecodeRows RowsOf(const QkvAttentionParams& p) {
  return {p.rows, p.map, p.lanes, p.q, AttentionShape(), KvLayer(), p.layer, p.qkv, p.out};
}

QkvEndParams EndOf(const QkvAttentionParams& p) {
  return {.rows = p.rows, .map = p.map, .lanes = p.lanes, .layer = p.layer, .qkv = p.qkv, .q = p.q};
}

size_t ScratchOf(const DecodeRows& p) {
  return ClusterAttentionTakes(p) ? ClusterAttentionScratch(p) : SplitsScratch(p, false);
}

size_t OrderedScratchOf(const DecodeRows& p) {
  return OrderedAttentionTakes(p) ? OrderedAttentionScratch(p) : SplitsScratch(p, true);
}

}  // namespace

size_t DecodeAttentionScratch(const DecodeAttentionParams& p) { return ScratchOf(RowsOf(p)); }
size_t QkvAttentionScratch(const QkvAttentionParams& p) { return ScratchOf(RowsOf(p)); }

cudaError_t LaunchDecodeAttention(const DecodeAttentionParams& p, const LaunchContext& context) {
  const DecodeRows rows = RowsOf(p);
  return ClusterAttentionTakes(rows) ? LaunchClusterAttention(rows, context)
                                     : LaunchSplits(rows, false, context);
}

cudaError_t LaunchQkvAttention(const QkvAttentionParams& p, const LaunchContext& context) {
  const DecodeRows rows = RowsOf(p);
  if (ClusterAttentionTakes(rows)) return LaunchClusterAttention(rows, context);
  const cudaError_t error = LaunchQkvEnd(EndOf(p), context);
  return error != cudaSuccess ? error : LaunchSplits(rows, false, context);
}

size_t OrderedDecodeAttentionScratch(const DecodeAttentionParams& p) {
  return OrderedScratchOf(RowsOf(p));
}
size_t OrderedQkvAttentionScratch(const QkvAttentionParams& p) {
  return OrderedScratchOf(RowsOf(p));
}

cudaError_t LaunchOrderedDecodeAttention(const DecodeAttentionParams& p,
                                         const LaunchContext& context) {
  const DecodeRows rows = RowsOf(p);
  return OrderedAttentionTakes(rows) ? LaunchOrderedAttention(rows, context)
                                     : LaunchSplits(rows, true, context);
}

cudaError_t LaunchOrderedQkvAttention(const QkvAttentionParams& p, const LaunchContext& context) {
  const DecodeRows rows = RowsOf(p);
  if (OrderedAttentionTakes(rows)) return LaunchOrderedAttention(rows, context);
  const cudaError_t error = LaunchOrderedQkvEnd(EndOf(p), context);
  return error != cudaSuccess ? error : LaunchSplits(rows, true, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
