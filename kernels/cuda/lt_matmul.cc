#include "kernels/cuda/lt_matmul.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_graph.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/lt_layouts.h"

namespace sirocco::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;
// Sums over k that are split are added up in float32 and in one order: not in place, where the
// order is that of arrival, nor in the output's type.
constexpr uint32_t kReductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

constexpr uint32_t kMostAlignment = 16;

// Of the first element of each row, in bytes, up to the most.
uint32_t AlignmentOf(const void* data, int32_t width, DType dtype) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(data) |
                         (static_cast<uintptr_t>(width) * BytesOf(dtype)) | kMostAlignment;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

std::string ShapeName(const ProductShape& shape) {
  return absl::StrCat("[", shape.rows, ", ", shape.inputs, "] * [", shape.outputs, ", ",
                      shape.inputs, "]^T of ", std::string(NameOf(shape.dtype)), " to ",
                      std::string(NameOf(shape.out)));
}

}  // namespace

LtMatMul::~LtMatMul() {
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

absl::Status LtMatMul::Check(const char* call, cublasStatus_t error) {
  if (error == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return context_.Fail(absl::InternalError(absl::StrCat(
      call, ": ", cublasLtGetStatusName(error), " (", cublasLtGetStatusString(error), ")")));
}

bool LtMatMul::Takes(const MatMulParams& p) {
  if (p.rows <= kOwnRows || p.in.dtype != p.weight.dtype) return false;
  if (p.weight.dtype == DType::kFloat32) return true;
  return AlignmentOf(p.weight.data, p.weight.cols, p.weight.dtype) == kMostAlignment &&
         AlignmentOf(p.in.data, p.weight.cols, p.weight.dtype) == kMostAlignment;
}

absl::Status LtMatMul::Create() {
  if (absl::Status status = context_.Enter(); !status.ok()) return status;
  if (handle_ == nullptr) {
    cublasStatus_t error = cublasLtMatmulDescInit(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    if (error == CUBLAS_STATUS_SUCCESS) {
      error = cublasLtMatmulDescSetAttribute(&product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                             sizeof(transposed));
    }
    absl::Status status = Check("cublasLtMatmulDescInit", error);
    if (status.ok()) status = Check("cublasLtCreate", cublasLtCreate(&handle_));
    if (!status.ok()) return status;
  }
  if (workspace_ == nullptr) {
    absl::StatusOr<std::unique_ptr<Buffer>> workspace =
        AllocateDevice(context_, kWorkspaceBytes, MemoryUse::kWorkspace, counters_);
    if (!workspace.ok()) return workspace.status();
    workspace_ = *std::move(workspace);
  }
  return absl::OkStatus();
}

absl::Status LtMatMul::Tabled(const ProductAlgorithm& tabled, const Key& key, Layouts& layouts,
                              cublasLtMatmulAlgo_t& algorithm) {
  const cudaDataType_t type = TypeOf(key.shape.dtype);
  const cudaDataType_t out = TypeOf(key.shape.out);
  cublasStatus_t error = cublasLtMatmulAlgoInit(handle_, CUBLAS_COMPUTE_32F, CUDA_R_32F, type, type,
                                                out, out, tabled.id, &algorithm);
  const auto set = [&](cublasLtMatmulAlgoConfigAttributes_t attribute, const auto& value) {
    if (error != CUBLAS_STATUS_SUCCESS) return;
    error = cublasLtMatmulAlgoConfigSetAttribute(&algorithm, attribute, &value, sizeof(value));
  };
  set(CUBLASLT_ALGO_CONFIG_TILE_ID, tabled.tile);
  set(CUBLASLT_ALGO_CONFIG_STAGES_ID, tabled.stages);
  set(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, tabled.split_k);
  set(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, tabled.reduction);
  set(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, tabled.swizzling);
  set(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, tabled.custom);
  set(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, tabled.inner_shape);
  set(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, tabled.cluster_shape);
  cublasLtMatmulHeuristicResult_t result = {};
  if (error == CUBLAS_STATUS_SUCCESS) {
    error = cublasLtMatmulAlgoCheck(handle_, &product_, &layouts.a, &layouts.b, &layouts.d,
                                    &layouts.d, &algorithm, &result);
  }
  if (error != CUBLAS_STATUS_SUCCESS || result.workspaceSize > kWorkspaceBytes) {
    return absl::FailedPreconditionError(absl::StrCat(
        "matmul: this cuBLASLt (", cublasLtGetVersion(), ") does not take the algorithm that ",
        "the kernel table has for ", ShapeName(key.shape), " on ", context_.name(),
        "; make the table again with sirocco bench --tune"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> LtMatMul::Answers(const Key& key,
                                                                    Layouts& layouts, int most) {
  cublasLtMatmulPreferenceOpaque_t preference;
  cublasStatus_t error = cublasLtMatmulPreferenceInit(&preference);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    if (error != CUBLAS_STATUS_SUCCESS) return;
    error = cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.weight_alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.in_alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.out_alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.out_alignment);
  if (absl::Status status = Check("cublasLtMatmulPreferenceSetAttribute", error); !status.ok()) {
    return status;
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(most);
  int found = 0;
  error = cublasLtMatmulAlgoGetHeuristic(handle_, &product_, &layouts.a, &layouts.b, &layouts.d,
                                         &layouts.d, &preference, most, results.data(), &found);
  if (error != CUBLAS_STATUS_SUCCESS && error != CUBLAS_STATUS_NOT_SUPPORTED) {
    return Check("cublasLtMatmulAlgoGetHeuristic", error);
  }
  std::vector<cublasLtMatmulAlgo_t> answers;
  for (int i = 0; error == CUBLAS_STATUS_SUCCESS && i < found; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) answers.push_back(results[i].algo);
  }
  if (answers.empty()) {
    return absl::UnimplementedError(
        absl::StrCat("matmul: cuBLASLt has no algorithm for ", ShapeName(key.shape)));
  }
  return answers;
}

absl::Status LtMatMul::Choose(const Key& key, Choice& choice) {
  Layouts layouts;
  absl::Status status = Check("cublasLtMatrixLayoutInit", layouts.Init(key.shape, key.shape.rows));
  if (!status.ok()) return status;
  const ProductAlgorithm* tabled = FindAlgorithm(context_.name(), key.shape);
  choice.tabled = tabled != nullptr;
  if (choice.tabled) return Tabled(*tabled, key, layouts, choice.algorithm);
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> answers = Answers(key, layouts, 1);
  if (!answers.ok()) return answers.status();
  choice.algorithm = answers->front();
  return absl::OkStatus();
}

absl::StatusOr<const LtMatMul::Choice*> LtMatMul::Find(const Key& key) {
  if (const auto found = choices_.find(key); found != choices_.end()) return &found->second;
  Choice choice = {};
  if (absl::Status status = Choose(key, choice); !status.ok()) return status;
  return &choices_.emplace(key, choice).first->second;
}

absl::Status LtMatMul::Prepare(const MatMulParams& p, const ProductForm& form) {
  if (absl::Status status = Create(); !status.ok()) return status;
  Key key = KeyOf(p, form);
  for (int32_t bucket = RowBucket(1); bucket <= RowBucket(p.rows); bucket *= 2) {
    key.shape.rows = bucket;
    if (choices_.contains(key)) continue;
    const absl::StatusOr<const Choice*> choice = Find(key);
    if (!choice.ok()) return choice.status();
    MatMulParams one = p;
    one.rows = std::min(bucket, p.rows);
    absl::Status loaded = DryRun(context_, [&] { return Issue(one, form, (*choice)->algorithm); });
    if (!loaded.ok()) return loaded;
  }
  return absl::OkStatus();
}

LtMatMul::Key LtMatMul::KeyOf(const MatMulParams& p, const ProductForm& form) {
  return {ProductShape{RowBucket(p.rows), p.weight.rows, p.weight.cols, p.weight.dtype, p.out.dtype,
                       form.parts},
          AlignmentOf(p.weight.data, p.weight.cols, p.weight.dtype),
          AlignmentOf(p.in.data, p.in.width, p.in.dtype),
          AlignmentOf(p.out.data, p.out.width, p.out.dtype), form.add};
}

absl::Status LtMatMul::Run(const MatMulParams& p, const ProductForm& form) {
  const Key key = KeyOf(p, form);
  if (context_.recording() && !choices_.contains(key)) {
    return absl::FailedPreconditionError(
        absl::StrCat("matmul: recording ", ShapeName(key.shape), ", which was not prepared"));
  }
  if (workspace_ == nullptr) {
    if (absl::Status status = Create(); !status.ok()) return status;
  }
  const absl::StatusOr<const Choice*> choice = Find(key);
  if (!choice.ok()) return choice.status();
  return Issue(p, form, (*choice)->algorithm);
}

absl::Status LtMatMul::Issue(const MatMulParams& p, const ProductForm& form,
                             const cublasLtMatmulAlgo_t& algorithm) {
  Layouts layouts;
  if (absl::Status status =
          Check("cublasLtMatrixLayoutInit", layouts.Init(KeyOf(p, form).shape, p.rows));
      !status.ok()) {
    return status;
  }
  const float alpha = 1;
  const float beta = form.add ? 1 : 0;
  return Check("cublasLtMatmul",
               cublasLtMatmul(handle_, &product_, &alpha, p.weight.data, &layouts.a, p.in.data,
                              &layouts.b, &beta, p.out.data, &layouts.d, p.out.data, &layouts.d,
                              &algorithm, workspace_->data(), kWorkspaceBytes, context_.stream()));
}

std::vector<std::string> LtMatMul::Notes() const {
  using Weight = std::tuple<int32_t, int32_t, DType, DType>;
  std::set<Weight> all;
  std::set<Weight> untabled;
  for (const auto& [key, choice] : choices_) {
    const ProductShape& s = key.shape;
    all.emplace(s.outputs, s.inputs, s.dtype, s.out);
    if (!choice.tabled) untabled.emplace(s.outputs, s.inputs, s.dtype, s.out);
  }
  if (untabled.empty()) return {};
  return {absl::StrCat("matrix products: ", untabled.size(), " of ", all.size(),
                       " shapes are not in the kernel table for ", context_.name(),
                       "; they take cuBLASLt's first answer")};
}

}  // namespace sirocco::cuda
