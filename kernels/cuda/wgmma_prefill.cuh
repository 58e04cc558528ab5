// Prefill attention on Hopper's matrix units, for 16-bit queries and KV of one type.
//
// A thread block, one a multiprocessor, takes tiles of 128 rows of one segment and one query head,
// the next of all whenever it is done with one; of a segment those with the most keys come first.
// One warpgroup copies queries, keys and values to shared memory, through the block tables, as far
// ahead as there is room, into the next tile of rows too; two others have 64 rows each and walk
// over the keys in tiles, with an online softmax in registers (after FlashAttention-3: Shah et al.,
// 2024): while one makes weights of scores, the other has the matrix units. Products and sums are
// float32; weights are rounded to T before they meet the values.
//
// Bytes: q and out once; keys and values once for each 128 rows and query head (from L2 for all but
// one). Grid: a block a multiprocessor. Shared memory: a tile of queries, two of keys and two of
// values, and where that fits another of queries: 97, 193, 193 KiB.
#pragma once

#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill_rows.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/cuda/wgmma_attend.cuh"
#include "kernels/cuda/wgmma_copy.cuh"
#include "kernels/cuda/wgmma_items.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

struct WgmmaArgs {
  PrefillAttentionParams p;
  uint32_t* counters;  // [2], zero before and after: items given out beyond the first, blocks done
};

// Item `index`, of none where there are no more: all heads of the last tile, then of the one
// before.
template <typename Shape>
__device__ __forceinline__ WgmmaItem FindItem(const PrefillAttentionParams& p, int tiles,
                                              uint32_t index) {
  const uint32_t heads = static_cast<uint32_t>(p.shape.heads);
  WgmmaItem item = {{0, 0, 0, 0}, static_cast<int>(index % heads)};
  const int tile = tiles - 1 - static_cast<int>(index / heads);
  if (tile >= 0) item.rows = FindRowTile(p, Shape::kRows, tile);
  return item;
}

// Of all segments. For a whole warp.
__device__ __forceinline__ int CountRowTiles(const PrefillAttentionParams& p, int rows) {
  const int segments = *p.segment_count;
  int tiles = 0;
  for (int i = threadIdx.x % kWarp; i < segments; i += kWarp) {
    tiles += (p.segments[i].count + rows - 1) / rows;
  }
  return WarpSum(tiles);
}

template <typename T, int kDim>
__global__ void __launch_bounds__(WgmmaShape<kDim>::kThreads, 1)
    PrefillWgmmaKernel(const __grid_constant__ WgmmaArgs args) {
  using Shape = WgmmaShape<kDim>;
  const PrefillAttentionParams& p = args.p;
  __shared__ WgmmaBarriers<kDim> barriers;
  __shared__ WgmmaPlaces<kDim> places;
  const uint32_t before = SharedAddress(DynamicShared()) % Shape::kAlignment;
  unsigned char* const shared = DynamicShared() + (Shape::kAlignment - before) % Shape::kAlignment;
  if (threadIdx.x == 0) {
    constexpr int kConsumerWarps = Shape::kConsumers * kWarpgroup / kWarp;
    for (int i = 0; i < Shape::kQueryStages; ++i) {
      InitBarrier(&barriers.queries_full[i], kWarpgroup + 1);
      InitBarrier(&barriers.queries_empty[i], kConsumerWarps);
    }
    for (int i = 0; i < Shape::kStages; ++i) {
      InitBarrier(&barriers.keys_full[i], kWarpgroup);
      InitBarrier(&barriers.values_full[i], kWarpgroup);
      InitBarrier(&barriers.keys_empty[i], kConsumerWarps);
      InitBarrier(&barriers.values_empty[i], kConsumerWarps);
    }
  }
  __syncthreads();
  WaitForDependency();
  LaunchDependents();
  if (threadIdx.x < kWarpgroup) {
    GiveRegisters<Shape::kProducerRegisters>();
    WgmmaProducer<T, kDim> producer(p, shared, barriers, places);
    const int tiles = CountRowTiles(p, Shape::kRows);
    uint32_t index = blockIdx.x;
    for (uint32_t round = 0;; ++round) {
      if (threadIdx.x == 0) places.next[round % 2] = gridDim.x + atomicAdd(&args.counters[0], 1u);
      const WgmmaItem item = FindItem<Shape>(p, tiles, index);
      producer.Item(item);
      if (item.rows.count == 0) break;
      SyncNamed(1, kWarpgroup);
      index = places.next[round % 2];
    }
    if (threadIdx.x == 0 && ArriveLast(&args.counters[1], gridDim.x)) args.counters[0] = 0;
  } else {
    TakeRegisters<Shape::kConsumerRegisters>();
    WgmmaConsumer<T, kDim> consumer(p, shared, barriers, places);
    while (consumer.Item()) {
    }
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
