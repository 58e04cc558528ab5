// The rows that products take, quantised in an operation's shared scratch where weights are in
// blocks.
#pragma once

#include <cstdint>

#include "kernels/cpu/call.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/split.h"

namespace sirocco::cpu {

inline ProductRows RowsFor(const Rows& rows, int32_t count, const Scratch& scratch) {
  return {rows, {scratch.shared, count, rows.width}};
}

inline void QuantiseTile(const ProductRows& in, const Grid::Tile& tile) {
  for (int32_t r = tile.first_row; r < tile.first_row + tile.rows; ++r) {
    QuantiseRow(static_cast<const float*>(in.rows.data) + int64_t{r} * in.rows.width, in.quantised,
                r);
  }
}

}  // namespace sirocco::cpu
