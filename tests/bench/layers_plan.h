// How the kernel of all layers (layers_kernel.h) cuts its work: products over blocks and chunks,
// attention over blocks, shared memory, and the words that blocks leave for each other.
//
// Weights are counted in units: a row, or a row of gate and the same of up. Of each product a block
// has one contiguous run of units, which is copied in *chunks* of at most eight rows. Along the
// columns a chunk is cut into *groups* of 64 elements, and these into *slices*, dealt to the warps
// in turn.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kLayersWarps = 10;  // that multiply; one more copies weights
inline constexpr int kLayersThreads = 32 * kLayersWarps;
inline constexpr int kLayersGroup = 64;   // columns
inline constexpr int kLayersChunks = 16;  // under way, at most
// Twice as many: a warp that has no part in up to 16 chunks after one still knows a barrier's
// phase.
inline constexpr int kLayersSlots = 32;
inline constexpr int kLayersRows = 8;                     // of a chunk, at most
inline constexpr int kLayersPartials = kLayersWarps + 1;  // from row to row: other banks
inline constexpr int kLayersMostHidden = 4096;
inline constexpr int kLayersMostParts = 32;  // of a head's slots

struct LayersProduct {
  int32_t columns;
  int32_t groups;
  int32_t units;
  int32_t rows_a_unit;  // 1 or 2
  int32_t grain;        // units that are one block's
  int32_t chunk_units;
  int32_t slices;   // of a chunk's columns, a warp's each: a divisor of kLayersWarps
  int32_t inverse;  // 65536 / slices, rounded up
  bool two_groups;  // chunks of at most four rows: two groups at once

  __host__ __device__ int32_t first_unit(int32_t block, int32_t blocks) const {
    return static_cast<int32_t>(int64_t{units / grain} * block / blocks) * grain;
  }
};

// Words of 8 bytes, each a value and the tag of the layer that it is of. Offsets in words; there
// are two of each, for even and odd layers.
struct LayersWords {
  int32_t qkv;         // [q_rows + 2 * kv_rows] float32
  int32_t parts;       // [heads][parts][head_dim] float32
  int32_t statistics;  // [heads][parts][2]: maximum, sum
  int32_t attention;   // [q_rows] float32
  int32_t output;      // [hidden] float32
  int32_t activated;   // [intermediate / 2] pairs of 16-bit elements
  int32_t down;        // [hidden] float32
  int32_t count;
};

// What may be tuned.
struct LayersTuning {
  int32_t chunk_bytes = 48 * 1024;  // at most, but a row
  int32_t slice_groups = 16;        // of a chunk that a warp takes, where it can be so few
};

struct LayersShape {
  int32_t hidden, q_rows, kv_rows, head_dim, intermediate;
};

struct LayersPlan {
  bool fits = false;
  int32_t blocks = 0;
  LayersProduct products[4] = {};  // q, k, v; output; gate and up; down
  LayersWords words;
  int32_t heads = 0, heads_a_kv_head = 0;
  int32_t parts = 0;  // of a head's slots: a power of two
  int32_t hidden = 0;
  // Of shared memory, in bytes.
  int32_t x_at = 0, partials_at = 0, attention_at = 0, ring_at = 0;
  int32_t ring_bytes = 0, shared_bytes = 0;
};

