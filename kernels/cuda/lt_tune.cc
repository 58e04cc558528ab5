// Choosing algorithms by measuring them: LtMatMul::Tune.
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

absl::StatusOr<double> LtMatMul::Time(const std::vector<MatMulParams>& products,
                                      const cublasLtMatmulAlgo_t& algorithm, MarkRing& marks) {
  double least = std::numeric_limits<double>::max();
  for (int round = 0; round <= kRounds; ++round) {
    const absl::StatusOr<DeviceMark> begin = marks.Mark();
    if (!begin.ok()) return begin.status();
    for (const MatMulParams& p : products) {
      if (absl::Status status = Issue(p, {}, algorithm); !status.ok()) return status;
    }
    const absl::StatusOr<DeviceMark> end = marks.Mark();
    if (!end.ok()) return end.status();
    if (absl::Status status = marks.Wait(*end); !status.ok()) return status;
    const absl::StatusOr<double> seconds = marks.Seconds(*begin, *end);
    if (!seconds.ok()) return seconds.status();
    if (round > 0) least = std::min(least, *seconds);  // the first one loads the kernel
  }
  return least;
}

absl::StatusOr<cublasLtMatmulAlgo_t> LtMatMul::Fastest(const Key& key,
                                                       const std::vector<MatMulParams>& products,
                                                       MarkRing& marks) {
  Layouts layouts;
  absl::Status status = Check("cublasLtMatrixLayoutInit", layouts.Init(key.shape, key.shape.rows));
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> answers = Answers(key, layouts, kAnswers);
  if (!answers.ok()) return answers.status();
  double least = std::numeric_limits<double>::max();
  cublasLtMatmulAlgo_t fastest = answers->front();
  for (const cublasLtMatmulAlgo_t& answer : *answers) {
    const absl::StatusOr<double> seconds = Time(products, answer, marks);
    if (!seconds.ok()) return seconds.status();
    if (*seconds >= least) continue;  // the same time: the earlier answer
    least = *seconds;
    fastest = answer;
  }
  return fastest;
}

absl::StatusOr<std::vector<std::string>> LtMatMul::Tune(std::span<const MatMulParams> products,
                                                        MarkRing& marks) {
  if (absl::Status status = Create(); !status.ok()) return status;
  std::map<Key, std::vector<MatMulParams>> by_key;
  for (const MatMulParams& p : products) {
    if (Takes(p)) by_key[KeyOf(p, {})].push_back(p);
  }
  // Operands that are aligned otherwise are another key, but no other entry: the first counts.
  std::map<ProductShape, std::string> entries;
  for (const auto& [key, same] : by_key) {
    if (entries.count(key.shape) > 0) continue;
    absl::StatusOr<cublasLtMatmulAlgo_t> fastest = Fastest(key, same, marks);
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
