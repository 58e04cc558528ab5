// Descriptions of matrices for the tensor copy engine.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/params.h"

namespace sirocco::cuda {

// The driver's function that makes them.
using EncodeTensor = decltype(&cuTensorMapEncodeTiled);

// Null where the driver has none. Asked for while kernels are loaded, not while a stream is
// captured.
inline EncodeTensor FindEncodeTensor() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                             12000, cudaEnableDefault, &result);
  return error == cudaSuccess && result == cudaDriverEntryPointSuccess
             ? reinterpret_cast<EncodeTensor>(found)
             : nullptr;
}

inline constexpr int kMapColumns = 64;  // of a box: 128 bytes, of 16-bit elements

// Boxes of `kDimensions` dimensions in rows of 128 bytes, swizzled as wgmma.cuh's Operand wants
// them; what is beyond the tensor comes as zeros. size, box: from the innermost dimension, of
// elements; stride: of all dimensions but that, in bytes.
//
// The L2 cache is not asked for more than the box: with twice as much, which the next box wants,
// steps of 4 rows took 2% to 4% longer on an H200 (gemma3-1b 775 -> 797 us, llama3.2-1b 791 -> 815,
// llama3.1-8b 3,907 -> 4,058).
template <int kDimensions>
cudaError_t DescribeTensor(EncodeTensor encode, const void* data, DType dtype,
                           const cuuint64_t (&size)[kDimensions],
                           const cuuint64_t (&stride)[kDimensions - 1],
                           const cuuint32_t (&box)[kDimensions], CUtensorMap& map) {
  cuuint32_t step[kDimensions];
  for (cuuint32_t& s : step) s = 1;
  const CUresult result =
      encode(&map,
             dtype == DType::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
             kDimensions, const_cast<void*>(data), size, stride, box, step,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// Boxes of `box_rows` rows by kMapColumns columns of a matrix of 16-bit elements.
inline cudaError_t DescribeMatrix(EncodeTensor encode, const void* data, DType dtype, int32_t rows,
                                  int32_t columns, int32_t box_rows, CUtensorMap& map) {
  const cuuint64_t size[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t stride[1] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[2] = {kMapColumns, static_cast<cuuint32_t>(box_rows)};
  return DescribeTensor<2>(encode, data, dtype, size, stride, box, map);
}

// Of gate and up, alike: columns, 8 rows, gate and up, groups of 8 rows. Boxes of `box_rows` rows
// of both by kMapColumns columns.
inline cudaError_t DescribeGateUp(EncodeTensor encode, const Matrix& gate, const Matrix& up,
                                  int32_t box_rows, CUtensorMap& map) {
  const cuuint64_t row_bytes = static_cast<cuuint64_t>(gate.cols) * 2;
  const cuuint64_t between = static_cast<cuuint64_t>(static_cast<const char*>(up.data) -
                                                     static_cast<const char*>(gate.data));
  const cuuint64_t size[4] = {static_cast<cuuint64_t>(gate.cols), 8, 2,
                              static_cast<cuuint64_t>(gate.rows / 8)};
  const cuuint64_t stride[3] = {row_bytes, between, 8 * row_bytes};
  const cuuint32_t box[4] = {kMapColumns, 8, 2, static_cast<cuuint32_t>(box_rows / 16)};
  return DescribeTensor<4>(encode, gate.data, gate.dtype, size, stride, box, map);
}

}  // namespace sirocco::cuda
