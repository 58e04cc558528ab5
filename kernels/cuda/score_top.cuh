// The most probable ids of a row, as ranks (sample_row.cuh), best first.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/sample_row.cuh"
#include "kernels/lanes.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kSliceWarps = kSliceThreads / kWarp;

// The lists of the block's warps, then the block's own: what it has met so far.
struct TopShared {
  uint64_t list[kSliceWarps + 1][kMaxTopLogprobs];
};

// Writes the `wanted` highest of the warp's ranks, highest first, then zeros. Ranks are distinct; a
// zero is none. Uses the ranks up.
template <int kRanks>
__device__ __forceinline__ void WarpTop(uint64_t (&ranks)[kRanks], int32_t wanted, uint64_t* list) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int32_t n = 0; n < wanted; ++n) {
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < kRanks; ++i) best = max(best, ranks[i]);
    best = WarpMax(best);
    if (best == 0) {
      if (n + lane < wanted) list[n + lane] = 0;
      return;
    }
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      if (ranks[i] == best) ranks[i] = 0;
    }
    if (lane == 0) list[n] = best;
  }
}

// Takes the ranks of the block's threads into shared.list[kSliceWarps], which holds the `wanted`
// highest of all so far. Uses the ranks up.
template <int kRanks>
__device__ __forceinline__ void TakeTop(uint64_t (&ranks)[kRanks], int32_t wanted,
                                        TopShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  uint64_t* block_list = shared.list[kSliceWarps];
  const uint64_t worst = block_list[wanted - 1];  // what does not pass it is not in the list
#pragma unroll
  for (int i = 0; i < kRanks; ++i) {
    if (ranks[i] < worst) ranks[i] = 0;
  }
  WarpTop(ranks, wanted, shared.list[warp]);
  __syncthreads();
  if (warp == 0) {
    constexpr int kMerged = (kSliceWarps + 1) * kMaxTopLogprobs;
    uint64_t merged[(kMerged + kWarp - 1) / kWarp];
#pragma unroll
    for (int i = 0; i < (kMerged + kWarp - 1) / kWarp; ++i) {
      const int at = i * kWarp + lane;
      const int list = at / kMaxTopLogprobs;
      const int place = at % kMaxTopLogprobs;
      merged[i] = list <= kSliceWarps && place < wanted ? shared.list[list][place] : 0;
    }
    __syncwarp();
    WarpTop(merged, wanted, block_list);
  }
  __syncthreads();
}

// Before the first TakeTop.
__device__ __forceinline__ void ClearTop(TopShared& shared) {
  __syncthreads();
  if (threadIdx.x < kMaxTopLogprobs) shared.list[kSliceWarps][threadIdx.x] = 0;
  __syncthreads();
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
