// The whole decoder as one plan. Where norms are computed where they are written, a layer's last
// operation also norms its rows for what follows: the next layer, whose first operation then needs
// no norm, or the LM head.
//
// Then a model with post-norms changes the stream's buffer in every layer, where the MLP takes in
// what the attention adds.
#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "graphs/compose.h"

namespace sirocco {
namespace {

// Norms where they are read: the layers of plan_layer.cc, one after the other.
Plan ComposeChain(const ComposeContext& context) {
  Plan plan = ComposePrologue(context, nullptr);
  for (size_t i = 0; i < context.layers.size(); ++i) {
    plan.SetLayer(static_cast<int32_t>(i));
    AddLayer(context, absl::StrCat("layer ", i),
             MakeLayerRef(context, nullptr, static_cast<int32_t>(i)), Pass::kDecode, nullptr, plan);
  }
  plan.SetLayer(Plan::kNoLayer);
  plan.Append(ComposeLayerEpilogue(context));
  return plan;
}

// Norms where they are written.
Plan ComposeWritten(const ComposeContext& context, bool paired) {
  Plan plan = ComposePrologue(context, nullptr);
  AddWrittenLayers(context, Pass::kDecode, static_cast<int32_t>(context.layers.size()),
                   context.weights.final_norm, paired, plan);
  AddHead(context, context.buffers.normed, plan);
  AddSample(context, context.buffers.rows.lane, plan);
  return plan;
}

// All layers as one operation.
Plan ComposeWhole(const ComposeContext& context) {
  const StepBuffers& b = context.buffers;
  Plan plan = ComposePrologue(context, nullptr);
  LayerRef first = MakeLayerRef(context, nullptr, 0);
  first.host = nullptr;  // one layer's
  DecoderLayersParams layers = LayersOperation(context, first);
  layers.final_norm = context.weights.final_norm;
  layers.normed = b.normed;
  plan.Add("layers", layers);
  AddHead(context, b.normed, plan);
  AddSample(context, b.rows.lane, plan);
  return plan;
}

}  // namespace

DecoderLayersShape MakeDecoderLayersShape(const ModelDescriptor& descriptor,
                                          const ModelWeights& weights, DType activations,
                                          DType kv) {
  DecoderLayersShape shape;
  shape.hidden = descriptor.hidden_size;
  shape.heads = descriptor.heads;
  shape.kv_heads = descriptor.kv_heads;
  shape.head_dim = descriptor.head_dim;
  shape.intermediate = descriptor.intermediate_size;
  shape.heads_turn_whole = true;
  for (const LayerDescriptor& layer : descriptor.layers) {
    const RotaryDescriptor& rotary = descriptor.rotaries[layer.rotary];
    shape.heads_turn_whole = shape.heads_turn_whole && 2 * rotary.inverse_frequencies.size() ==
                                                           static_cast<size_t>(descriptor.head_dim);
  }
  shape.head_norms = descriptor.head_norms;
  shape.post_norms = descriptor.post_norms;
  shape.weights = weights.layers.front().q.dtype;
  shape.activations = activations;
  shape.kv = kv;
  shape.plain = descriptor.pre_norms && !descriptor.qkv_bias && !descriptor.output_bias &&
                !descriptor.mlp_bias && !descriptor.whole_norms && descriptor.experts == 0;
  for (const LayerWeights& layer : weights.layers) {
    for (const Matrix* matrix :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      shape.plain = shape.plain && matrix->dtype == shape.weights;
    }
  }
  return shape;
}

// Before layer 0 nothing is left to be taken in, and later DownNorm has done it.
void AddWrittenQkv(const ComposeContext& context, std::string_view part, const LayerRef& layer,
                   Plan& plan) {
  const StepBuffers& b = context.buffers;
  if (layer.index == 0) {
    plan.Add(part, NormQkvParams{.layer = layer,
                                 .hidden = b.hidden,
                                 .normed = b.normed,
                                 .qkv = b.qkv,
                                 .delta = {},
                                 .sum = {}});
  } else {
    plan.Add(part, QkvParams{.layer = layer, .normed = b.normed, .qkv = b.qkv});
  }
}

StreamRows StreamBefore(const ComposeContext& context, int32_t layer) {
  const StepBuffers& b = context.buffers;
  if (!context.descriptor.post_norms) return {.stream = b.hidden, .other = {}};
  return layer % 2 == 0 ? StreamRows{.stream = b.hidden, .other = b.sum}
                        : StreamRows{.stream = b.sum, .other = b.hidden};
}

void AddWrittenEnd(const ComposeContext& context, const LayerRef& layer, const StreamRows& rows,
                   const float* next_norm, const Rows& normed, bool paired, Plan& plan) {
  const StepBuffers& b = context.buffers;
  const std::string part = absl::StrCat("layer ", layer.index);
  const bool post_norms = context.descriptor.post_norms;
  const Rows delta = post_norms ? b.delta : Rows();
  const OutputResidualParams output{
      .layer = layer, .attention = b.attention, .hidden = rows.stream, .delta = delta};
  const NormGateUpParams gate_up{.layer = layer,
                                 .hidden = rows.stream,
                                 .normed = b.normed,
                                 .out = b.activated,
                                 .delta = delta,
                                 .sum = rows.other};
  if (paired) {
    plan.Add(part, OutputGateUpParams{.output = output, .gate_up = gate_up});
  } else {
    plan.Add(part, output);
    plan.Add(part, gate_up);
  }
  const DownNormParams down{.layer = layer,
                            .in = b.activated,
                            .hidden = post_norms ? rows.other : rows.stream,
                            .next_norm = next_norm,
                            .normed = normed,
                            .delta = delta};
  const int32_t next = layer.index + 1;
  if (paired && next < static_cast<int32_t>(context.layers.size())) {
    plan.Add(part, DownQkvParams{.down = down,
                                 .qkv = {.layer = MakeLayerRef(context, nullptr, next),
                                         .normed = normed,
                                         .qkv = b.qkv}});
  } else {
    plan.Add(part, down);
  }
}

void AddWrittenLayers(const ComposeContext& context, Pass pass, int32_t layers,
                      const float* final_norm, bool paired, Plan& plan) {
  const StepBuffers& b = context.buffers;
  const bool last_is_here = layers == static_cast<int32_t>(context.layers.size());
  for (int32_t i = 0; i < layers; ++i) {
    plan.SetLayer(i);
    const std::string part = absl::StrCat("layer ", i);
    const LayerRef layer = MakeLayerRef(context, nullptr, i);
    if (i == 0 || !paired) AddWrittenQkv(context, part, layer, plan);
    AddQkvAttention(context, part, layer, pass, plan);
    const float* const next_norm =
        last_is_here && i + 1 == layers ? final_norm : context.layers[i + 1].attention_norm;
    AddWrittenEnd(context, layer, StreamBefore(context, i), next_norm, b.normed, paired, plan);
  }
  plan.SetLayer(Plan::kNoLayer);
}

Plan ComposeDecoder(const ComposeContext& context) {
  // Experts norm what they read, and leave nothing to fuse across the boundary.
  if (context.descriptor.experts > 0) return ComposeChain(context);
  // For the fewest rows one, for more the next.
  const int32_t whole = context.decoder_layers.rows;
  const int32_t read = std::max(context.norms_where_read_rows, whole);
  if (read == 0 && context.paired_rows == 0) return ComposeWritten(context, false);
  if (read == INT32_MAX && whole == 0) return ComposeChain(context);
  Plan plan;
  if (whole > 0) plan.Append(ComposeWhole(context), {.least = 1, .most = whole});
  if (read == INT32_MAX) {
    plan.Append(ComposeChain(context), {.least = whole + 1});
    return plan;
  }
  if (read > whole) plan.Append(ComposeChain(context), {.least = whole + 1, .most = read});
  const int32_t paired = std::max(context.paired_rows, read);
  if (paired > read) {
    plan.Append(ComposeWritten(context, true), {.least = read + 1, .most = paired});
  }
  plan.Append(ComposeWritten(context, false), {.least = paired + 1});
  return plan;
}

}  // namespace sirocco
