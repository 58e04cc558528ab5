// One layer's plan, composed once and run for every layer: its operations find weights and KV in
// the layer table by a counter in device memory, which the layer's last operation advances.
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
          .intermediate = descriptor.intermediate_size};
}

Plan ComposeLayerPrologue(const ComposeContext& context) {
  Plan plan;
  plan.Add("prologue", DecodeBegin(context, context.buffers.layer_counter));
  plan.Add("prologue", Embed(context));
  return plan;
}

Plan ComposeAnyLayer(const ComposeContext& context) {
  const StepBuffers& b = context.buffers;
  const LayerRef layer = MakeLayerRef(context, b.layer_counter, 0);
  Plan plan;
  plan.Add("layer", NormQkvParams{.map = b.rows,
                                  .lanes = context.lanes,
                                  .layer = layer,
                                  .hidden = b.hidden,
                                  .normed = b.normed,
                                  .q_out = b.q});
  plan.Add("layer", DecodeAttentionParams{.map = b.rows,
                                          .lanes = context.lanes,
                                          .q = b.q,
                                          .shape = {},
                                          .kv = {},
                                          .layer = layer,
                                          .out = b.attention});
  plan.Add("layer",
           OutputResidualParams{.layer = layer, .attention = b.attention, .hidden = b.hidden});
  plan.Add(
      "layer",
      NormGateUpParams{.layer = layer, .hidden = b.hidden, .normed = b.normed, .out = b.activated});
  plan.Add("layer",
           DownResidualParams{
               .layer = layer, .in = b.activated, .hidden = b.hidden, .advance = b.layer_counter});
  return plan;
}

Plan ComposeLayerEpilogue(const ComposeContext& context) {
  Plan plan;
  plan.Add("epilogue", FinalNorm(context));
  plan.Add("epilogue", LmHead(context, context.buffers.normed));
  AddSample(context, context.buffers.rows.lane, plan);
  return plan;
}

}  // namespace sirocco
