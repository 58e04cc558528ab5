// How rows and columns are cut into tasks. No result depends on it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sirocco::cpu {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A grid of tasks over [rows, columns]: task = row chunk * column tiles + column tile.
struct Grid {
  int32_t rows = 0;
  int32_t columns = 0;
  int32_t row_chunk = 0;
  int32_t column_tile = 0;

  struct Tile {
    int32_t first_row, rows, first_column, columns;
  };

  int64_t tasks() const { return CeilDiv(rows, row_chunk) * CeilDiv(columns, column_tile); }
  Tile At(int32_t task) const {
    const int32_t tiles = static_cast<int32_t>(CeilDiv(columns, column_tile));
    const int32_t row = task / tiles * row_chunk;
    const int32_t column = task % tiles * column_tile;
    return {row, std::min(row_chunk, rows - row), column, std::min(column_tile, columns - column)};
  }
};

// A product's tile has no more rows, and no more columns.
inline constexpr int32_t kMostChunk = 264;
inline constexpr int32_t kMostTile = 96;

// Rows are cut only where there are many: a tile's weights are read once for its whole chunk. Whole
// tiles of registers (panel-inl.h); the largest that leaves each of the threads four tasks, of
// `tiles` a chunk.
inline int32_t RowChunk(int32_t rows, int64_t tiles, int threads) {
  for (const int32_t chunk : {kMostChunk, 132, 72}) {
    if (CeilDiv(rows, chunk) * tiles >= int64_t{4} * threads) return std::min(rows, chunk);
  }
  return std::min(rows, 36);
}

// For a product with `columns` outputs: tiles of three groups (pack.h) or six, small enough to
// balance, large enough to stream.
inline Grid ColumnGrid(int32_t rows, int32_t columns, int threads) {
  constexpr int32_t kSmall = 48;
  Grid grid = {rows, columns, 0, kMostTile};
  grid.row_chunk = RowChunk(rows, CeilDiv(columns, kMostTile), threads);
  // Chunks of rows make tasks enough.
  if (grid.row_chunk < rows && grid.tasks() >= int64_t{4} * threads) return grid;
  const int64_t wanted = CeilDiv(columns, int64_t{8} * threads);
  grid.column_tile = static_cast<int32_t>(
      std::clamp<int64_t>(CeilDiv(wanted, kSmall) * kSmall, kSmall, kMostTile));
  return grid;
}

// For operations that go over rows of `width` elements: about 16 K elements a task.
inline Grid RowGrid(int32_t rows, int32_t width) {
  const int64_t chunk = std::clamp<int64_t>(16384 / std::max(width, 1), 1, rows);
  return {rows, 1, static_cast<int32_t>(chunk), 1};
}

}  // namespace sirocco::cpu
