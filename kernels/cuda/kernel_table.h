// Which algorithm of cuBLASLt a product takes, by GPU and shape: measured once by `sirocco bench
// --tune`, which writes kernel_table.inc. Nothing is timed when a server starts, so that the same
// program, GPU and configuration always run the same kernels.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/dtype.h"

namespace sirocco::cuda {

// A product of `rows` rows: out[rows, outputs] = in[rows, inputs] * weight^T. The table has no
// entries of products in parts.
struct ProductShape {
  int32_t rows = 0;  // a bucket's: RowBucket
  int32_t outputs = 0;
  int32_t inputs = 0;
  DType dtype = DType::kFloat32;  // of in and weight
  DType out = DType::kFloat32;
  int32_t parts = 1;  // of the inputs, multiplied side by side
  friend auto operator<=>(const ProductShape&, const ProductShape&) = default;
};

// Rows that share an algorithm: the bucket's largest number of them, a power of two from 16 on.
int32_t RowBucket(int32_t rows);

// The attributes CUBLASLT_ALGO_CONFIG_* of the same names.
struct ProductAlgorithm {
  int32_t id = 0;
  uint32_t tile = 0;
  uint32_t stages = 0;
  int32_t split_k = 1;
  uint32_t reduction = 0;
  uint32_t swizzling = 0;
  uint32_t custom = 0;
  uint16_t inner_shape = 0;
  uint16_t cluster_shape = 0;
};

// Null where the table has no entry.
const ProductAlgorithm* FindAlgorithm(std::string_view gpu, const ProductShape& shape);

// A line of kernel_table.inc.
std::string EntryText(std::string_view gpu, const ProductShape& shape,
                      const ProductAlgorithm& algorithm);

}  // namespace sirocco::cuda
