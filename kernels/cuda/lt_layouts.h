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
// d: out [outputs, rows]. Parts of the inputs are a batch of products: their columns of a and b lie
// side by side, their d's one behind the other.
struct LtMatMul::Layouts {
  cublasLtMatrixLayoutOpaque_t a, b, d;

  cublasStatus_t Init(const ProductShape& shape, int32_t rows) {
    const cudaDataType_t type = TypeOf(shape.dtype);
    const int32_t inputs = shape.inputs / shape.parts;
    cublasStatus_t error = cublasLtMatrixLayoutInit(&a, type, inputs, shape.outputs, shape.inputs);
    if (error == CUBLAS_STATUS_SUCCESS) {
      error = cublasLtMatrixLayoutInit(&b, type, inputs, rows, shape.inputs);
    }
    if (error == CUBLAS_STATUS_SUCCESS) {
      error = cublasLtMatrixLayoutInit(&d, TypeOf(shape.out), shape.outputs, rows, shape.outputs);
    }
    if (error != CUBLAS_STATUS_SUCCESS || shape.parts == 1) return error;
    error = Batch(a, shape.parts, inputs);
    if (error == CUBLAS_STATUS_SUCCESS) error = Batch(b, shape.parts, inputs);
    if (error == CUBLAS_STATUS_SUCCESS)
      error = Batch(d, shape.parts, int64_t{rows} * shape.outputs);
    return error;
  }

 private:
  // `stride`: elements from one to the next.
  static cublasStatus_t Batch(cublasLtMatrixLayoutOpaque_t& layout, int32_t count, int64_t stride) {
    const cublasStatus_t error = cublasLtMatrixLayoutSetAttribute(
        &layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof(count));
    if (error != CUBLAS_STATUS_SUCCESS) return error;
    return cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                            &stride, sizeof(stride));
  }
};

}  // namespace sirocco::cuda
