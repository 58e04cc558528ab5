// Attention in one order (ordered_attention.cu): how a row's slots are cut, and what its kernels share.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cluster_item.cuh"
#include "kernels/cuda/cluster_merge.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/path.h"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Longer groups are less to merge, shorter ones more blocks where there are few rows. Where heads
// are of 64 dimensions 128 slots are what the warps take at once. Measured on an H200 at groups of
// 64, 128 and 256, one layer's bare products in steps of 150 slots, in us: gemma3-1b (256
// dimensions) 1 row 4.2, 5.9, 6.5, 64 rows 11.7, 10.9, 10.1; llama3.2-1b (64) 3.7, 3.3, 4.1 and
// 31.2, 23.1, 20.5; llama3.1-8b (128) 3.9, 4.6, 5.6, 4 rows 10.3, 5.5, 6.5, 64 rows 35.9, 31.8,
// 27.9.
constexpr int GroupBits(int head_dim) { return head_dim <= 128 ? 7 : 6; }
constexpr int GroupsOfSplit(int head_dim) { return 1 << (kSplitBits - GroupBits(head_dim)); }

struct OrderedArgs {
  DecodeRows p;
  int32_t kv_heads;
  int32_t heads_a_kv_head;
  int32_t passes;        // groups of query heads of a KV head
  int32_t cluster_bits;  // blocks of a split: 1, 2 or 4, no more than groups
  int32_t clusters;      // of a row: each takes every clusters-th split
  int32_t most_splits;   // of a row
  float4* values;        // [rows * groups of heads][most_splits][queries][head_dim]
  float2* statistics;    // [rows * groups of heads][most_splits][queries]: maximum, sum
  uint32_t* arrived;     // [rows * groups of heads]
};

template <int kQueries, int kDim>
__device__ __forceinline__ ClusterItem ItemOf(const OrderedArgs& args) {
  ClusterItem item = {};
  item.row = blockIdx.z;
  item.kv_head = blockIdx.y;
  if (args.passes > 1) {
    item.kv_head = blockIdx.y / args.passes;
    item.pass = blockIdx.y - item.kv_head * args.passes;
  }
  item.pair = item.row * static_cast<int>(gridDim.y) + static_cast<int>(blockIdx.y);
  item.head_count = min(kQueries, args.heads_a_kv_head - item.pass * kQueries);
  item.first_head = item.kv_head * args.heads_a_kv_head + item.pass * kQueries;
  item.out = int64_t{item.row} * args.p.out.width + int64_t{item.first_head} * kDim;
  return item;
}

// The row's splits, by a block of kThreads that sees all their parts.
template <int kQueries, int kDim, int kThreads>
__device__ void MergeSplits(const OrderedArgs& args, const ClusterItem& item, int splits) {
  constexpr int kQuads = kDim / 4;
  const int64_t first = int64_t{item.pair} * args.most_splits * kQueries;
  for (int i = threadIdx.x; i < item.head_count * kQuads; i += kThreads) {
    const int head = i / kQuads;
    const int quad = i % kQuads;
    const float2* const statistics = args.statistics + first + head;
    const float4* const values = args.values + (first + head) * kQuads + quad;
    float maximum = kLowest;
#pragma unroll 4
    for (int s = 0; s < splits; ++s) maximum = fmaxf(maximum, __ldcg(statistics + s * kQueries).x);
    float4 total = make_float4(0, 0, 0, 0);
    float sum = 0;
#pragma unroll 4
    for (int s = 0; s < splits; ++s) {
      const float2 of_split = __ldcg(statistics + s * kQueries);
      const float4 part = __ldcg(values + int64_t{s} * kQueries * kQuads);
      const float factor = Exp2(of_split.x - maximum);
      sum = fmaf(factor, of_split.y, sum);
      total.x = fmaf(factor, part.x, total.x);
      total.y = fmaf(factor, part.y, total.y);
      total.z = fmaf(factor, part.z, total.z);
      total.w = fmaf(factor, part.w, total.w);
    }
    StoreOut<kDim>(args.p.out, item, head, quad, total, sum);
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
