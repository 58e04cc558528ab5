// A prefill step: the decoder's operations over the rows of whole chunks, with an attention of
// their own, the same in every mode; or, where a device asks for that, the very operations of the
// mode's decode step. The LM head sees those rows alone whose logits are asked for.
//
// Of the other rows nobody needs more of the last layer than keys and values: its attention, which
// is then that of decode, and what follows see the asked rows alone, too. That is all but a part of
// one layer's work: 1/32 of a prefill of llama3.1-8b. Not where tokens are scored: a prompt's rows
// are then asked for, some at a time, and each time would read the layer's weights.
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "graphs/compose.h"

namespace sirocco {
namespace {

void AddChain(const ComposeContext& context, Pass pass, Plan& plan) {
  for (size_t i = 0; i < context.layers.size(); ++i) {
    LayerRef layer = MakeLayerRef(context, nullptr, static_cast<int32_t>(i));
    // Not told what a decode step is not: a backend may choose its kernels by that.
    if (context.prefill == PrefillOps::kFusedAnyLayer) layer.host = nullptr;
    AddLayer(context, absl::StrCat("layer ", i), layer, pass, nullptr, plan);
  }
}

// A decode step's, up to what its last layer adds.
void AddDecodeLayers(const ComposeContext& context, Plan& plan) {
  if (context.prefill == PrefillOps::kEager) return AddEagerLayers(context, plan);
  AddChain(context, Pass::kPrefillAsDecode, plan);
  if (!context.descriptor.post_norms) return;
  // Decode norms the sum in the same operation; here the head does, of the rows that it sees.
  plan.Add("epilogue", AddNormParams{.sum = context.buffers.hidden,
                                     .delta = context.buffers.delta,
                                     .post_norm = context.layers.back().mlp_post_norm,
                                     .epsilon = context.descriptor.norm_epsilon,
                                     .normed = {}});
}

int32_t LastLayer(const ComposeContext& context) {
  return static_cast<int32_t>(context.layers.size()) - 1;
}

// Operations of decode give each row the same bits, and experts norm what they read, and leave
// nothing to fuse across the boundary: their layers are chains, whole.
bool IsChain(const ComposeContext& context) {
  return context.prefill != PrefillOps::kOwn || context.descriptor.experts > 0;
}

// The buffer that the last layer's output is in.
Rows Output(const ComposeContext& context) {
  return IsChain(context) ? context.buffers.hidden
                          : StreamBefore(context, LastLayer(context) + 1).stream;
}

}  // namespace

Plan ComposePrefill(const ComposeContext& context) {
  Plan plan;
  BeginStepParams begin = DecodeBegin(context, nullptr);
  begin.derive_positions = false;
  plan.Add("prologue", begin);
  plan.Add("prologue", Embed(context));
  if (context.prefill != PrefillOps::kOwn) {
    AddDecodeLayers(context, plan);
  } else if (IsChain(context)) {
    AddChain(context, Pass::kPrefill, plan);
  } else {
    const int32_t last = LastLayer(context);
    AddWrittenLayers(context, Pass::kPrefill, last, nullptr, false, plan);
    const std::string part = absl::StrCat("layer ", last);
    const LayerRef layer = MakeLayerRef(context, nullptr, last);
    AddWrittenQkv(context, part, layer, plan);
    AddQkvEnd(context, part, layer, plan);
  }
  return plan;
}

Plan ComposePrefillEnd(const ComposeContext& context) {
  Plan plan;
  if (IsChain(context)) return plan;
  const int32_t last = LastLayer(context);
  const LayerRef layer = MakeLayerRef(context, nullptr, last);
  AddPrefillAttention(context, absl::StrCat("layer ", last), layer, plan);
  AddWrittenEnd(context, layer, StreamBefore(context, last), nullptr, context.buffers.normed, false,
                plan);
  return plan;
}

Plan ComposePrefillHead(const ComposeContext& context) {
  const StepBuffers& b = context.buffers;
  Plan plan;
  plan.Add("epilogue",
           GatherRowsParams{.in = Output(context), .index = b.head_index, .out = b.head_hidden});
  RmsNormParams norm = FinalNorm(context);
  norm.in = b.head_hidden;
  norm.out = b.head_normed;
  plan.Add("epilogue", norm);
  AddHead(context, b.head_normed, plan);
  return plan;
}

Plan ComposePrefillSampled(const ComposeContext& context) {
  if (IsChain(context)) return ComposePrefillHead(context);
  const StepBuffers& b = context.buffers;
  const int32_t last = LastLayer(context);
  const std::string part = absl::StrCat("layer ", last);
  const LayerRef layer = MakeLayerRef(context, nullptr, last);
  StreamRows rows = StreamBefore(context, last);
  Plan plan;
  plan.Add(part, GatherRowsParams{.in = b.q, .index = b.head_index, .out = b.head_q});
  plan.Add(part, GatherRowsParams{.in = rows.stream, .index = b.head_index, .out = b.head_hidden});
  rows.stream = b.head_hidden;
  AddDecodeAttention(context, part, layer, b.head_rows, b.head_q, plan);
  AddWrittenEnd(context, layer, rows, context.weights.final_norm, b.head_normed, false, plan);
  AddHead(context, b.head_normed, plan);
  return plan;
}

}  // namespace sirocco
