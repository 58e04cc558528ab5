// How a product of few rows is streamed: the split of the weights over blocks, tiles and pieces,
// and the shared memory that a block needs.
//
// Weights are counted in *units*: a row, or two rows that belong together (gate and up; elements i
// and i + dim/2 of a head). Each block takes one contiguous run of units, as many as any other. A
// *tile* is a few units whose sums are made at once, its rows in two halves of at most eight. Along
// the columns a tile is cut into *pieces*; a piece is what one slot of the ring holds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kStreamRows = 8;  // of activations, at most
inline constexpr int kStreamHalf = 8;  // rows of a tile's half, at most
inline constexpr int kStreamWarps = 8;
inline constexpr int kStreamConsumers = 32 * kStreamWarps;
// Hopper: one warp more, which only copies.
inline constexpr int kStreamThreads = kStreamConsumers + (SIROCCO_HOPPER ? 32 : 0);
inline constexpr int kStreamSlots = 32;        // of the ring, at most
inline constexpr int kPortableSlots = 4;       // of the ring where copies are cp.async
inline constexpr int kStreamColumnBlock = 32;  // what a warp multiplies at once

// What may be tuned. A tile of more rows multiplies with fewer instructions, one of fewer rows
// copies longer runs.
struct StreamTuning {
  int32_t tile_rows = 8;  // 2 ... 16
  int32_t slot_bytes = (SIROCCO_HOPPER ? 18 : 12) * 1024;
  // Up to about 100 KiB, activations included, two blocks share a multiprocessor: the next kernel's
  // ring is filled while this one runs.
  int32_t ring_bytes = 80 * 1024;
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
  int32_t half_rows = 0;      // rows of a tile's half
  int32_t piece_columns = 0;  // `columns`, or a multiple of kStreamColumnBlock
  int32_t row_bytes = 0;      // from row to row of a slot
  int32_t slots = 0;
  int32_t x_stride = 0;  // elements from row to row of the activations in shared memory
  size_t shared_bytes = 0;

  constexpr int32_t slot_bytes() const { return 2 * half_rows * row_bytes; }
  // Whole rows of weights: a half is one run of memory.
  constexpr bool whole_rows() const { return piece_columns == columns; }
};

// Bytes from row to row such that eight lanes of two rows read 128 different bytes of the banks.
constexpr int32_t StreamRowBytes(int32_t bytes) { return (bytes + 63) / 128 * 128 + 64; }

inline StreamPlan PlanStream(const StreamShape& shape, const StreamTuning& tuning,
                             int multiprocessors) {
  constexpr int32_t kStatic = 10 * 1024;  // the kernel's own arrays and what the driver takes
  constexpr int32_t kMost = (SIROCCO_HOPPER ? 227 : 99) * 1024 - kStatic;
  [[maybe_unused]] constexpr int32_t kShared =
      113 * 1024 - kStatic;  // of two blocks on a multiprocessor
  [[maybe_unused]] constexpr int32_t kLeastRing = 40 * 1024;
  const auto ceil = [](int32_t a, int32_t b) { return (a + b - 1) / b; };
  StreamPlan plan;
  if (shape.rows < 1 || shape.rows > kStreamRows || shape.columns % 8 != 0) return plan;
  plan.rows = shape.rows;
  plan.units = shape.units;
  plan.columns = shape.columns;
  plan.blocks = std::min(multiprocessors, shape.units);
  // Tiles of one height, as high as allowed.
  const int32_t block_units = ceil(shape.units, plan.blocks);
  const int32_t most_units = std::max(2, tuning.tile_rows) / shape.rows_a_unit;
  const int32_t tile_units = ceil(block_units, ceil(block_units, most_units));
  plan.half_rows = shape.rows_a_unit == 2 ? tile_units : ceil(tile_units, 2);

  const int32_t most_columns = tuning.slot_bytes / (2 * plan.half_rows * shape.element_bytes);
  const int32_t pieces = ceil(shape.columns, std::max(kStreamColumnBlock, most_columns));
  plan.piece_columns =
      pieces == 1 ? shape.columns
                  : ceil(ceil(shape.columns, pieces), kStreamColumnBlock) * kStreamColumnBlock;
  const int32_t piece_bytes = plan.piece_columns * shape.element_bytes;
  plan.row_bytes = plan.whole_rows() ? piece_bytes : StreamRowBytes(piece_bytes);

  const int32_t x_columns = ceil(shape.columns, kStreamColumnBlock) * kStreamColumnBlock;
  plan.x_stride = StreamRowBytes(x_columns * shape.element_bytes) / shape.element_bytes;
  const int32_t x_bytes = plan.rows * plan.x_stride * shape.element_bytes;
#if SIROCCO_HOPPER
  const int32_t room = tuning.ring_bytes <= kShared ? kShared : kMost;
  const int32_t half = std::min(tuning.ring_bytes, room - x_bytes);
  const int32_t ring = half >= kLeastRing ? half : std::min(tuning.ring_bytes, kMost - x_bytes);
  const int32_t block_pieces =
      ceil(block_units, tile_units) * ceil(shape.columns, plan.piece_columns);
  // A head's end cuts a tile in two, so there may be a few pieces more: the ring goes round.
  plan.slots = std::min({ring / plan.slot_bytes(), block_pieces + 1, kStreamSlots});
  plan.fits = ring >= kLeastRing && plan.slots >= 2;
#else
  plan.slots = kPortableSlots;
  plan.fits = x_bytes + plan.slots * plan.slot_bytes() <= kMost;
#endif
  plan.shared_bytes = static_cast<size_t>(plan.slots) * plan.slot_bytes() + x_bytes;
  return plan;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
