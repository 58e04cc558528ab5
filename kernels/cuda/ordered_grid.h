// How the kernel of products in one order (ordered_product.cuh) cuts a product into thread blocks.
// No cut changes the order of a sum.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/tile_grid.h"
#include "kernels/dtype.h"

namespace sirocco::cuda {

// A sum over the inputs is made of so many partial sums: partial sum p takes the stages (of
// kTileDepthBytes an input row) p, p + 8, p + 16, ...
inline constexpr int kOrderedParts = 8;

// The smallest tile that holds all rows, or the largest.
inline int OrderedRowsFor(DType dtype, int32_t rows) {
  if (dtype == DType::kFloat32) return rows <= 16 ? 16 : 64;
  return rows <= 16 ? 16 : rows <= 32 ? 32 : 64;
}

// Splits: thread blocks that share a tile's partial sums, a cluster of 1, 2, 4 or 8. `most_splits`:
// 1 where there are no clusters.
inline TileGrid MakeOrderedGrid(DType dtype, int32_t rows, int64_t output_tiles, int64_t inputs,
                                int32_t most_splits) {
  // Blocks that find room at once on an H100 or H200: about four of small tiles on each of 132
  // multiprocessors, two of large ones.
  const int tile_rows = OrderedRowsFor(dtype, rows);
  const int64_t most_blocks = tile_rows <= 16 ? 528 : tile_rows <= 32 ? 396 : 264;
  const int64_t depth = kTileDepthBytes / static_cast<int64_t>(BytesOf(dtype));
  const int64_t row_tiles = (rows + tile_rows - 1) / tile_rows;
  const int64_t depth_tiles = (inputs + depth - 1) / depth;
  int32_t splits = 1;
  while (splits < most_splits && 2 * splits * output_tiles * row_tiles <= most_blocks &&
         2 * splits <= depth_tiles) {
    splits *= 2;
  }
  return {static_cast<int32_t>(output_tiles), static_cast<int32_t>(row_tiles), splits,
          static_cast<int32_t>(depth_tiles)};
}

}  // namespace sirocco::cuda
