// One layer's plan, composed once and run for every layer: its operations find weights and KV in
// the layer table by a counter in device memory, which the layer's last operation advances.
//
// For some shapes and rows a device offers a layer as one operation. That leaves what the layer
// adds last in `delta` and the rest of the stream in `hidden`, whatever the model's norms: what it
// adds joins where it is read.
//
// In five operations a model with post-norms has the stream in `hidden` between layers, in `sum`
// between attention and MLP, and in `delta` what its next operation takes in.
#include "graphs/compose.h"

namespace sirocco {

LayerRef MakeLayerRef(const ComposeContext& context, const int32_t* counter, int32_t index) {
  const ModelDescriptor& descriptor = context.descriptor;
  return {.table = context.layer_table,
          .counter = counter,
          .index = index,
          .q_rows = descriptor.heads * descriptor.head_dim,
          .kv_rows = descriptor.kv_heads * descriptor.head_dim,
          .head_dim = descriptor.head_dim,
          .intermediate = descriptor.intermediate_size,
          .experts = descriptor.experts,
          .experts_a_row = descriptor.experts_a_row,
          .kv_dtype = context.layers.front().kv.dtype,
          .host = counter == nullptr ? &context.layers[index] : nullptr};
}

Plan ComposePrologue(const ComposeContext& context, int32_t* layer_counter) {
  Plan plan;
  plan.Add("prologue", DecodeBegin(context, layer_counter));
  plan.Add("prologue", Embed(context));
  return plan;
}

namespace {

void AddWholeNorms(const ComposeContext& context, std::string_view part, const LayerRef& layer,
                   Plan& plan) {
  if (!context.descriptor.whole_norms) return;
  plan.Add(part, NormQkParams{.layer = layer, .qkv = context.buffers.qkv});
}

}  // namespace

void AddQkvEnd(const ComposeContext& context, std::string_view part, const LayerRef& layer,
               Plan& plan) {
  const StepBuffers& b = context.buffers;
  AddWholeNorms(context, part, layer, plan);
  plan.Add(
      part,
      QkvEndParams{.map = b.rows, .lanes = context.lanes, .layer = layer, .qkv = b.qkv, .q = b.q});
}

void AddPrefillAttention(const ComposeContext& context, std::string_view part,
                         const LayerRef& layer, Plan& plan) {
  const StepBuffers& b = context.buffers;
  const LayerParams& params = context.layers[layer.index];
  plan.Add(part, PrefillAttentionParams{.map = b.rows,
                                        .lanes = context.lanes,
                                        .segments = b.segments.items,
                                        .segment_count = b.segments.count,
                                        .q = b.q,
                                        .shape = params.attention,
                                        .kv = params.kv,
                                        .out = b.attention});
}

void AddDecodeAttention(const ComposeContext& context, std::string_view part, const LayerRef& layer,
                        const RowMap& map, const Rows& q, Plan& plan) {
  const LayerParams& params = context.layers[layer.index];
  plan.Add(part, DecodeAttentionParams{.map = map,
                                       .lanes = context.lanes,
                                       .q = q,
                                       .shape = params.attention,
                                       .kv = params.kv,
                                       .out = context.buffers.attention});
}

void AddQkvAttention(const ComposeContext& context, std::string_view part, const LayerRef& layer,
                     Pass pass, Plan& plan) {
  const StepBuffers& b = context.buffers;
  if (pass == Pass::kDecode) {
    AddWholeNorms(context, part, layer, plan);
    plan.Add(part, QkvAttentionParams{.map = b.rows,
                                      .lanes = context.lanes,
                                      .layer = layer,
                                      .qkv = b.qkv,
                                      .q = b.q,
                                      .out = b.attention});
    return;
  }
  AddQkvEnd(context, part, layer, plan);
  if (pass == Pass::kPrefillAsDecode) {
    AddDecodeAttention(context, part, layer, b.rows, b.q, plan);
  } else {
    AddPrefillAttention(context, part, layer, plan);
  }
}

void AddExperts(const ComposeContext& context, std::string_view part, const LayerRef& layer,
                int32_t* advance, Plan& plan) {
  const StepBuffers& b = context.buffers;
  plan.Add(part, ExpertsParams{.map = b.rows,
                               .lanes = context.lanes,
                               .layer = layer,
                               .hidden = b.hidden,
                               .normed = b.normed,
                               .chosen = b.experts,
                               .shares = b.shares,
                               .activated = b.activated,
                               .advance = advance});
}

void AddLayer(const ComposeContext& context, std::string_view part, const LayerRef& layer,
              Pass pass, int32_t* advance, Plan& plan) {
  const StepBuffers& b = context.buffers;
  const bool post_norms = context.descriptor.post_norms;
  const Rows delta = post_norms ? b.delta : Rows();
  const Rows between = post_norms ? b.sum : b.hidden;
  plan.Add(part, NormQkvParams{.layer = layer,
                               .hidden = b.hidden,
                               .normed = b.normed,
                               .qkv = b.qkv,
                               .delta = delta,
                               .sum = post_norms ? b.sum : Rows()});
  AddQkvAttention(context, part, layer, pass, plan);
  plan.Add(part, OutputResidualParams{
                     .layer = layer, .attention = b.attention, .hidden = between, .delta = delta});
  if (context.descriptor.experts > 0) {
    AddExperts(context, part, layer, advance, plan);
    return;
  }
  plan.Add(part, NormGateUpParams{.layer = layer,
                                  .hidden = between,
                                  .normed = b.normed,
                                  .out = b.activated,
                                  .delta = delta,
                                  .sum = post_norms ? b.hidden : Rows()});
  plan.Add(part, DownResidualParams{.layer = layer,
                                    .in = b.activated,
                                    .hidden = b.hidden,
                                    .advance = advance,
                                    .delta = delta});
}

DecoderLayersParams LayersOperation(const ComposeContext& context, const LayerRef& layer) {
  return {.map = context.buffers.rows,
          .lanes = context.lanes,
          .layer = layer,
          .layers = static_cast<int32_t>(context.layers.size()),
          .hidden = context.buffers.hidden,
          .epsilon = context.descriptor.norm_epsilon,
          .normed = {},
          .delta = {},
          .exchange = context.exchange};
}

Plan ComposeAnyLayer(const ComposeContext& context) {
  int32_t* const counter = context.buffers.layer_counter;
  const LayerRef layer = MakeLayerRef(context, counter, 0);
  const int32_t whole = context.decoder_layers.rows;
  Plan plan;
  if (whole > 0) {
    DecoderLayersParams one = LayersOperation(context, layer);
    one.delta = context.buffers.delta;
    one.advance = counter;
    Plan of_one;
    of_one.Add("layer", one);
    plan.Append(of_one, {.least = 1, .most = whole});
  }
  Plan of_five;
  AddLayer(context, "layer", layer, Pass::kDecode, counter, of_five);
  plan.Append(of_five, {.least = whole + 1});
  return plan;
}

namespace {

// Of `hidden` with the last layer's `delta`.
Plan FinalAddNorm(const ComposeContext& context) {
  const StepBuffers& b = context.buffers;
  Plan plan;
  plan.Add("epilogue", AddNormParams{.sum = b.hidden,
                                     .delta = b.delta,
                                     .post_norm = context.layers.back().mlp_post_norm,
                                     .weight = context.weights.final_norm,
                                     .epsilon = context.descriptor.norm_epsilon,
                                     .normed = b.normed});
  return plan;
}

// Steps of `delta_left` rows or fewer end with the last layer's output in `delta`, whatever norms
// there are.
Plan Epilogue(const ComposeContext& context, int32_t delta_left) {
  Plan plan;
  if (context.descriptor.post_norms) {
    plan.Append(FinalAddNorm(context));
  } else {
    if (delta_left > 0) plan.Append(FinalAddNorm(context), {.least = 1, .most = delta_left});
    Plan norm;
    norm.Add("epilogue", FinalNorm(context));
    plan.Append(norm, {.least = delta_left + 1});
  }
  AddHead(context, context.buffers.normed, plan);
  AddSample(context, context.buffers.rows.lane, plan);
  return plan;
}

}  // namespace

Plan ComposeLayersEpilogue(const ComposeContext& context) {
  return Epilogue(context, context.decoder_layers.rows);
}

Plan ComposeLayerEpilogue(const ComposeContext& context) { return Epilogue(context, 0); }

}  // namespace sirocco
