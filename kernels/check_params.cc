#include "kernels/check_params.h"

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

// Activations of one operation have one type, but for those that are float32.
void OneTypeBesideFloat32(Checks& checks, const Rows& in, const Rows& out) {
  if (in.dtype == DType::kFloat32 || out.dtype == DType::kFloat32) return;
  checks.SameType("out", out.dtype, "in", in.dtype);
}

void WholeHeads(Checks& checks, const Rows& heads, int32_t head_dim) {
  checks.Activations("heads", heads, heads.width).Positive("head_dim", head_dim);
  if (!checks.ok()) return;
  checks.That(heads.width % head_dim == 0, "heads is no multiple of head_dim wide");
}

// What attention of both kinds takes: q and out are `heads` wide, which are a multiple of kv_heads.
void CheckHeads(Checks& checks, int32_t heads, const KvLayer& kv, const Rows& q, const Rows& out) {
  checks.Positive("heads", heads).Positive("kv_heads", kv.kv_heads);
  checks.Positive("head_dim", kv.head_dim);
  if (!checks.ok()) return;
  checks.That(heads % kv.kv_heads == 0, "heads is no multiple of the KV's heads");
  const int64_t width = int64_t{heads} * kv.head_dim;
  checks.Activations("q", q, width).Activations("out", out, width);
  checks.SameType("out", out.dtype, "q", q.dtype);
}

// The residual stream before an operation that takes in the last block's delta, where there is one.
void CheckStream(Checks& checks, const Rows& hidden, const Rows& delta, const Rows& sum,
                 int64_t width) {
  checks.Residual("hidden", hidden, width);
  if (delta.data == nullptr && sum.data == nullptr) return;
  checks.Residual("delta", delta, width).Residual("sum", sum, width);
  checks.That(sum.data != hidden.data && sum.data != delta.data,
              "sum is the same buffer as hidden or delta");
}

template <typename Params>
Checks CheckQkv(std::string_view operation, const Params& p, const BackendTypes& types) {
  const LayerRef& layer = p.layer;
  Checks checks(operation, types);
  checks.RowCount(p.rows).Layer(layer).Positive("layer.head_dim", layer.head_dim);
  checks.Positive("layer.q_rows", layer.q_rows).Positive("layer.kv_rows", layer.kv_rows);
  if (checks.ok()) {
    checks.That(layer.q_rows % layer.head_dim == 0 && layer.kv_rows % layer.head_dim == 0,
                "layer.q_rows or layer.kv_rows is no multiple of layer.head_dim");
  }
  if (checks.ok()) {
    checks.That(layer.q_rows % layer.kv_rows == 0, "heads is no multiple of the KV's heads");
  }
  checks.Residual("qkv", p.qkv, layer.q_rows + 2 * layer.kv_rows);
  return checks;
}

// A product that adds to the residual stream, or goes to `delta`. `in` has this name.
template <typename Params>
Checks CheckResidual(std::string_view operation, const Params& p, std::string_view name,
                     const Rows& in, const BackendTypes& types) {
  Checks checks(operation, types);
  checks.RowCount(p.rows).Layer(p.layer).Activations(name, in, in.width);
  checks.Residual("hidden", p.hidden, p.hidden.width);
  if (p.delta.data == nullptr) return checks;
  checks.Residual("delta", p.delta, p.hidden.width);
  checks.That(p.delta.data != p.hidden.data, "delta is the same buffer as hidden");
  return checks;
}

}  // namespace

Checks CheckParams(const BeginStepParams& p, const BackendTypes& types) {
  Checks checks("begin_step", types);
  checks.RowCount(p.rows).NotNull("map.lane", p.map.lane);
  if (p.derive_positions) {
    checks.NotNull("map.position", p.map.position).NotNull("lanes.lane", p.lanes.lane);
  }
  if (p.update_count != nullptr) {
    checks.NotNull("updates", p.updates).NotNull("lanes.block_table", p.lanes.block_table);
  }
  return checks;
}

Checks CheckParams(const EmbedParams& p, const BackendTypes& types) {
  Checks checks("embed", types);
  checks.RowCount(p.rows).Map(p.map).NotNull("lanes.history", p.lanes.history);
  checks.Weights("table", p.table, p.table.rows, p.table.cols);
  checks.Residual("out", p.out, p.table.cols);
  return checks;
}

Checks CheckParams(const RmsNormParams& p, const BackendTypes& types) {
  Checks checks("rms_norm", types);
  checks.RowCount(p.rows).Activations("in", p.in, p.in.width);
  checks.Activations("out", p.out, p.in.width);
  OneTypeBesideFloat32(checks, p.in, p.out);
  return checks;
}

Checks CheckParams(const MatMulParams& p, const BackendTypes& types) {
  Checks checks("matmul", types);
  checks.RowCount(p.rows).Weights("weight", p.weight, p.weight.rows, p.weight.cols);
  checks.Activations("in", p.in, p.weight.cols).Activations("out", p.out, p.weight.rows);
  return checks;
}

