// How the tile kernel (tile_product.cuh) cuts a product into thread blocks. Depends on the shape
// alone, so that the sums of a shape are always made in the same order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace sirocco::cuda {

// A tile: so many outputs by 16, 32, 64 or 128 rows; each of its stages so many bytes of each
// output's and each row's inputs.
inline constexpr int kTileOutputs = 64;
inline constexpr int kTileDepthBytes = 128;

// The smallest tile that holds all rows, or the largest. float32 has two: no matrix units there.
inline int TileRowsFor(DType dtype, int32_t rows) {
  if (dtype == DType::kFloat32) return rows <= 16 ? 16 : 64;
  return rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 64 ? 64 : 128;
}

// Blocks of a grid: row tiles side by side, which share their weights in the L2 cache; then splits
// of the inputs; then tiles of outputs.
struct TileGrid {
  int32_t output_tiles = 0;
  int32_t row_tiles = 0;
  int32_t splits = 0;
  int32_t depth_tiles = 0;  // stages of all inputs, dealt out evenly to the splits

  int64_t blocks() const { return int64_t{output_tiles} * row_tiles * splits; }
};

inline TileGrid MakeTileGrid(DType dtype, int32_t rows, int64_t output_tiles, int64_t inputs) {
  // Where the tiles are too few for the machine, splits: up to about four blocks with few rows, two
  // with many, on each of the 132 multiprocessors of an H100 or H200. A split of less than four
  // stages would mostly wait.
  constexpr int64_t kBlocks = 528;
  constexpr int64_t kLeastDepthTiles = 4;
  constexpr int64_t kMostSplits = 16;
  const int tile_rows = TileRowsFor(dtype, rows);
  const int64_t depth = kTileDepthBytes / static_cast<int64_t>(BytesOf(dtype));
  const int64_t row_tiles = (rows + tile_rows - 1) / tile_rows;
  const int64_t depth_tiles = (inputs + depth - 1) / depth;
  const int64_t blocks = tile_rows <= 32 ? kBlocks : kBlocks / 2;
  const int64_t splits =
      std::min({blocks / (output_tiles * row_tiles), depth_tiles / kLeastDepthTiles, kMostSplits});
  return {static_cast<int32_t>(output_tiles), static_cast<int32_t>(row_tiles),
          static_cast<int32_t>(std::max<int64_t>(splits, 1)), static_cast<int32_t>(depth_tiles)};
}

// The most that `bytes(tile_rows, grid)` comes to for 1 ... `rows` rows: scratch that was made for
// many rows must do for fewer, which may be split where the many are not.
template <typename Bytes>
size_t MostBytes(DType dtype, int32_t rows, int64_t output_tiles, int64_t inputs,
                 const Bytes& bytes) {
  size_t most = 0;
  // All rows up to a tile's cut alike.
  for (int32_t r = std::min(rows, 16); r > 0;) {
    most =
        std::max(most, bytes(TileRowsFor(dtype, r), MakeTileGrid(dtype, r, output_tiles, inputs)));
    if (r == rows) break;
    const int32_t step = TileRowsFor(dtype, r + 1);
    r = std::min(rows, (r / step + 1) * step);
  }
  return most;
}

// Partial sums of all splits.
inline size_t PartialBytes(int tile_rows, const TileGrid& grid) {
  if (grid.splits == 1) return 0;
  return static_cast<size_t>(grid.blocks()) * kTileOutputs * tile_rows * sizeof(float);
}

}  // namespace sirocco::cuda
