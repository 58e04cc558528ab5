// The eager pass: one entry an operation. Decode and prefill differ in where positions come from
// and in the attention.
#include "absl/strings/str_cat.h"
#include "graphs/compose.h"

namespace sirocco {
namespace {

enum class Pass { kDecode, kPrefill };

void AddProjection(std::string_view part, const Rows& in, const Matrix& weight, const float* bias,
                   const Rows& out, Plan& plan) {
  plan.Add(part, MatMulParams{.in = in, .weight = weight, .bias = bias, .out = out});
}

void AddAttention(const ComposeContext& context, std::string_view part, const LayerParams& layer,
                  Pass pass, Plan& plan) {
  const StepBuffers& b = context.buffers;
  const int32_t head_dim = context.descriptor.head_dim;
  plan.Add(part, RmsNormParams{.in = b.hidden,
                               .weight = layer.attention_norm,
                               .epsilon = layer.norm_epsilon,
                               .out = b.normed});
  AddProjection(part, b.normed, layer.q, layer.q_bias, b.q, plan);
  AddProjection(part, b.normed, layer.k, layer.k_bias, b.k, plan);
  AddProjection(part, b.normed, layer.v, layer.v_bias, b.v, plan);
  for (const Rows& heads : {b.q, b.k}) {
    plan.Add(part, RotaryParams{
                       .map = b.rows, .heads = heads, .head_dim = head_dim, .table = layer.rotary});
  }
  plan.Add(part, WriteKvParams{
                     .map = b.rows, .lanes = context.lanes, .k = b.k, .v = b.v, .kv = layer.kv});
  if (pass == Pass::kDecode) {
    plan.Add(part, DecodeAttentionParams{.map = b.rows,
                                         .lanes = context.lanes,
                                         .q = b.q,
                                         .shape = layer.attention,
                                         .kv = layer.kv,
                                         .layer = {},
                                         .out = b.attention});
  } else {
    plan.Add(part, PrefillAttentionParams{.map = b.rows,
                                          .lanes = context.lanes,
                                          .segments = b.segments,
                                          .segment_count = b.segment_count,
                                          .q = b.q,
                                          .shape = layer.attention,
                                          .kv = layer.kv,
                                          .out = b.attention});
  }
  AddProjection(part, b.attention, layer.o, layer.o_bias, b.delta, plan);
  plan.Add(part, AddParams{.sum = b.hidden, .delta = b.delta});
}

void AddMlp(const ComposeContext& context, std::string_view part, const LayerParams& layer,
            Plan& plan) {
  const StepBuffers& b = context.buffers;
  plan.Add(part, RmsNormParams{.in = b.hidden,
                               .weight = layer.mlp_norm,
                               .epsilon = layer.norm_epsilon,
                               .out = b.normed});
  AddProjection(part, b.normed, layer.gate, layer.gate_bias, b.gate, plan);
  AddProjection(part, b.normed, layer.up, layer.up_bias, b.up, plan);
  plan.Add(part,
           GatedActivationParams{
               .gate = b.gate, .up = b.up, .out = b.activated, .activation = layer.activation});
  AddProjection(part, b.activated, layer.down, layer.down_bias, b.delta, plan);
  plan.Add(part, AddParams{.sum = b.hidden, .delta = b.delta});
}

void AddLayers(const ComposeContext& context, Pass pass, Plan& plan) {
  for (size_t i = 0; i < context.layers.size(); ++i) {
    const std::string part = absl::StrCat("layer ", i);
    AddAttention(context, part, context.layers[i], pass, plan);
    AddMlp(context, part, context.layers[i], plan);
  }
}

}  // namespace

BeginStepParams DecodeBegin(const ComposeContext& context, int32_t* layer_counter) {
  const StepBuffers& b = context.buffers;
  return {.map = b.rows,
          .derive_positions = true,
          .updates = b.updates,
          .update_count = b.update_count,
          .layer_counter = layer_counter,
          .lanes = context.lanes};
}

EmbedParams Embed(const ComposeContext& context) {
  return {.map = context.buffers.rows,
          .lanes = context.lanes,
          .table = context.weights.embedding,
          .scale = context.descriptor.embedding_scale,
          .out = context.buffers.hidden};
}

RmsNormParams FinalNorm(const ComposeContext& context) {
  return {.in = context.buffers.hidden,
          .weight = context.weights.final_norm,
          .epsilon = context.descriptor.norm_epsilon,
          .out = context.buffers.normed};
}

MatMulParams LmHead(const ComposeContext& context, const Rows& in) {
  return {.in = in, .weight = context.weights.head, .out = context.buffers.logits};
}

void AddSample(const ComposeContext& context, const int32_t* lanes, Plan& plan) {
  const StepBuffers& b = context.buffers;
  if (context.keep_logits) {
    plan.Add("epilogue",
             GatherRowsParams{.in = b.logits, .index = b.identity, .out = b.kept_logits});
  }
  plan.Add(
      "epilogue",
      SampleParams{.row_lane = lanes, .lanes = context.lanes, .logits = b.logits, .out = b.scores});
}

Plan ComposeEagerDecode(const ComposeContext& context) {
  Plan plan;
  plan.Add("prologue", DecodeBegin(context, nullptr));
  plan.Add("prologue", Embed(context));
  AddLayers(context, Pass::kDecode, plan);
  plan.Add("epilogue", FinalNorm(context));
  plan.Add("epilogue", LmHead(context, context.buffers.normed));
  AddSample(context, context.buffers.rows.lane, plan);
  return plan;
}

Plan ComposePrefill(const ComposeContext& context) {
  Plan plan;
  BeginStepParams begin = DecodeBegin(context, nullptr);
  begin.derive_positions = false;
  plan.Add("prologue", begin);
  plan.Add("prologue", Embed(context));
  AddLayers(context, Pass::kPrefill, plan);
  return plan;
}

Plan ComposePrefillHead(const ComposeContext& context) {
  const StepBuffers& b = context.buffers;
  Plan plan;
  plan.Add("epilogue",
           GatherRowsParams{.in = b.hidden, .index = b.head_index, .out = b.head_hidden});
  RmsNormParams norm = FinalNorm(context);
  norm.in = b.head_hidden;
  norm.out = b.head_normed;
  plan.Add("epilogue", norm);
  plan.Add("epilogue", LmHead(context, b.head_normed));
  return plan;
}

}  // namespace sirocco