Checks CheckParams(const HeadNormParams& p, const BackendTypes& types) {
  Checks checks("head_norm", types);
  WholeHeads(checks.RowCount(p.rows), p.heads, p.head_dim);
  checks.NotNull("weight", p.weight);
  return checks;
}

Checks CheckParams(const AddNormParams& p, const BackendTypes& types) {
  Checks checks("add_norm", types);
  checks.RowCount(p.rows).Residual("sum", p.sum, p.sum.width);
  checks.Residual("delta", p.delta, p.sum.width);
  if (p.weight != nullptr) checks.Activations("normed", p.normed, p.sum.width);
  return checks;
}

Checks CheckParams(const RotaryParams& p, const BackendTypes& types) {
  Checks checks("rotary", types);
  WholeHeads(checks.RowCount(p.rows).Map(p.map), p.heads, p.head_dim);
  checks.Rotary(p.table, p.head_dim);
  return checks;
}

Checks CheckParams(const WriteKvParams& p, const BackendTypes& types) {
  Checks checks("write_kv", types);
  checks.RowCount(p.rows).Map(p.map).Kv(p.kv, p.lanes);
  const int64_t width = int64_t{p.kv.kv_heads} * p.kv.head_dim;
  checks.Activations("k", p.k, width).Activations("v", p.v, width);
  checks.SameType("v", p.v.dtype, "k", p.k.dtype);
  return checks;
}

Checks CheckParams(const AddParams& p, const BackendTypes& types) {
  Checks checks("add", types);
  checks.RowCount(p.rows).Residual("sum", p.sum, p.sum.width);
  checks.Activations("delta", p.delta, p.sum.width);
  return checks;
}

Checks CheckParams(const GatedActivationParams& p, const BackendTypes& types) {
  Checks checks("gated_activation", types);
  checks.RowCount(p.rows).Activations("gate", p.gate, p.gate.width);
  checks.Activations("up", p.up, p.gate.width).Activations("out", p.out, p.gate.width);
  checks.SameType("up", p.up.dtype, "gate", p.gate.dtype);
  checks.SameType("out", p.out.dtype, "gate", p.gate.dtype);
  return checks;
}

Checks CheckParams(const GatherRowsParams& p, const BackendTypes& types) {
  Checks checks("gather_rows", types);
  checks.RowCount(p.rows).Activations("in", p.in, p.in.width).NotNull("index", p.index);
  checks.Activations("out", p.out, p.in.width).SameType("out", p.out.dtype, "in", p.in.dtype);
  return checks;
}

Checks CheckParams(const DecodeAttentionParams& p, const BackendTypes& types) {
  Checks checks("attention", types);
  checks.RowCount(p.rows).Map(p.map).Kv(p.kv, p.lanes);
  CheckHeads(checks, p.shape.heads, p.kv, p.q, p.out);
  return checks;
}

Checks CheckParams(const PrefillAttentionParams& p, const BackendTypes& types) {
  Checks checks("prefill_attention", types);
  checks.RowCount(p.rows).Map(p.map).Kv(p.kv, p.lanes);
  checks.NotNull("segments", p.segments).NotNull("segment_count", p.segment_count);
  CheckHeads(checks, p.shape.heads, p.kv, p.q, p.out);
  return checks;
}

Checks CheckParams(const AdjustLogitsParams& p, const BackendTypes& types) {
  Checks checks("adjust_logits", types);
  checks.RowCount(p.rows).Residual("logits", p.logits, p.logits.width);
  checks.That(p.soft_cap >= 0, "soft_cap is below 0");
  return checks;
}

Checks CheckParams(const SampleParams& p, const BackendTypes& types) {
  Checks checks("sample", types);
  checks.RowCount(p.rows).NotNull("row_lane", p.row_lane).NotNull("out", p.out);
  checks.Residual("logits", p.logits, p.lanes.vocab_size);
  checks.NotNull("lanes.lane", p.lanes.lane).NotNull("lanes.history", p.lanes.history);
  return checks;
}

Checks CheckParams(const ScoreTokensParams& p, const BackendTypes& types) {
  Checks checks("score_tokens", types);
  checks.RowCount(p.rows).Map(p.map).NotNull("out", p.out);
  checks.Residual("logits", p.logits, p.lanes.vocab_size);
  checks.NotNull("lanes.history", p.lanes.history).Within("top", p.top, 0, kMaxTopLogprobs);
  return checks;
}

Checks CheckParams(const NormQkvParams& p, const BackendTypes& types) {
  Checks checks = CheckQkv("norm_qkv", p, types);
  checks.Activations("normed", p.normed, p.normed.width);
  CheckStream(checks, p.hidden, p.delta, p.sum, p.normed.width);
  return checks;
}

Checks CheckParams(const QkvParams& p, const BackendTypes& types) {
  Checks checks = CheckQkv("qkv", p, types);
  checks.Activations("normed", p.normed, p.normed.width);
  return checks;
}

