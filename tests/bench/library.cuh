// cuBLASLt beside our products in benches: its answers for a product, and one of them made. Gate
// and up are followed by the activation's kernel, as in the program.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/wide_product.h"
#include "tests/bench/wide_data.cuh"

namespace sirocco {

// Plain arrays: vectors of the library's types crash nvcc 13.0.
struct Answers {
  static constexpr int kMost = 8;
  cublasLtMatmulAlgo_t at[kMost];
  int count = 0;
};

class Library {
 public:
  // scratch_bytes: of gate and up's sums, 4 * rows * intermediate; 0 where there are none.
  explicit Library(int64_t scratch_bytes) {
    MUST(cublasLtCreate(&handle_));
    MUST(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    MUST(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                        sizeof(transposed)));
    workspace_ = Allocate(kWorkspace);
    if (scratch_bytes > 0) scratch_ = Allocate(scratch_bytes);
  }
  Answers AnswersOf(const cuda::WideProductParams& p) {
    Layouts l(p);
    cublasLtMatmulPreference_t preference;
    MUST(cublasLtMatmulPreferenceCreate(&preference));
    const uint64_t bytes = kWorkspace;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    MUST(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &bytes, sizeof(bytes)));
    MUST(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof(reductions)));
    cublasLtMatmulHeuristicResult_t results[Answers::kMost];
    int found = 0;
    MUST(cublasLtMatmulAlgoGetHeuristic(handle_, product_, l.a, l.b, l.d, l.d, preference,
                                        Answers::kMost, results, &found));
    Answers answers;
    for (int i = 0; i < found; ++i) answers.at[answers.count++] = results[i].algo;
    MUST(cublasLtMatmulPreferenceDestroy(preference));
    return answers;
  }
  void Run(const cuda::WideProductParams& p, const cublasLtMatmulAlgo_t& algorithm,
           const cuda::LaunchContext& context) {
    Layouts l(p);
    const bool both = p.up.data != nullptr;
    const float one = 1, beta = p.add ? 1 : 0;
    void* const out = both ? scratch_ : p.out.data;
    MUST(cublasLtMatmul(handle_, product_, &one, p.weight.data, l.a, p.in.data, l.b, &beta, out,
                        l.d, out, l.d, &algorithm, workspace_, kWorkspace, context.stream));
    if (!both) return;
    cuda::GateUpEndParams end;
    end.rows = p.rows;
    end.gate = {out, 2 * p.weight.rows};
    end.up = {static_cast<Element*>(out) + p.weight.rows, 2 * p.weight.rows};
    end.activation = p.activation;
    end.out = p.out;
    MUST(cuda::hopper::LaunchGateUpEnd(end, context));
  }

 private:
  static constexpr size_t kWorkspace = size_t{32} << 20;
  struct Layouts {
    cublasLtMatrixLayout_t a, b, d;
    explicit Layouts(const cuda::WideProductParams& p) {
      const bool both = p.up.data != nullptr;
      const int outputs = p.weight.rows * (both ? 2 : 1);
      const int inputs = p.weight.cols / p.parts;
      const bool wide = p.out.dtype == DType::kFloat32;
      MUST(cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, inputs, outputs, p.weight.cols));
      MUST(cublasLtMatrixLayoutCreate(&b, CUDA_R_16BF, inputs, p.rows, p.weight.cols));
      MUST(cublasLtMatrixLayoutCreate(&d, wide ? CUDA_R_32F : CUDA_R_16BF, outputs, p.rows,
                                      outputs));
      if (p.parts == 1) return;
      InParts(a, p.parts, inputs);
      InParts(b, p.parts, inputs);
      InParts(d, p.parts, int64_t{p.rows} * outputs);
    }
    static void InParts(cublasLtMatrixLayout_t layout, int32_t parts, int64_t between) {
      MUST(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &parts,
                                            sizeof(parts)));
      MUST(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                            &between, sizeof(between)));
    }
    ~Layouts() {
      cublasLtMatrixLayoutDestroy(a);
      cublasLtMatrixLayoutDestroy(b);
      cublasLtMatrixLayoutDestroy(d);
    }
  };
  cublasLtHandle_t handle_;
  cublasLtMatmulDesc_t product_;
  void* workspace_;
  void* scratch_ = nullptr;
};

}  // namespace sirocco
