// What the warps of a block of layers.cu share.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/layers/attention.cuh"
#include "kernels/cuda/layers/exchange.cuh"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/cuda/layers/shape.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Warps that multiply and attend, one that adds up, one that copies.
template <typename S>
constexpr int kLayersThreads = kWarp*(S::kWarps + 2);

// Before the ring, in dynamic shared memory.
template <typename S>
struct BlockShared {
  alignas(128) Element x[S::kWarps][S::kXPieces * kLayersShare];
  alignas(16) float partials[kLayersPartials][S::kWarps][16 * S::kStreamColumns];
  alignas(16) float stats[S::kWarps][kWarp][S::kStats];
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

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
