// What the blocks of a kernel of all layers share, and what each of them is given.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/layers/layers.h"
#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

constexpr int kLayersCachedBlocks = 128;  // of a layer group's block table

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

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
