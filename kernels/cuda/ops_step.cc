// Attention, sampling, and the fused operations of the step plans.

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/types.h"

namespace sirocco::cuda {
namespace {

// What attention of both kinds takes: q and out are `heads` wide, which are a multiple of kv_heads.
Checks& CheckAttention(Checks& checks, int32_t heads, int32_t kv_heads, int32_t head_dim,
                       const Rows& q, const Rows& out) {
  checks.Positive("heads", heads).Positive("kv_heads", kv_heads).Positive("head_dim", head_dim);
  if (checks.ok()) {
    checks.That(heads % kv_heads == 0, "heads is no multiple of the KV's heads");
  }
  const int64_t width = int64_t{heads} * head_dim;
  checks.Activations("q", q, width).Activations("out", out, width);
  return checks.SameType("out", out.dtype, "q", q.dtype);
}

// The residual stream before an operation that takes in the last block's delta, where there is one.
Checks& CheckStream(Checks& checks, const Rows& hidden, const Rows& delta, const Rows& sum,
                    int64_t width) {
  checks.Residual("hidden", hidden, width);
  if (delta.data == nullptr && sum.data == nullptr) return checks;
  checks.Residual("delta", delta, width).Residual("sum", sum, width);
  return checks.That(sum.data != hidden.data && sum.data != delta.data,
                     "sum is the same buffer as hidden or delta");
}

template <typename Params>
Checks& CheckQkv(Checks& checks, const Params& p) {
  const LayerRef& layer = p.layer;
  checks.RowCount(p.rows).Map(p.map).Layer(layer).Positive("layer.head_dim", layer.head_dim);
  checks.Positive("layer.q_rows", layer.q_rows).Positive("layer.kv_rows", layer.kv_rows);
  if (checks.ok()) {
    checks.That(layer.q_rows % layer.head_dim == 0 && layer.kv_rows % layer.head_dim == 0,
                "layer.q_rows or layer.kv_rows is no multiple of layer.head_dim");
  }
  checks.NotNull("lanes.block_table", p.lanes.block_table);
  checks.Activations("normed", p.normed, p.normed.width);
  checks.Activations("q_out", p.q_out, layer.q_rows);
  return checks.SameType("q_out", p.q_out.dtype, "normed", p.normed.dtype);
}

Checks& CheckResidual(Checks& checks, int32_t rows, const LayerRef& layer, const Rows& in,
                      const Rows& hidden, const Rows& delta) {
  checks.RowCount(rows).Layer(layer).Activations("in", in, in.width);
  checks.Residual("hidden", hidden, hidden.width);
  if (delta.data == nullptr) return checks;
  return checks.Residual("delta", delta, hidden.width)
      .That(delta.data != hidden.data, "delta is the same buffer as hidden");
}

}  // namespace

absl::Status CudaOps::Run(const DecodeAttentionParams& p) {
  Checks checks("attention", kTypes);
  checks.RowCount(p.rows).Map(p.map);
  int32_t heads = p.shape.heads;
  int32_t kv_heads = p.kv.kv_heads;
  int32_t head_dim = p.kv.head_dim;
  if (p.layer.table != nullptr) {
    checks.Layer(p.layer).Positive("layer.head_dim", p.layer.head_dim);
    checks.NotNull("lanes.block_table", p.lanes.block_table);
    if (!checks.ok()) return checks.status();
    head_dim = p.layer.head_dim;
    kv_heads = p.layer.kv_rows / head_dim;
    heads = p.layer.q_rows / head_dim;
  } else {
    checks.Kv(p.kv, p.lanes);
  }
  CheckAttention(checks, heads, kv_heads, head_dim, p.q, p.out);
  if (!checks.ok()) return checks.status();
  return Enqueue("attention", launchers_.decode_attention, launchers_.decode_attention_scratch, p);
}

absl::Status CudaOps::Run(const PrefillAttentionParams& p) {
  Checks checks("prefill_attention", kTypes);
  checks.RowCount(p.rows).Map(p.map).Kv(p.kv, p.lanes);
  checks.NotNull("segments", p.segments).NotNull("segment_count", p.segment_count);
  CheckAttention(checks, p.shape.heads, p.kv.kv_heads, p.kv.head_dim, p.q, p.out);
  if (!checks.ok()) return checks.status();
  return Enqueue("prefill_attention", launchers_.prefill_attention, nullptr, p);
}

absl::Status CudaOps::Run(const SampleParams& p) {
  Checks checks("sample", kTypes);
  checks.RowCount(p.rows).NotNull("row_lane", p.row_lane).NotNull("out", p.out);
  checks.Residual("logits", p.logits, p.lanes.vocab_size);
  checks.NotNull("lanes.lane", p.lanes.lane).NotNull("lanes.history", p.lanes.history);
  if (!checks.ok()) return checks.status();
  return Enqueue("sample", launchers_.sample, launchers_.sample_scratch, p);
}

absl::Status CudaOps::Run(const ScoreTokensParams& p) {
  Checks checks("score_tokens", kTypes);
  checks.RowCount(p.rows).Map(p.map).NotNull("out", p.out);
  checks.Residual("logits", p.logits, p.lanes.vocab_size);
  checks.NotNull("lanes.history", p.lanes.history);
  checks.That(p.top >= 0 && p.top <= kMaxTopLogprobs,
              absl::StrCat("top is ", p.top, ", must be 0 ... ", kMaxTopLogprobs));
  if (!checks.ok()) return checks.status();
  return Enqueue("score_tokens", launchers_.score_tokens, launchers_.score_tokens_scratch, p);
}

absl::Status CudaOps::Run(const NormQkvParams& p) {
  Checks checks("norm_qkv", kTypes);
  CheckStream(CheckQkv(checks, p), p.hidden, p.delta, p.sum, p.normed.width);
  if (!checks.ok()) return checks.status();
  // The last kernel of the layer before may still have the counter to move on: this one starts when
  // that has ended, and so do all kernels of the layer, which may then read the counter at once.
  const bool programmatic = p.layer.counter == nullptr;
  return Enqueue("norm_qkv", launchers_.norm_qkv, launchers_.norm_qkv_scratch, p, programmatic);
}

absl::Status CudaOps::Run(const QkvParams& p) {
  Checks checks("qkv", kTypes);
  if (!CheckQkv(checks, p).ok()) return checks.status();
  const bool programmatic = p.layer.counter == nullptr;
  return Enqueue("qkv", launchers_.qkv, launchers_.qkv_scratch, p, programmatic);
}

absl::Status CudaOps::Run(const OutputResidualParams& p) {
  Checks checks("output_residual", kTypes);
  CheckResidual(checks, p.rows, p.layer, p.attention, p.hidden, p.delta);
  if (!checks.ok()) return checks.status();
  return Enqueue("output_residual", launchers_.output_residual, launchers_.output_residual_scratch,
                 p);
}

absl::Status CudaOps::Run(const NormGateUpParams& p) {
  Checks checks("norm_gate_up", kTypes);
  checks.RowCount(p.rows).Layer(p.layer);
  CheckStream(checks, p.hidden, p.delta, p.sum, p.hidden.width);
  checks.Activations("normed", p.normed, p.hidden.width);
  checks.Activations("out", p.out, p.layer.intermediate);
  checks.SameType("out", p.out.dtype, "normed", p.normed.dtype);
  if (!checks.ok()) return checks.status();
  return Enqueue("norm_gate_up", launchers_.norm_gate_up, launchers_.norm_gate_up_scratch, p);
}

absl::Status CudaOps::Run(const DownResidualParams& p) {
  Checks checks("down_residual", kTypes);
  CheckResidual(checks, p.rows, p.layer, p.in, p.hidden, p.delta);
  if (!checks.ok()) return checks.status();
  return Enqueue("down_residual", launchers_.down_residual, launchers_.down_residual_scratch, p);
}

absl::Status CudaOps::Run(const DownNormParams& p) {
  Checks checks("down_norm", kTypes);
  CheckResidual(checks, p.rows, p.layer, p.in, p.hidden, p.delta);
  checks.Activations("normed", p.normed, p.hidden.width).NotNull("next_norm", p.next_norm);
  checks.SameType("normed", p.normed.dtype, "in", p.in.dtype);
  if (!checks.ok()) return checks.status();
  return Enqueue("down_norm", launchers_.down_norm, launchers_.down_norm_scratch, p);
}

}  // namespace sirocco::cuda