inline LayersPlan PlanLayers(const LayersShape& shape, const LayersTuning& tuning,
                             int multiprocessors, size_t attention_bytes) {
  constexpr int32_t kStatic = 4 * 1024;  // the kernel's own arrays and what the driver takes
  constexpr int32_t kMost = 227 * 1024 - kStatic;
  const auto ceil = [](int32_t a, int32_t b) { return (a + b - 1) / b; };
  LayersPlan plan;
  if (shape.head_dim <= 0 || shape.kv_rows <= 0 || shape.hidden % kLayersGroup != 0 ||
      shape.q_rows % kLayersGroup != 0 || shape.intermediate % kLayersGroup != 0 ||
      shape.hidden > kLayersMostHidden || shape.q_rows % shape.kv_rows != 0 ||
      shape.q_rows % shape.head_dim != 0) {
    return plan;
  }
  plan.blocks = multiprocessors;
  plan.hidden = shape.hidden;
  plan.heads = shape.q_rows / shape.head_dim;
  plan.heads_a_kv_head = shape.q_rows / shape.kv_rows;
  if (plan.heads > plan.blocks) return plan;
  plan.parts = 1;
  while (2 * plan.parts <= std::min(plan.blocks / plan.heads, kLayersMostParts)) plan.parts *= 2;
  const auto product = [&](int32_t columns, int32_t units, int32_t rows_a_unit, int32_t grain) {
    LayersProduct of = {columns, columns / kLayersGroup, units, rows_a_unit, grain, 0, 0, 0, false};
    const int32_t most = ceil(units / grain, plan.blocks) * grain;  // of a block
    const int32_t unit_bytes = 2 * columns * rows_a_unit;
    const int32_t cap =
        std::clamp(tuning.chunk_bytes / unit_bytes / grain, 1, kLayersRows / rows_a_unit / grain) *
        grain;
    of.chunk_units = ceil(ceil(most, ceil(most, cap)), grain) * grain;
    const int32_t chunks = ceil(most, of.chunk_units);
    of.two_groups = rows_a_unit == 1 && of.chunk_units <= kLayersRows / 2 && of.groups % 2 == 0;
    of.slices = 1;
    if (rows_a_unit == 1) {
      for (const int32_t slices : {2, 5, 10}) {
        if (chunks * of.slices >= kLayersWarps && of.groups / of.slices <= tuning.slice_groups)
          break;
        of.slices = slices;
      }
    }
    of.inverse = (65536 + of.slices - 1) / of.slices;
    return of;
  };
  const int32_t qkv_rows = shape.q_rows + 2 * shape.kv_rows;
  plan.products[0] = product(shape.hidden, qkv_rows, 1, 1);
  plan.products[1] = product(shape.q_rows, shape.hidden, 1, 1);
  plan.products[2] = product(shape.hidden, shape.intermediate, 2, 2);
  plan.products[3] = product(shape.intermediate, shape.hidden, 1, 1);
  // Every block has a part of every product: what it leaves of one says that it has read the last.
  for (const LayersProduct& of : plan.products) {
    if (of.units / of.grain < plan.blocks) return plan;
  }

  int32_t count = 0;
  const auto take = [&](int32_t words) {
    const int32_t at = count;
    count += ceil(words, 16) * 16;
    return at;
  };
  plan.words.qkv = take(qkv_rows);
  plan.words.parts = take(shape.q_rows * plan.parts);
  plan.words.statistics = take(plan.heads * plan.parts * 2);
  plan.words.attention = take(shape.q_rows);
  plan.words.output = take(shape.hidden);
  plan.words.activated = take(shape.intermediate / 2);
  plan.words.down = take(shape.hidden);
  plan.words.count = count;

  int32_t bytes = 0;
  const auto place = [&](int32_t size) {
    const int32_t at = bytes;
    bytes += ceil(size, 128) * 128;
    return at;
  };
  plan.x_at = place(2 * std::max({shape.hidden, shape.q_rows, shape.intermediate}));
  int32_t rows = 0;
  for (const LayersProduct& of : plan.products) {
    if (of.rows_a_unit == 1) rows = std::max(rows, ceil(of.units / of.grain, plan.blocks));
  }
  plan.partials_at = place(rows * kLayersPartials * 4);
  plan.attention_at = place(static_cast<int32_t>(attention_bytes));
  plan.ring_at = bytes;
  plan.ring_bytes = (kMost - bytes) / 128 * 128;
  plan.shared_bytes = bytes + plan.ring_bytes;
  // A chunk, and the ends of two rows that do not fit before the ring's end.
  int32_t chunk = 0;
  for (const LayersProduct& of : plan.products) {
    chunk = std::max(chunk, (of.chunk_units * of.rows_a_unit + 2) * of.columns * 2);
  }
  plan.fits = plan.ring_bytes >= chunk;
  return plan;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
