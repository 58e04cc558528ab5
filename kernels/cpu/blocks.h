// Products with weights in blocks (pack.h).
//
// Activations become int8 in blocks of 32 with a float32 scale each (the largest magnitude / 127).
// Products of a block are exact in int32; an output element is one chain over its blocks in order,
//   sum = fma(float(product), d * scale, sum), and in Q4_1 then sum = fma(m, scale * total, sum),
// with `total` the sum of the block's int8 values. So every implementation gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/params.h"

namespace sirocco::cpu {

inline constexpr int32_t kBlockElements = 32;  // of weights and of activations

// What the products need of an activations' block beside its int8 values.
struct BlockScale {
  float scale;
  float scaled_total;  // scale * total
  int32_t total;       // the sum of the int8 values
};

// Activations [rows, cols], quantised, in scratch memory.
struct QuantisedRows {
  std::byte* memory = nullptr;
  int32_t rows = 0;
  int32_t cols = 0;

  static int64_t Bytes(int64_t rows, int64_t cols) {
    return rows * (Padded(cols) + Padded(cols) / kBlockElements * int64_t{sizeof(BlockScale)});
  }
  int32_t blocks() const { return static_cast<int32_t>(Padded(cols) / kBlockElements); }
  int8_t* values(int32_t row) const {  // [cols]
    return reinterpret_cast<int8_t*>(memory) + row * Padded(cols);
  }
  BlockScale* scales(int32_t row) const {  // [blocks]
    std::byte* all = memory + rows * Padded(cols);
    return reinterpret_cast<BlockScale*>(all) + int64_t{row} * blocks();
  }

 private:
  static constexpr int64_t Padded(int64_t cols) {
    return (cols + kBlockElements - 1) / kBlockElements * kBlockElements;
  }
};

// Quantises a row of to.cols activations, a multiple of 32, as row `row` of `to`. A block in which
// a value is not finite has the scale NaN, and so have all outputs of its row; one below 2^-120
// throughout counts as zeros.
void QuantiseRow(const float* from, const QuantisedRows& to, int32_t row);

// out[r * out_stride + c] = x row (first_row + r) . weight row (first_column + c), for r < rows and
// c < columns. The weight is in blocks, and packed.
void DotBlocks(const Matrix& weight, int32_t first_column, int32_t columns, const QuantisedRows& x,
               int32_t first_row, int32_t rows, float* out, int64_t out_stride);

}  // namespace sirocco::cpu
