// What the warps of a block of layers_kernel.cu share, and what the blocks do.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "tests/bench/layers_attention.cuh"
#include "tests/bench/layers_kernel.h"
#include "tests/bench/layers_plan.h"
#include "tests/bench/layers_ring.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

using Element = __nv_bfloat16;

// [2][words] after it, of which the first half is even layers'.
struct LayersExchange {
  uint32_t launches;
  uint32_t unused[31];
  // Blocks that have left their words, of all layers so far; a line of the cache each.
  uint32_t counts[5][32];
};
enum Exchange : int { kQkvCount, kPartsCount, kOutputCount, kActivatedCount, kDownCount };

struct LayersArgs {
  DecoderLayersParams p;
  LayersTuning tuning;
  int32_t blocks;
  int32_t ring_bytes;
};

// Workers, one warp that adds up, one that copies.
template <typename S>
constexpr int kLayersThreads = kWarp*(S::kWorkers + 2);

// Before the ring, in dynamic shared memory.
template <typename S>
struct BlockShared {
  alignas(128) Element x[S::kWarps][S::kXPieces * kLayersShare];
  alignas(16) float partials[kLayersPartials][S::kWarps][16 * S::kStreamColumns];
  float stats[S::kWarps][S::kStats];
  float2 factors[2][S::kRows];  // of what is added; of the sums
  BlockRun runs[4];
  LayerParams layers[2];
  AttentionShared<S> attention;
  RingShared ring;
  uint64_t partial_full[kLayersPartials];
  uint64_t partial_empty[kLayersPartials];
  uint64_t stats_full;
  uint64_t factors_full;
  uint64_t qkv_there;    // of attention
  uint64_t words_there;  // of parts, output, activated, down, in turn
};

#ifdef LAYERS_TRACE
__device__ __forceinline__ int64_t GlobalTime() {
  int64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}
__device__ __forceinline__ void Mark(const LayersArgs& args, int layer, int i) {
  if (layer == args.p.layers / 2 && threadIdx.x % kWarp == 0) {
    args.p.trace[blockIdx.x * kLayersMarks + i] = GlobalTime();
  }
  if (i == 0 && layer == args.p.layers / 2 + 1 && threadIdx.x % kWarp == 0) {
    args.p.trace[blockIdx.x * kLayersMarks + 15] = GlobalTime();
  }
}
#else
__device__ __forceinline__ void Mark(const LayersArgs&, int, int) {}
#endif

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
