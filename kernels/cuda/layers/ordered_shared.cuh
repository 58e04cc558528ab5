// What the warps of a block of ordered_layers.cu share.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/layers/exchange.cuh"
#include "kernels/cuda/layers/reader.cuh"
#include "kernels/cuda/layers/ordered_shape.h"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/lanes.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Warps that multiply and attend, two that add up, one that copies.
template <typename S>
constexpr int kOrderedThreads = kWarp*(S::kWarps + 3);

// Before the ring, in dynamic shared memory.
template <typename S>
struct OrderedShared {
  // A warp's own share of activations, of down's a share of each piece.
  alignas(128) Element x[S::kWarps][S::kDownPieces * kLayersShare];
  // Sums of tiles, of gate and up two of a warp; for each summing warp.
  alignas(16) float partials[2][kLayersPartials][2 * S::kWarps][16];
  alignas(16) float down[S::kDownPieces][S::kWarps][16];  // of down's only tile
  // Of the row's sums of squares, of two sums in turn: what eight warps have, and the ninth's
  // lanes.
  float squares[2][S::kAttending];
  float ninth[2][kWarp];
  BlockRun runs[4];
  LayerParams layers[2];
  int32_t blocks[kMaxLayerGroups][kLayersCachedBlocks];  // the row's block table
  union {
    Part<1, S::kDim> parts[S::kAttending];  // of attention
    alignas(16) float stream[S::kHidden];
  };
  // Of attention: the norms of q and k, the turn of the row's position.
  alignas(16) float ends[3][S::kDim];
  RingShared ring;
  uint64_t partial_full[2][kLayersPartials];
  uint64_t partial_empty[2][kLayersPartials];
  uint64_t qkv_there;    // of attention
  uint64_t words_there;  // of parts, output, activated, down, in turn
};

// The row of attention, as all blocks see it.
struct OrderedRow {
  int position;
  const int32_t* block_table;  // of the lane's first group
  int max_blocks;
};

// The groups of a row's slots that a layer sees: at multiples of 64, four of them a split.
template <typename S>
struct RowGroups {
  static constexpr int kBits = 6;
  static_assert(S::kGroupSlots == 1 << kBits);
  int first_slot, position;

  __device__ __forceinline__ RowGroups(const AttentionShape& shape, int position)
      : first_slot(FirstSlot(shape, position)), position(position) {}
  __device__ __forceinline__ int first() const { return first_slot >> kBits; }
  __device__ __forceinline__ int last() const { return position >> kBits; }
  __device__ __forceinline__ SlotRange SlotsOf(int group) const {
    const int low = group << kBits;
    return {max(low, first_slot), min(low + S::kGroupSlots, position + 1)};
  }
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
