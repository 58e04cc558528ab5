// Prefill attention without matrix units, for every type and shape.
//
// A block takes some rows of one segment and the query heads of one KV head, up to 32 queries
// together, and walks over the slots that any of them sees, 256 at a time, with an online softmax
// (Milakov and Gimelshein, 2018) of float32.
//
// Bytes: q and out once; keys and values once for each block's rows. Grid: (tiles of rows, KV heads
// times passes over their query heads), 256 threads. Shared memory: 57 KiB, and 1,024 + 4 *
// head_dim bytes a query.
#pragma once

#include "kernels/cuda/attend_split.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill_rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Query i is of row i / heads and head i % heads of the block's.
struct PlainLayout : SplitLayout {
  int32_t rows;    // a block takes
  int32_t heads;   // a block takes
  int32_t passes;  // blocks that a KV head's query heads need
};

struct PlainArgs {
  PrefillAttentionParams p;
  PlainLayout layout;
};

struct PlainFixed : SplitFixed {
  float factor[kMaxSplitQueries];  // what a query's sums so far are scaled by
};
using PlainShared = SplitShared<PlainFixed>;

// Turns the products of the slots at hand into weights of the maximum so far; a warp a query.
__device__ inline void SoftmaxSlots(const PlainLayout& layout, const PlainShared& shared,
                                    int first_position) {
  PlainFixed& fixed = *shared.fixed;
  const int lane = threadIdx.x % kWarp;
  for (int query = threadIdx.x / kWarp; query < layout.queries; query += kSplitThreads / kWarp) {
    const int position = first_position + query / layout.heads;
    // Of the slots at hand, those that the row sees.
    const int begin = max(0, FirstSlot(fixed.shape, position) - fixed.first);
    const int end = min(fixed.count, position - fixed.first + 1);
    float* weight = shared.weight + query;
    const float before = fixed.maximum[query];
    float maximum = before;
    for (int slot = begin + lane; slot < end; slot += kWarp) {
      const float score = AdjustScore(fixed.shape, weight[slot * layout.queries]);
      weight[slot * layout.queries] = score;
      maximum = fmaxf(maximum, score);
    }
    maximum = WarpMax(maximum);
    // A row that has seen no slot yet keeps weights of zero.
    const float shift = maximum == -INFINITY ? 0.0f : maximum;
    __syncwarp();
    float sum = 0;
    for (int slot = lane; slot < fixed.count; slot += kWarp) {
      float* at = weight + slot * layout.queries;
      *at = slot >= begin && slot < end ? expf(*at - shift) : 0.0f;
      sum += *at;
    }
    sum = WarpSum(sum);
    if (lane == 0) {
      const float factor = expf(before - shift);
      fixed.factor[query] = factor;
      fixed.maximum[query] = maximum;
      fixed.sum[query] = fixed.sum[query] * factor + sum;
    }
  }
}

// kScaled: the KV is float8.
template <int kQueries, bool kScaled>
__global__ void __launch_bounds__(kSplitThreads, 2)
    PrefillPlainKernel(const __grid_constant__ PlainArgs args) {
  const PrefillAttentionParams& p = args.p;
  const PlainLayout& layout = args.layout;
  const PlainShared shared(DynamicShared(), layout);
  PlainFixed& fixed = *shared.fixed;
  WaitForDependency();
  LaunchDependents();
  const RowTile rows = FindRowTile(p, layout.rows, gridDim.x - 1 - blockIdx.x);
  if (rows.count == 0) return;
  const int thread = threadIdx.x;
  const int heads_a_kv_head = p.shape.heads / p.kv.kv_heads;
  const int kv_head = blockIdx.y / layout.passes;
  const int pass_head = blockIdx.y % layout.passes * layout.heads;
  const int head_count = min(layout.heads, heads_a_kv_head - pass_head);
  const int first_head = kv_head * heads_a_kv_head + pass_head;
  // Where a query's head begins in rows of `width` elements; -1: there is no such query.
  const auto start = [&](int query, int width) {
    const int row = query / layout.heads;
    const int head = query - row * layout.heads;
    return row < rows.count && head < head_count ? int64_t{rows.first_row + row} * width +
                                                       int64_t{first_head + head} * layout.head_dim
                                                 : int64_t{-1};
  };
  if (thread == 0) {
    fixed.shape = p.shape;
    fixed.kv = p.kv;
  }
  if (thread < layout.queries) {
    fixed.maximum[thread] = -INFINITY;
    fixed.sum[thread] = 0;
  }
  LoadQueries(layout, shared, p.q, [&](int query) { return start(query, p.q.width); });
  const int32_t* block_table = p.lanes.BlockTable(rows.lane, p.kv.group);
  const ValueShare share = MakeValueShare(layout, kQueries);
  float total[kQueries][8] = {};
  const int last = rows.first_position + rows.count - 1;
  for (int first = FirstSlot(p.shape, rows.first_position); first <= last; first += kSplitSlots) {
    if (thread == 0) {
      fixed.first = first;
      fixed.count = min(kSplitSlots, last - first + 1);
    }
    __syncthreads();
    FindSlots<kScaled>(shared, block_table, kv_head);
    __syncthreads();
    AttendSlots<kQueries, kScaled>(layout, shared, share, total, [&] {
      SoftmaxSlots(layout, shared, rows.first_position);
      __syncthreads();
#pragma unroll
      for (int h = 0; h < kQueries; ++h) {
        const float factor = fixed.factor[share.query + h];
#pragma unroll
        for (int i = 0; i < 8; ++i) total[h][i] *= factor;
      }
    });
  }
  SumGroups<kQueries>(share, reinterpret_cast<float4*>(fixed.ring), total);
  ShareTotals<kQueries>(layout, shared, share, total);
  __syncthreads();
  const int quads = layout.chunks * 2;
  for (int i = thread; i < layout.queries * quads; i += kSplitThreads) {
    const int query = i / quads;
    const int64_t out = start(query, p.out.width);
    if (out < 0) continue;
    const float sum = fixed.sum[query];
    const float4 value = shared.q[i];
    const float x[4] = {value.x / sum, value.y / sum, value.z / sum, value.w / sum};
    StoreFour(p.out, out, (i - query * quads) * 4, layout.head_dim, x);
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
