// Matrix products by cuBLASLt: float32 sums, one fixed workspace, and for each shape an algorithm
// that is chosen once, from the kernel table or by cuBLASLt's first heuristic answer.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/kernel_table.h"
#include "kernels/cuda/mark_ring.h"
#include "kernels/device.h"
#include "kernels/params.h"

namespace sirocco::cuda {

// What becomes of a product's sums.
struct ProductForm {
  bool add = false;  // they go onto what `out` holds
  // More than 1: the columns are multiplied in so many equal parts side by side, and `out` is
  // [parts][R, outputs], of float32. The columns are a multiple of 8 * parts.
  int32_t parts = 1;
};

class LtMatMul {
 public:
  // Products of so few rows are our own kernels'. Measured on an H200: the stream's step of a 1B
  // model takes 1.13 ms with 4 rows, 1.30 with 5 and 1.49 with 8; the library's 1.31 and 1.33.
  static constexpr int32_t kOwnRows = 4;

  // Whether a product is the library's: those of many rows and of one type, but for 16-bit elements
  // whose rows do not begin at multiples of 16 bytes. For them it has slow kernels or none, and
  // ours read any row.
  static bool Takes(const MatMulParams& p);

  LtMatMul(CudaContext& context, DeviceCounters& counters)
      : context_(context), counters_(counters) {}
  ~LtMatMul();
  LtMatMul(const LtMatMul&) = delete;
  LtMatMul& operator=(const LtMatMul&) = delete;

  // Only products that it takes. Chooses for these rows and fewer, and loads what was chosen.
  absl::Status Prepare(const MatMulParams& p, const ProductForm& form = {});
  // The product without the bias. Chooses where Prepare has not; FAILED_PRECONDITION where that is
  // while recording.
  absl::Status Run(const MatMulParams& p, const ProductForm& form = {});

  // Times the algorithms that cuBLASLt thinks best for each product, and returns the fastest as
  // entries of the kernel table, a line a shape (lt_tune.cc). Products of one shape are timed
  // together, one after the other; those that it does not take are left out.
  absl::StatusOr<std::vector<std::string>> Tune(std::span<const MatMulParams> products,
                                                MarkRing& marks);

  // For people: that shapes are not in the kernel table.
  std::vector<std::string> Notes() const;

 private:
  // Alignments (bytes) limit the algorithms: part of the shape. Sums that are added may be another
  // kernel's, which must be loaded too.
  struct Key {
    ProductShape shape;
    uint32_t weight_alignment, in_alignment, out_alignment;
    bool add;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  struct Choice {
    cublasLtMatmulAlgo_t algorithm;
    bool tabled;
  };
  struct Layouts;

  absl::Status Create();  // the first time
  static Key KeyOf(const MatMulParams& p, const ProductForm& form);
  absl::Status Check(const char* call, cublasStatus_t error);
  absl::StatusOr<const Choice*> Find(const Key& key);
  absl::Status Choose(const Key& key, Choice& choice);
  absl::Status Tabled(const ProductAlgorithm& tabled, const Key& key, Layouts& layouts,
                      cublasLtMatmulAlgo_t& algorithm);
  // cuBLASLt's proposals, the best first as it thinks: at least one, at most `most`.
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> Answers(const Key& key, Layouts& layouts,
                                                            int most);
  absl::Status Issue(const MatMulParams& p, const ProductForm& form,
                     const cublasLtMatmulAlgo_t& algorithm);

  // Of Tune. Seconds of all products one after the other, the least of several rounds.
  absl::StatusOr<double> Time(const std::vector<MatMulParams>& products,
                              const cublasLtMatmulAlgo_t& algorithm, MarkRing& marks);
  absl::StatusOr<cublasLtMatmulAlgo_t> Fastest(const Key& key,
                                               const std::vector<MatMulParams>& products,
                                               MarkRing& marks);
  absl::StatusOr<ProductAlgorithm> Describe(const cublasLtMatmulAlgo_t& algorithm);

  CudaContext& context_;
  DeviceCounters& counters_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDescOpaque_t product_ = {};  // what all products have in common
  std::unique_ptr<Buffer> workspace_;
  std::map<Key, Choice> choices_;
};

}  // namespace sirocco::cuda
