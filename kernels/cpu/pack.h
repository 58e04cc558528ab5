// Weights as the CPU's products read them.
//
// A matrix [rows, cols] comes as files store it, row after row. The products want 16 rows (outputs)
// side by side, so Device::Pack reorders each *group* of 16 rows in place:
//   float32   [cols][16]
//   bfloat16  [cols][8][2], the pair being rows i and i + 8: a vector of 32-bit lanes holds 8 rows
//             in its lower halves and 8 in its upper ones
//   blocks    block column by block column: [16] float16 d, [16] float16 m (Q4_1 only),
//             [words][16] four bytes of q, where word w of a row is its bytes 4w ... 4w + 3
// A vector so holds the same places of many rows, and no sum ever runs across a vector. The rows
// after the last whole group keep the files' order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/params.h"

namespace sirocco::cpu {

inline constexpr int32_t kGroupRows = 16;

// Of a matrix, how many rows lie in groups.
inline int32_t PackedRows(const Matrix& weight) { return weight.rows / kGroupRows * kGroupRows; }

// Where a group, or a row after the groups, begins.
inline const std::byte* RowsAt(const Matrix& weight, int32_t row) {
  return static_cast<const std::byte*>(weight.data) +
         row * static_cast<int64_t>(BytesOf(weight.dtype, static_cast<uint64_t>(weight.cols)));
}

// Brings the group of 16 rows from first_row on, a multiple of 16, from the files' order into the
// products'.
void PackGroup(const Matrix& weight, int32_t first_row);

// out[i] = row `row` of a packed matrix [i] * scale
void UnpackRow(const Matrix& weight, int32_t row, float scale, float* out);

}  // namespace sirocco::cpu
