// What the warps of a block of layers.cu share, and what the blocks do.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/layers/attention.cuh"
#include "kernels/cuda/layers/layers.h"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/cuda/layers/shape.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

using Element = __nv_bfloat16;

// [2][words] after it, of which the first half is even layers'.
struct LayersExchange {
  uint32_t layers;  // so far, of all launches: of all layers, or of one
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
