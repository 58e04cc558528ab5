// A product's operands as cuBLASLt describes them. For lt_matmul.cc and lt_tune.cc.
#pragma once

#include <cublasLt.h>

#include "kernels/cuda/lt_matmul.h"

namespace sirocco::cuda {

inline cudaDataType_t TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return CUDA_R_16BF;
    case DType::kFloat16:
      return CUDA_R_16F;
    default:  // float32
      break;
  }
  return CUDA_R_32F;
}

// As cuBLASLt sees it, whose matrices are column-major: out^T = weight * in^T, where a row-major
// matrix is its own transpose. a: weight [inputs, outputs], transposed; b: in [inputs, rows];
// d: out [outputs, rows].
struct LtMatMul::Layouts {
  cublasLtMatrixLayoutOpaque_t a, b, d;

  cublasStatus_t Init(const ProductShape& shape, int32_t rows) {
    const cudaDataType_t type = TypeOf(shape.dtype);
    cublasStatus_t error =
        cublasLtMatrixLayoutInit(&a, type, shape.inputs, shape.outputs, shape.inputs);
    if (error == CUBLAS_STATUS_SUCCESS) {
      error = cublasLtMatrixLayoutInit(&b, type, shape.inputs, rows, shape.inputs);
    }
    if (error == CUBLAS_STATUS_SUCCESS) {
      error = cublasLtMatrixLayoutInit(&d, TypeOf(shape.out), shape.outputs, rows, shape.outputs);
    }
    return error;
  }
};

}  // namespace sirocco::cuda
