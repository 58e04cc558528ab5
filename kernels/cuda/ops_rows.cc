// Operations row by row: a step's begin, embedding, norms, rotary, KV write, activation, addition,
// and the product.

#include "kernels/check_params.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/types.h"

namespace sirocco::cuda {
namespace {

PanelProductParams PanelsOf(const MatMulParams& p) {
  PanelProductParams panels;
  panels.rows = p.rows;
  panels.in = p.in;
  panels.weight = p.weight;
  panels.bias = p.bias;
  panels.out = p.out;
  return panels;
}

}  // namespace

absl::Status CudaOps::Run(const BeginStepParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.begin_step, nullptr, p);
}

absl::Status CudaOps::Run(const EmbedParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.embed, nullptr, p);
}

absl::Status CudaOps::Run(const RmsNormParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.rms_norm, nullptr, p);
}

absl::Status CudaOps::Run(const HeadNormParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.head_norm, nullptr, p);
}

absl::Status CudaOps::Run(const AddNormParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.add_norm, nullptr, p);
}

absl::Status CudaOps::Run(const RotaryParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.rotary, nullptr, p);
}

absl::Status CudaOps::Run(const WriteKvParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.write_kv, nullptr, p);
}

absl::Status CudaOps::Run(const AddParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.add, nullptr, p);
}

absl::Status CudaOps::Run(const GatedActivationParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.gated_activation, nullptr, p);
}

absl::Status CudaOps::Run(const GatherRowsParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.gather_rows, nullptr, p);
}

absl::Status CudaOps::Run(const AdjustLogitsParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.adjust_logits, nullptr, p);
}

absl::Status CudaOps::Run(const MatMulParams& p) {
  Checks checks = CheckParams(p, kTypes);
  checks.SameType("in", p.in.dtype, "weight", p.weight.dtype);
  if (p.out.dtype != DType::kFloat32) {
    checks.SameType("out", p.out.dtype, "weight", p.weight.dtype);
  }
  if (!checks.ok()) return checks.status();
  const bool panels = PanelsTake(PanelsOf(p));
  if (!panels && (library_ == nullptr || !LtMatMul::Takes(p))) {
    return Enqueue(checks, launchers_.matmul, launchers_.matmul_scratch, p);
  }
  if (sink_.preparing() && !panels_for_any_rows_) {
    if (absl::Status status = PrepareFewerRows(p); !status.ok()) return status;
  }
  return panels ? PanelMatMul(p) : LibraryMatMul(p);
}

// Later products of this shape may have so few rows that others make them.
absl::Status CudaOps::PrepareFewerRows(const MatMulParams& p) {
  MatMulParams few = p;
  few.rows = LtMatMul::kOwnRows;
  absl::Status status =
      Enqueue(CheckParams(few, kTypes), launchers_.matmul, launchers_.matmul_scratch, few);
  if (!status.ok() || panels_ == nullptr) return status;
  for (const int32_t most : {kPanelRows, kPanelRows / 2}) {
    few.rows = most;
    if (p.rows > most && PanelsTake(PanelsOf(few))) return PanelMatMul(few);
  }
  return absl::OkStatus();
}

absl::Status CudaOps::PanelMatMul(const MatMulParams& p) {
  const absl::StatusOr<LaunchContext> context = sink_.Context(true);
  if (!context.ok()) return context.status();
  return sink_.Launched("matmul", panels_(PanelsOf(p), maps_, *context));
}

absl::Status CudaOps::LibraryMatMul(const MatMulParams& p) {
  const absl::StatusOr<LaunchContext> context = sink_.Context(true);
  if (!context.ok()) return context.status();
  absl::Status status = sink_.preparing() ? library_->Prepare(p) : library_->Run(p);
  if (!status.ok()) return status;
  if (p.bias == nullptr) return sink_.Launched("matmul", cudaSuccess);
  return sink_.Launched("matmul", launchers_.add_bias(p.rows, p.out, p.bias, *context));
}

}  // namespace sirocco::cuda