Checks CheckParams(const NormQkParams& p, const BackendTypes& types) {
  return CheckQkv("norm_qk", p, types);
}

Checks CheckParams(const QkvAttentionParams& p, const BackendTypes& types) {
  Checks checks = CheckQkv("qkv_attention", p, types);
  checks.Map(p.map).NotNull("lanes.block_table", p.lanes.block_table);
  checks.Activations("q", p.q, p.layer.q_rows);
  checks.Activations("out", p.out, p.layer.q_rows);
  checks.SameType("out", p.out.dtype, "q", p.q.dtype);
  return checks;
}

Checks CheckParams(const QkvEndParams& p, const BackendTypes& types) {
  Checks checks = CheckQkv("qkv_end", p, types);
  checks.Map(p.map).NotNull("lanes.block_table", p.lanes.block_table);
  checks.Activations("q", p.q, p.layer.q_rows);
  return checks;
}

Checks CheckParams(const OutputResidualParams& p, const BackendTypes& types) {
  return CheckResidual("output_residual", p, "attention", p.attention, types);
}

Checks CheckParams(const NormGateUpParams& p, const BackendTypes& types) {
  Checks checks("norm_gate_up", types);
  checks.RowCount(p.rows).Layer(p.layer);
  CheckStream(checks, p.hidden, p.delta, p.sum, p.hidden.width);
  checks.Activations("normed", p.normed, p.hidden.width);
  checks.Activations("out", p.out, p.layer.intermediate);
  checks.SameType("out", p.out.dtype, "normed", p.normed.dtype);
  return checks;
}

Checks CheckParams(const DownResidualParams& p, const BackendTypes& types) {
  return CheckResidual("down_residual", p, "in", p.in, types);
}

Checks CheckParams(const ExpertsParams& p, const BackendTypes& types) {
  Checks checks("experts", types);
  checks.RowCount(p.rows).Layer(p.layer).Positive("layer.experts", p.layer.experts);
  checks.Positive("layer.intermediate", p.layer.intermediate);
  checks.Within("layer.experts_a_row", p.layer.experts_a_row, 1, p.layer.experts);
  checks.Residual("hidden", p.hidden, p.hidden.width);
  checks.Activations("normed", p.normed, p.hidden.width);
  checks.NotNull("chosen", p.chosen).NotNull("shares", p.shares);
  checks.Activations("activated", p.activated,
                     int64_t{p.layer.experts_a_row} * p.layer.intermediate);
  return checks;
}

Checks CheckParams(const DownNormParams& p, const BackendTypes& types) {
  Checks checks = CheckResidual("down_norm", p, "in", p.in, types);
  checks.Activations("normed", p.normed, p.hidden.width);
  checks.SameType("normed", p.normed.dtype, "in", p.in.dtype);
  return checks;
}

Checks CheckParams(const DecoderLayersParams& p, const BackendTypes& types) {
  Checks checks("decoder_layers", types);
  checks.RowCount(p.rows).Layer(p.layer).Map(p.map);
  checks.NotNull("lanes.block_table", p.lanes.block_table).Positive("layers", p.layers);
  checks.Residual("hidden", p.hidden, p.hidden.width).NotNull("exchange", p.exchange);
  if (p.layer.counter != nullptr) {
    checks.Residual("delta", p.delta, p.hidden.width);
    checks.That(p.advance == p.layer.counter, "advance is not the layer's counter");
    return checks;
  }
  checks.That(p.layer.index == 0, "layer is not the first");
  checks.That(p.advance == nullptr, "advance is set without a counter");
  checks.NotNull("final_norm", p.final_norm);
  checks.Activations("normed", p.normed, p.hidden.width);
  return checks;
}

Checks CheckParams(const OutputGateUpParams& p, const BackendTypes& types) {
  Checks checks("output_gate_up", types);
  checks.RowCount(p.rows);
  checks.And(CheckParams(FirstOf(p), types)).And(CheckParams(SecondOf(p), types));
  checks.That(p.output.hidden.data == p.gate_up.hidden.data, "the two have other hidden rows");
  checks.That(p.output.delta.data == p.gate_up.delta.data, "the two have other delta rows");
  return checks;
}

Checks CheckParams(const DownQkvParams& p, const BackendTypes& types) {
  Checks checks("down_qkv", types);
  checks.RowCount(p.rows);
  checks.And(CheckParams(FirstOf(p), types)).And(CheckParams(SecondOf(p), types));
  checks.That(p.down.normed.data == p.qkv.normed.data, "the two have other normed rows");
  return checks;
}

absl::Status OutsideBlockTables(int32_t index, const BlockUpdate& update) {
  return absl::InvalidArgumentError(
      absl::StrCat("begin_step: block update ", index, " (lane ", update.lane, ", group ",
                   update.group, ", logical ", update.logical, ") is outside the block tables"));
}

}  // namespace sirocco
