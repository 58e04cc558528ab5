// How a product of few rows is streamed: the split of the weights over blocks, tiles and groups,
// and the shared memory that a block needs.
//
// Weights are counted in *units*: a row, or two rows that belong together (gate and up; elements i
// and i + dim/2 of a head). Each block takes one contiguous run of units, as many as any other. A
// *tile* is a few units whose sums are made at once, its rows in two halves of at most eight. Along
// the columns a tile is cut into *groups* of 128 bytes a row, which are dealt to the block's warps
// in turn.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kStreamRows = 8;  // of activations, at most
inline constexpr int kStreamHalf = 8;  // rows of a tile's half, at most
inline constexpr int kStreamWarps = 8;
inline constexpr int kStreamThreads = 32 * kStreamWarps;
inline constexpr int kStreamGroupBytes = 128;
inline constexpr int kStreamSlotBytes = 2 * kStreamHalf * kStreamGroupBytes;  // a tile's group
// Slots of a warp: one is multiplied while copies into the others are under way. The deeper where
// the activations leave room. With six, no two blocks of one kernel find room on a Hopper
// multiprocessor: where they did, the next kernel's blocks came while this one's ended, some
// multiprocessors got two and others none, and the product waited for the two. Measured on an H200
// (a step of four rows, depth 4 and 6): llama3.1-8b 4,811 and 4,487 us, llama3.2-1b 1,048 and 957.
inline constexpr int kStreamDepth = SIROCCO_HOPPER ? 6 : 3;
inline constexpr int kStreamShallow = SIROCCO_HOPPER ? 4 : 3;
// Rows and groups from which on each warp brings the columns of the activations that it multiplies,
// with its first tile, in place of all of them by all warps before the first. A step on an H100:
// llama3.1-8b (64 groups and more) with four rows 5,866 -> 5,705 us, with one 5,275 -> 5,271; where
// there are few groups it cost more than it saved (gemma3-1b, 16 groups, one row: 1,043 -> 1,057).
inline constexpr int kStreamOwnRows = 2;
inline constexpr int kStreamOwnGroups = 64;
// Sums of each warp that wait for their units' end, twice: 16 KiB in all. A tile's fit.
inline constexpr int kStreamPartials = 256;
static_assert(kStreamPartials >= 2 * kStreamHalf * kStreamRows);

// What may be tuned: a tile of more rows multiplies with fewer instructions.
struct StreamTuning {
  int32_t tile_rows = 16;  // 2 ... 16
  bool ordered = false;    // sums in the order of ordered_product.cuh: of 16-bit types
};

struct StreamShape {
  int32_t rows;           // of activations
  int32_t units;          // of weights
  int32_t rows_a_unit;    // 1 or 2
  int32_t columns;        // of weights: a multiple of 8
  int32_t element_bytes;  // of weights and activations
};

struct StreamPlan {
  bool fits = false;  // else another kernel must do it
  int32_t rows = 0;
  int32_t units = 0;
  int32_t columns = 0;
  int32_t blocks = 0;
  int32_t half_rows = 0;     // rows of a tile's half
  int32_t groups = 0;        // of a tile
  int32_t depth = 0;         // kStreamDepth or kStreamShallow
  bool ordered = false;      // StreamTuning
  bool own_columns = false;  // each warp brings its own of the activations, if they are ready
  int32_t x_stride = 0;      // elements from row to row of the activations in shared memory
  size_t shared_bytes = 0;

  // Of a block: units first_unit(b) ... first_unit(b + 1) - 1.
  constexpr int32_t first_unit(uint32_t block) const {
    return static_cast<int32_t>(static_cast<uint32_t>(units) * block /
                                static_cast<uint32_t>(blocks));
  }
};

inline StreamPlan PlanStream(const StreamShape& shape, const StreamTuning& tuning,
                             int multiprocessors) {
  constexpr size_t kSlots = kStreamWarps * kStreamSlotBytes;  // one of each warp
  constexpr int32_t kStatic = 18 * 1024;  // the kernel's own arrays and what the driver takes
  constexpr size_t kMost = (SIROCCO_HOPPER ? 227 : 99) * 1024 - kStatic;
  const auto ceil = [](int32_t a, int32_t b) { return (a + b - 1) / b; };
  StreamPlan plan;
  if (shape.rows < 1 || shape.rows > kStreamRows || shape.columns % 8 != 0) return plan;
  if (int64_t{shape.units} * multiprocessors > INT32_MAX) return plan;  // first_unit
  plan.ordered = tuning.ordered;
  plan.rows = shape.rows;
  plan.units = shape.units;
  plan.columns = shape.columns;
  plan.blocks = std::min(multiprocessors, shape.units);
  // Tiles of one height, as high as allowed.
  const int32_t block_units = ceil(shape.units, plan.blocks);
  const int32_t most_units = std::max(2, tuning.tile_rows) / shape.rows_a_unit;
  const int32_t tile_units = ceil(block_units, ceil(block_units, most_units));
  plan.half_rows = shape.rows_a_unit == 2 ? tile_units : ceil(tile_units, 2);
  plan.groups = ceil(shape.columns * shape.element_bytes, kStreamGroupBytes);
  plan.own_columns = plan.rows >= kStreamOwnRows && plan.groups >= kStreamOwnGroups &&
                     plan.groups % kStreamWarps == 0;
  // Eight lanes of two rows read 128 different bytes of the banks.
  plan.x_stride = (plan.groups * kStreamGroupBytes + 64) / shape.element_bytes;
  const size_t x_bytes = static_cast<size_t>(plan.rows) * plan.x_stride * shape.element_bytes;
  plan.depth = kSlots * kStreamDepth + x_bytes <= kMost ? kStreamDepth : kStreamShallow;
  plan.shared_bytes = kSlots * plan.depth + x_bytes;
  plan.fits = plan.shared_bytes <= kMost;
  return plan;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
