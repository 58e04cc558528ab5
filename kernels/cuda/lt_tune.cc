// Choosing algorithms by measuring them: LtMatMul::Tune.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "kernels/cuda/lt_layouts.h"
#include "kernels/cuda/lt_matmul.h"

namespace sirocco::cuda {
namespace {

constexpr int kAnswers = 24;  // of cuBLASLt, the best first as it thinks
constexpr int kRounds = 5;  // of which the fastest counts: nothing makes a product faster by chance

// A pair of events that measures what is issued between them.
class Interval {
 public:
  ~Interval() {
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (end_ != nullptr) cudaEventDestroy(end_);
  }
  absl::Status Create(CudaContext& context) {
    absl::Status status = context.Check("cudaEventCreate", cudaEventCreate(&begin_));
    if (status.ok()) status = context.Check("cudaEventCreate", cudaEventCreate(&end_));
    return status;
  }
  absl::Status Begin(CudaContext& context) {
    return context.Check("cudaEventRecord", cudaEventRecord(begin_, context.stream()));
  }
  absl::StatusOr<float> End(CudaContext& context) {
    absl::Status status = context.Check("cudaEventRecord", cudaEventRecord(end_, context.stream()));
    if (status.ok()) status = context.Check("cudaEventSynchronize", cudaEventSynchronize(end_));
    float milliseconds = 0;
    if (status.ok()) {
      status =
          context.Check("cudaEventElapsedTime", cudaEventElapsedTime(&milliseconds, begin_, end_));
    }
    if (!status.ok()) return status;
    return milliseconds;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace

absl::StatusOr<ProductAlgorithm> LtMatMul::Describe(const cublasLtMatmulAlgo_t& algorithm) {
  ProductAlgorithm out;
  cublasStatus_t error = CUBLAS_STATUS_SUCCESS;
  const auto get = [&](cublasLtMatmulAlgoConfigAttributes_t attribute, auto& value) {
    size_t written = 0;
    if (error != CUBLAS_STATUS_SUCCESS) return;
    error = cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof(value),
                                                 &written);
  };
  get(CUBLASLT_ALGO_CONFIG_ID, out.id);
  get(CUBLASLT_ALGO_CONFIG_TILE_ID, out.tile);
  get(CUBLASLT_ALGO_CONFIG_STAGES_ID, out.stages);
  get(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, out.split_k);
  get(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, out.reduction);
  get(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, out.swizzling);
  get(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, out.custom);
  get(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, out.inner_shape);
  get(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, out.cluster_shape);
  if (absl::Status status = Check("cublasLtMatmulAlgoConfigGetAttribute", error); !status.ok()) {
    return status;
  }
  return out;
}

absl::StatusOr<float> LtMatMul::Time(const std::vector<MatMulParams>& products,
                                     const Choice& choice) {
  Interval interval;
  if (absl::Status status = interval.Create(context_); !status.ok()) return status;
  float least = std::numeric_limits<float>::max();
  for (int round = 0; round <= kRounds; ++round) {
    if (absl::Status status = interval.Begin(context_); !status.ok()) return status;
    for (const MatMulParams& p : products) {
      if (absl::Status status = Issue(p, choice); !status.ok()) return status;
    }
    absl::StatusOr<float> milliseconds = interval.End(context_);
    if (!milliseconds.ok()) return milliseconds.status();
    if (round > 0) least = std::min(least, *milliseconds);  // the first one loads the kernel
  }
  return least;
}

absl::StatusOr<cublasLtMatmulAlgo_t> LtMatMul::Fastest(const Key& key,
                                                       const std::vector<MatMulParams>& products) {
  Choice choice = {};
  Layouts layouts;
  absl::Status status = DescribeProduct(choice);
  if (status.ok()) {
    status = Check("cublasLtMatrixLayoutInit", layouts.Init(key.shape, key.shape.rows));
  }
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> answers =
      Answers(key, layouts, choice, kAnswers);
  if (!answers.ok()) return answers.status();
  float least = std::numeric_limits<float>::max();
  cublasLtMatmulAlgo_t fastest = answers->front();
  for (const cublasLtMatmulAlgo_t& answer : *answers) {
    choice.algorithm = answer;
    absl::StatusOr<float> milliseconds = Time(products, choice);
    if (!milliseconds.ok()) return milliseconds.status();
    if (*milliseconds >= least) continue;  // the same time: the earlier answer
    least = *milliseconds;
    fastest = answer;
  }
  return fastest;
}

absl::StatusOr<std::vector<std::string>> LtMatMul::Tune(std::span<const MatMulParams> products) {
  if (absl::Status status = Create(); !status.ok()) return status;
  std::map<Key, std::vector<MatMulParams>> by_key;
  for (const MatMulParams& p : products) by_key[KeyOf(p)].push_back(p);
  // Operands that are aligned otherwise are another key, but no other entry: the first counts.
  std::map<ProductShape, std::string> entries;
  for (const auto& [key, same] : by_key) {
    if (entries.count(key.shape) > 0) continue;
    absl::StatusOr<cublasLtMatmulAlgo_t> fastest = Fastest(key, same);
    if (!fastest.ok()) return fastest.status();
    absl::StatusOr<ProductAlgorithm> algorithm = Describe(*fastest);
    if (!algorithm.ok()) return algorithm.status();
    entries.emplace(key.shape, EntryText(context_.name(), key.shape, *algorithm));
  }
  std::vector<std::string> lines;
  for (auto& [shape, line] : entries) lines.push_back(std::move(line));
  return lines;
}

}  // namespace sirocco::cuda
