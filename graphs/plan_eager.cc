// The eager pass: one entry an operation, nothing fused.
#include <span>
#include <string>

#include "absl/strings/str_cat.h"
#include "graphs/compose.h"

namespace sirocco {
namespace {

void AddProjection(std::string_view part, const Rows& in, const Matrix& weight, const float* bias,
                   const Rows& out, Plan& plan) {
  plan.Add(part, MatMulParams{.in = in, .weight = weight, .bias = bias, .out = out});
}

void AddHeadNorm(std::string_view part, const Rows& heads, const float* weight,
                 const LayerParams& layer, int32_t head_dim, Plan& plan) {
  plan.Add(
      part,
      HeadNormParams{
          .heads = heads, .head_dim = head_dim, .weight = weight, .epsilon = layer.norm_epsilon});
}

void AddNorm(const ComposeContext& context, std::string_view part, const float* weight,
             Plan& plan) {
  const StepBuffers& b = context.buffers;
  plan.Add(part, RmsNormParams{.in = b.hidden,
                               .weight = weight,
                               .epsilon = context.descriptor.norm_epsilon,
                               .out = b.normed});
}

// hidden += delta, which goes through `post_norm` before where the model has such norms.
void AddResidual(const ComposeContext& context, std::string_view part, const float* post_norm,
                 Plan& plan) {
  const StepBuffers& b = context.buffers;
  if (context.descriptor.post_norms) {
    plan.Add(part, RmsNormParams{.in = b.delta,
                                 .weight = post_norm,
                                 .epsilon = context.descriptor.norm_epsilon,
                                 .out = b.delta});
  }
  plan.Add(part, AddParams{.sum = b.hidden, .delta = b.delta});
}

// From `normed` to `delta`.
void AddAttention(const ComposeContext& context, std::string_view part, const LayerParams& layer,
                  Plan& plan) {
  const StepBuffers& b = context.buffers;
  const int32_t head_dim = context.descriptor.head_dim;
  AddProjection(part, b.normed, layer.q, layer.q_bias, b.q, plan);
  AddProjection(part, b.normed, layer.k, layer.k_bias, b.k, plan);
  AddProjection(part, b.normed, layer.v, layer.v_bias, b.v, plan);
  if (context.descriptor.head_norms) {
    AddHeadNorm(part, b.q, layer.q_norm, layer, head_dim, plan);
    AddHeadNorm(part, b.k, layer.k_norm, layer, head_dim, plan);
  }
  if (context.descriptor.whole_norms) {
    AddHeadNorm(part, b.q, layer.q_whole_norm, layer, b.q.width, plan);
    AddHeadNorm(part, b.k, layer.k_whole_norm, layer, b.k.width, plan);
  }
  for (const Rows& heads : {b.q, b.k}) {
    plan.Add(part, RotaryParams{
                       .map = b.rows, .heads = heads, .head_dim = head_dim, .table = layer.rotary});
  }
  plan.Add(part, WriteKvParams{
                     .map = b.rows, .lanes = context.lanes, .k = b.k, .v = b.v, .kv = layer.kv});
  plan.Add(part, DecodeAttentionParams{.map = b.rows,
                                       .lanes = context.lanes,
                                       .q = b.q,
                                       .shape = layer.attention,
                                       .kv = layer.kv,
                                       .out = b.attention});
  AddProjection(part, b.attention, layer.o, layer.o_bias, b.delta, plan);
}

// From `normed` to `delta`.
void AddMlp(const ComposeContext& context, std::string_view part, const LayerParams& layer,
            Plan& plan) {
  const StepBuffers& b = context.buffers;
  AddProjection(part, b.normed, layer.gate, layer.gate_bias, b.gate, plan);
  AddProjection(part, b.normed, layer.up, layer.up_bias, b.up, plan);
  plan.Add(part,
           GatedActivationParams{
               .gate = b.gate, .up = b.up, .out = b.activated, .activation = layer.activation});
  AddProjection(part, b.activated, layer.down, layer.down_bias, b.delta, plan);
}

}  // namespace

void AddEagerLayers(const ComposeContext& context, Plan& plan) {
  const std::span<const LayerParams> layers = context.layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string part = absl::StrCat("layer ", i);
    const LayerParams& layer = layers[i];
    plan.SetLayer(static_cast<int32_t>(i));
    AddNorm(context, part, layer.attention_norm, plan);
    AddAttention(context, part, layer, plan);
    AddResidual(context, part, layer.attention_post_norm, plan);
    if (context.descriptor.experts > 0) {  // which norm for themselves
      AddExperts(context, part, MakeLayerRef(context, nullptr, static_cast<int32_t>(i)), nullptr,
                 plan);
      continue;
    }
    AddNorm(context, part, layer.mlp_norm, plan);
    AddMlp(context, part, layer, plan);
    AddResidual(context, part, layer.mlp_post_norm, plan);
  }
  plan.SetLayer(Plan::kNoLayer);
}

BeginStepParams DecodeBegin(const ComposeContext& context, int32_t* layer_counter) {
  const StepBuffers& b = context.buffers;
  return {.map = b.rows,
          .derive_positions = true,
          .updates = b.updates.items,
          .update_count = b.updates.count,
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

void AddHead(const ComposeContext& context, const Rows& in, Plan& plan) {
  const ModelDescriptor& descriptor = context.descriptor;
  const Rows& logits = context.buffers.logits;
  plan.Add("epilogue", MatMulParams{.in = in, .weight = context.weights.head, .out = logits});
  if (descriptor.logit_scale == 1 && descriptor.logit_soft_cap == 0) return;
  plan.Add("epilogue", AdjustLogitsParams{.logits = logits,
                                          .scale = descriptor.logit_scale,
                                          .soft_cap = descriptor.logit_soft_cap});
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
  Plan plan = ComposePrologue(context, nullptr);
  AddEagerLayers(context, plan);
  plan.Add("epilogue", FinalNorm(context));
  AddHead(context, context.buffers.normed, plan);
  AddSample(context, context.buffers.rows.lane, plan);
  return plan;
}

}  // namespace sirocco
