#include "graphs/decode_plan.h"

#include "graphs/layer_params.h"

namespace sirocco {

absl::Status DecodePlan::Run(Ops& ops, int32_t rows) const {
  for (const int32_t part : order) {
    if (absl::Status status = parts[part].Run(ops, rows); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::vector<PlanEntry> DecodePlan::Describe() const {
  std::vector<PlanEntry> entries;
  for (const Plan& part : parts) part.Describe(entries);
  return entries;
}

DecodePlan ComposeDecode(Mode mode, const ComposeContext& context) {
  DecodePlan plan;
  plan.distinct = DistinctLayers(context.layers);
  switch (mode) {
    case Mode::kEager:
      plan.parts.push_back(ComposeEagerDecode(context));
      plan.order = {0};
      break;
    case Mode::kDecoderGraph:
    case Mode::kDecoder:
      plan.parts.push_back(ComposeDecoder(context));
      plan.order = {0};
      break;
    case Mode::kLayerGraph:
    case Mode::kLayer:
      // All layers of a descriptor share their shapes: there is one kind of them.
      plan.parts.push_back(ComposePrologue(context, context.buffers.layer_counter));
      plan.parts.push_back(ComposeAnyLayer(context));
      plan.parts.push_back(ComposeLayersEpilogue(context));
      plan.order.assign(context.layers.size() + 2, 1);
      plan.order.front() = 0;
      plan.order.back() = 2;
      break;
  }
  return plan;
}

DecoderLayersOffer OfferOf(const Device& device, const ModelDescriptor& descriptor, Mode mode,
                           const ModelWeights& weights, DType activations, DType kv) {
  if (mode == Mode::kEager) return {};
  const DecoderLayersOffer offer =
      device.OfferDecoderLayers(MakeDecoderLayersShape(descriptor, weights, activations, kv));
  const bool by_layer = mode == Mode::kLayer || mode == Mode::kLayerGraph;
  return by_layer && !offer.counted ? DecoderLayersOffer() : offer;
}

std::vector<PlanEntry> DescribeDecodePlan(const ModelDescriptor& descriptor, Mode mode,
                                          const ModelWeights& weights, DType kv_dtype,
                                          int32_t norms_where_read_rows,
                                          const DecoderLayersOffer& decoder_layers,
                                          int32_t paired_rows) {
  const std::vector<void*> no_memory(descriptor.groups.size(), nullptr);
  ExecutorOptions options;
  options.kv_dtype = kv_dtype;
  std::vector<RotaryTable> rotaries;
  for (const RotaryDescriptor& rotary : descriptor.rotaries) {
    rotaries.push_back({.dim = static_cast<int32_t>(2 * rotary.inverse_frequencies.size())});
  }
  ComposeContext context{.descriptor = descriptor, .weights = weights};
  const std::vector<LayerParams> layers =
      MakeLayerParams(descriptor, weights, rotaries,
                      MakeKvLayers(descriptor, options.block_size, options.kv_dtype, no_memory));
  context.layers = layers;
  context.norms_where_read_rows = norms_where_read_rows;
  context.decoder_layers = decoder_layers;
  context.paired_rows = paired_rows;
  PlaceStepBuffers(descriptor, options, nullptr, context.buffers);
  return ComposeDecode(mode, context).Describe();
}

}  // namespace sirocco
