// A prefill step: the decoder's operations over the rows of whole chunks, with an attention of
// their own, the same in every mode; or, where a device asks for that, the very operations of the
// mode's decode step. The LM head sees those rows alone whose logits are asked for.
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

// The layers, and the buffer that their output is in.
Rows AddLayers(const ComposeContext& context, Plan& plan) {
  if (context.prefill != PrefillOps::kOwn) {
    AddDecodeLayers(context, plan);
    return context.buffers.hidden;
  }
  // Experts norm what they read, and leave nothing to fuse across the boundary.
  if (context.descriptor.experts == 0) {
    return AddWrittenLayers(context, Pass::kPrefill, nullptr, false, plan);
  }
  AddChain(context, Pass::kPrefill, plan);
  return context.buffers.hidden;
}

}  // namespace

Plan ComposePrefill(const ComposeContext& context) {
  Plan plan;
  BeginStepParams begin = DecodeBegin(context, nullptr);
  begin.derive_positions = false;
  plan.Add("prologue", begin);
  plan.Add("prologue", Embed(context));
  AddLayers(context, plan);
  return plan;
}

Plan ComposePrefillHead(const ComposeContext& context) {
  const StepBuffers& b = context.buffers;
  Plan layers;
  const Rows stream = AddLayers(context, layers);
  Plan plan;
  plan.Add("epilogue", GatherRowsParams{.in = stream, .index = b.head_index, .out = b.head_hidden});
  RmsNormParams norm = FinalNorm(context);
  norm.in = b.head_hidden;
  norm.out = b.head_normed;
  plan.Add("epilogue", norm);
  AddHead(context, b.head_normed, plan);
  return plan;
}

}  // namespace sirocco
