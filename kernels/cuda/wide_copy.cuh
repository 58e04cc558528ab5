// Who copies a wide product's stages (wide_product.cuh).
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wide_ends.cuh"
#include "kernels/cuda/wide_ptx.cuh"
#include "kernels/cuda/wide_shape.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// By one thread of each warp of a block's last warpgroup, which take stages in turn: one alone
// needs longer for a stage's copies than a tile of 128 outputs is multiplied.
template <typename Shape, WideEnd kEnd>
class WideProducer {
 public:
  // own: 0 ... kWideProducers - 1
  __device__ WideProducer(const WideArgs& p, int own, unsigned char* ring, uint64_t* full,
                          uint64_t* empty)
      : p_(p),
        own_(own),
        ring_(ring),
        full_(full),
        empty_(empty),
        weights_policy_(p.once ? EvictFirstPolicy() : EvictNormalPolicy()),
        in_policy_(EvictNormalPolicy()) {}

  __device__ __forceinline__ void Run(int cluster, int clusters) {
    PrefetchMap(p_.weight);
    PrefetchMap(p_.in);
    // The first item's weights, as far as the ring goes, before what is multiplied with them is
    // there.
    Begin(cluster);
    const int filled = min(Shape::kSlots, stages_.last - stages_.first);
#pragma unroll 1
    for (int i = own_; i < filled; i += kWideProducers) Weights(stages_.first + i, i);
    LaunchDependents();
    WaitForDependency();
#pragma unroll 1
    for (int i = 0; i < filled; ++i) {
      if (Mine()) Activations(stages_.first + i, slot_.at);
      Next();
    }
    // Slots that were not filled are as those that were: nobody empties what was never full.
    first_round_ = Shape::kSlots - filled;
    Stages(stages_.first + filled);
#pragma unroll 1
    for (int i = cluster + clusters; i < p_.grid.items(); i += clusters) {
      Begin(i);
      Stages(stages_.first);
    }
  }

 private:
  __device__ __forceinline__ void Begin(int index) {
    const WideItem item = p_.grid.At(index);
    stages_ = place_.Stages(item, p_);
    row_ = place_.RowTile(item) * Shape::kRows;
    output_ = place_.OutputTile(item) * Shape::kOutputs;
    // Those that exist, up to whole copies.
    const int rest = max(p_.rows - row_ + p_.box - 1, 0);
    rows_ = min(rest / p_.box * p_.box, Shape::kRows);
  }
  __device__ __forceinline__ bool Mine() const { return turn_ == own_; }
  __device__ __forceinline__ void Next() {
    turn_ = turn_ + 1 < kWideProducers ? turn_ + 1 : 0;
    slot_.Next();
  }

  __device__ __forceinline__ void Stages(int first) {
#pragma unroll 1
    for (int stage = first; stage < stages_.last; ++stage) {
      const bool waits = first_round_ <= 0;
      if (!waits) --first_round_;
      if (Mine()) {
        // What filled the slot before is emptied in the phase before this one's. Others may be a
        // round of the ring ahead or behind, not two: each of them has waited for the slot of its
        // own last stage, kWideProducers before this one.
        if (waits) WaitBarrier(&empty_[slot_.at], slot_.parity ^ 1);
        Weights(stage, slot_.at);
        Activations(stage, slot_.at);
      }
      Next();
    }
  }

  __device__ __forceinline__ void Weights(int stage, int slot) {
    const int own = place_.row_rank * Shape::kOwnOutputs;
    const int output = output_ + own;
    unsigned char* const to =
        ring_ + slot * Shape::kStageBytes + Shape::kInBytes + own * Shape::kRowBytes;
    const int column = stage * kMapColumns;
    ArriveExpecting(&full_[slot], (rows_ + Shape::kOutputs) * Shape::kRowBytes);
    if constexpr (kEnd == WideEnd::kGateUp) {
      // 16 of the tile's outputs are a group of 8 of gate's and of up's.
      if constexpr (Shape::kDown > 1) {
        CopyGroupsToBlocks(to, p_.weight, column, output / 16, &full_[slot], place_.SameOutputs(),
                           weights_policy_);
      } else {
        CopyGroups(to, p_.weight, column, output / 16, &full_[slot], weights_policy_);
      }
    } else {
      if constexpr (Shape::kDown > 1) {
        CopyBoxToBlocks(to, p_.weight, column, output, &full_[slot], place_.SameOutputs(),
                        weights_policy_);
      } else {
        CopyBox(to, p_.weight, column, output, &full_[slot], weights_policy_);
      }
    }
  }

  __device__ __forceinline__ void Activations(int stage, int slot) {
    const int column = stage * kMapColumns;
    const int first = place_.output_rank * Shape::kOwnRows;
    const int last = min(first + Shape::kOwnRows, rows_);
    unsigned char* const to = ring_ + slot * Shape::kStageBytes;
#pragma unroll 1
    for (int row = first; row < last; row += p_.box) {
      if constexpr (Shape::kAcross > 1) {
        CopyBoxToBlocks(to + row * Shape::kRowBytes, p_.in, column, row_ + row, &full_[slot],
                        place_.SameRows(), in_policy_);
      } else {
        CopyBox(to + row * Shape::kRowBytes, p_.in, column, row_ + row, &full_[slot], in_policy_);
      }
    }
  }

  const WideArgs& p_;
  const int own_;
  unsigned char* const ring_;
  uint64_t* const full_;
  uint64_t* const empty_;
  const uint64_t weights_policy_, in_policy_;
  const WideTilePlace<Shape> place_;
  // Of the item that is under way: the tile's first row and output, and rows that are copied.
  WideStages stages_;
  int row_ = 0, output_ = 0, rows_ = 0;
  WideSlot<Shape::kSlots> slot_;
  int turn_ = 0;         // whose stage it is
  int first_round_ = 0;  // slots that have never been filled
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
