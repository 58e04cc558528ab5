// A prefill step: the decoder's operations over the rows of whole chunks, with an attention of
// their own, issued one by one in every mode. The LM head sees those rows alone whose logits are
// asked for.
#include "absl/strings/str_cat.h"
#include "graphs/compose.h"

namespace sirocco {
namespace {

// The layers, and the buffer that their output is in.
Rows AddLayers(const ComposeContext& context, Plan& plan) {
  // Experts norm what they read, and leave nothing to fuse across the boundary.
  if (context.descriptor.experts == 0) {
    return AddWrittenLayers(context, Pass::kPrefill, nullptr, plan);
  }
  for (size_t i = 0; i < context.layers.size(); ++i) {
    AddLayer(context, absl::StrCat("layer ", i),
             MakeLayerRef(context, nullptr, static_cast<int32_t>(i)), Pass::kPrefill, nullptr,
             plan);
  }
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
