// Operations row by row: a step's begin, embedding, norms, rotary, KV write, activation, addition,
// and the product.

#include "kernels/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/types.h"

namespace sirocco::cuda {
namespace {

// A type of its own beside float32 is that of the model's weights: one in an operation.
Checks& OneTypeBesideFloat32(Checks& checks, const Rows& in, const Rows& out) {
  if (in.dtype == DType::kFloat32 || out.dtype == DType::kFloat32) return checks;
  return checks.SameType("out", out.dtype, "in", in.dtype);
}

Checks& WholeHeads(Checks& checks, const Rows& heads, int32_t head_dim) {
  checks.Activations("heads", heads, heads.width).Positive("head_dim", head_dim);
  if (!checks.ok()) return checks;
  return checks.That(heads.width % head_dim == 0, "heads is no multiple of head_dim wide");
}

}  // namespace

absl::Status CudaOps::Run(const BeginStepParams& p) {
  Checks checks("begin_step", kTypes);
  checks.RowCount(p.rows).NotNull("map.lane", p.map.lane);
  if (p.derive_positions) {
    checks.NotNull("map.position", p.map.position).NotNull("lanes.lane", p.lanes.lane);
  }
  if (p.update_count != nullptr) {
    checks.NotNull("updates", p.updates).NotNull("lanes.block_table", p.lanes.block_table);
  }
  if (!checks.ok()) return checks.status();
  return Enqueue("begin_step", launchers_.begin_step, nullptr, p);
}

absl::Status CudaOps::Run(const EmbedParams& p) {
  Checks checks("embed", kTypes);
  checks.RowCount(p.rows).Map(p.map).NotNull("lanes.history", p.lanes.history);
  checks.Weights("table", p.table, p.table.rows, p.table.cols);
  checks.Residual("out", p.out, p.table.cols);
  if (!checks.ok()) return checks.status();
  return Enqueue("embed", launchers_.embed, nullptr, p);
}

absl::Status CudaOps::Run(const RmsNormParams& p) {
  Checks checks("rms_norm", kTypes);
  checks.RowCount(p.rows).Activations("in", p.in, p.in.width).NotNull("weight", p.weight);
  OneTypeBesideFloat32(checks.Activations("out", p.out, p.in.width), p.in, p.out);
  if (!checks.ok()) return checks.status();
  return Enqueue("rms_norm", launchers_.rms_norm, nullptr, p);
}

absl::Status CudaOps::Run(const HeadNormParams& p) {
  Checks checks("head_norm", kTypes);
  WholeHeads(checks.RowCount(p.rows), p.heads, p.head_dim).NotNull("weight", p.weight);
  if (!checks.ok()) return checks.status();
  return Enqueue("head_norm", launchers_.head_norm, nullptr, p);
}

absl::Status CudaOps::Run(const AddNormParams& p) {
  Checks checks("add_norm", kTypes);
  checks.RowCount(p.rows).Residual("sum", p.sum, p.sum.width);
  checks.Residual("delta", p.delta, p.sum.width);
  if (p.weight != nullptr) checks.Activations("normed", p.normed, p.sum.width);
  if (!checks.ok()) return checks.status();
  return Enqueue("add_norm", launchers_.add_norm, nullptr, p);
}

absl::Status CudaOps::Run(const RotaryParams& p) {
  Checks checks("rotary", kTypes);
  WholeHeads(checks.RowCount(p.rows).Map(p.map), p.heads, p.head_dim).Rotary(p.table, p.head_dim);
  if (!checks.ok()) return checks.status();
  return Enqueue("rotary", launchers_.rotary, nullptr, p);
}

absl::Status CudaOps::Run(const WriteKvParams& p) {
  Checks checks("write_kv", kTypes);
  checks.RowCount(p.rows).Map(p.map).Kv(p.kv, p.lanes);
  const int64_t width = int64_t{p.kv.kv_heads} * p.kv.head_dim;
  checks.Activations("k", p.k, width).Activations("v", p.v, width);
  checks.SameType("v", p.v.dtype, "k", p.k.dtype);
  if (!checks.ok()) return checks.status();
  return Enqueue("write_kv", launchers_.write_kv, nullptr, p);
}

absl::Status CudaOps::Run(const AddParams& p) {
  Checks checks("add", kTypes);
  checks.RowCount(p.rows).Residual("sum", p.sum, p.sum.width);
  checks.Activations("delta", p.delta, p.sum.width);
  if (!checks.ok()) return checks.status();
  return Enqueue("add", launchers_.add, nullptr, p);
}

absl::Status CudaOps::Run(const GatedActivationParams& p) {
  Checks checks("gated_activation", kTypes);
  checks.RowCount(p.rows).Activations("gate", p.gate, p.gate.width);
  checks.Activations("up", p.up, p.gate.width).Activations("out", p.out, p.gate.width);
  checks.SameType("up", p.up.dtype, "gate", p.gate.dtype);
  checks.SameType("out", p.out.dtype, "gate", p.gate.dtype);
  if (!checks.ok()) return checks.status();
  return Enqueue("gated_activation", launchers_.gated_activation, nullptr, p);
}

absl::Status CudaOps::Run(const GatherRowsParams& p) {
  Checks checks("gather_rows", kTypes);
  checks.RowCount(p.rows).Activations("in", p.in, p.in.width).NotNull("index", p.index);
  checks.Activations("out", p.out, p.in.width).SameType("out", p.out.dtype, "in", p.in.dtype);
  if (!checks.ok()) return checks.status();
  return Enqueue("gather_rows", launchers_.gather_rows, nullptr, p);
}

absl::Status CudaOps::Run(const MatMulParams& p) {
  Checks checks("matmul", kTypes);
  checks.RowCount(p.rows).Weights("weight", p.weight, p.weight.rows, p.weight.cols);
  checks.Activations("in", p.in, p.weight.cols).Activations("out", p.out, p.weight.rows);
  checks.SameType("in", p.in.dtype, "weight", p.weight.dtype);
  if (p.out.dtype != DType::kFloat32) {
    checks.SameType("out", p.out.dtype, "weight", p.weight.dtype);
  }
  if (!checks.ok()) return checks.status();
  if (LtMatMul::Takes(p)) return LibraryMatMul(p);
  return Enqueue("matmul", launchers_.matmul, launchers_.matmul_scratch, p);
}

absl::Status CudaOps::LibraryMatMul(const MatMulParams& p) {
  if (sink_.preparing()) {
    // Later products of this shape may have so few rows that they are not the library's.
    MatMulParams few = p;
    few.rows = LtMatMul::kOwnRows;
    absl::Status status = sink_.NeedScratch(launchers_.matmul_scratch(few));
    return status.ok() ? library_.Prepare(p) : status;
  }
  const absl::StatusOr<LaunchContext> context = sink_.Context(true);
  if (!context.ok()) return context.status();
  if (absl::Status status = library_.Run(p); !status.ok()) return status;
  if (p.bias == nullptr) return sink_.Launched("matmul", cudaSuccess);
  return sink_.Launched("matmul", launchers_.add_bias(p.rows, p.out, p.bias, *context));
}

}  // namespace sirocco::cuda
