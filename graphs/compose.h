// Composing plans: which operations, in which order, on which buffers.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "graphs/descriptor.h"
#include "graphs/plan.h"
#include "graphs/step_buffers.h"
#include "graphs/weights.h"
#include "kernels/lanes.h"
#include "kernels/ops.h"

namespace sirocco {

// What prefill steps are made of (Device::prefill_as_decode): operations of their own, or those of
// a decode step: fused, of layers that the host knows or (the layer modes) of any layer, or eager.
enum class PrefillOps { kOwn, kFused, kFusedAnyLayer, kEager };

// All that plans are composed from. The same code composes for a device and, on null pointers, for
// people.
struct ComposeContext {
  const ModelDescriptor& descriptor;
  const ModelWeights& weights;
  StepBuffers buffers = {};
  Lanes lanes = {};
  std::span<const LayerParams> layers = {};  // on the host, one a layer; plans point at them
  const LayerParams* layer_table = nullptr;  // the same in device memory
  int32_t norms_where_read_rows = 0;         // Device::norms_where_read_rows
  int32_t paired_rows = 0;                   // Device::paired_rows
  PrefillOps prefill = PrefillOps::kOwn;
  // Device::OfferDecoderLayers of MakeDecoderLayersShape, and the memory that it asks for.
  DecoderLayersOffer decoder_layers = {};
  void* exchange = nullptr;
  bool keep_logits = false;
};

// Eager: one operation at a time, nothing fused (plan_eager.cc).
Plan ComposeEagerDecode(const ComposeContext& context);
// Its layers, for any rows whose lanes and positions are in the row map.
void AddEagerLayers(const ComposeContext& context, Plan& plan);

// A layer's plan for all layers, which it finds by the counter in device memory, and the plans
// before and after (plan_layer.cc). Nothing is fused across layers. For the fewest rows a layer is
// one operation, where the device offers that.
// `layer_counter`: null where no operation looks for its layer.
Plan ComposePrologue(const ComposeContext& context, int32_t* layer_counter);
Plan ComposeAnyLayer(const ComposeContext& context);
Plan ComposeLayersEpilogue(const ComposeContext& context);
// That of layers of five operations alone.
Plan ComposeLayerEpilogue(const ComposeContext& context);
// As many layers as `layer` has index or counter for, as one operation; what it leaves is to be
// set.
DecoderLayersParams LayersOperation(const ComposeContext& context, const LayerRef& layer);

// The whole decoder, each layer's operations bound to it (plan_decoder.cc), for few rows and for
// more; for the fewest all layers as one operation, where the device offers that. Where norms are
// computed where they are written, a layer's last operation also norms for the next one; else that
// operation and the next layer's first are one chain, in which a device may begin the second before
// the first has ended.
Plan ComposeDecoder(const ComposeContext& context);

// A prefill step; rows and segments are given (plan_prefill.cc). What every row goes through: up to
// the last layer's queries, keys and values.
Plan ComposePrefill(const ComposeContext& context);
// From there to the last layer's output, of all rows, for a step that scores tokens; empty where
// ComposePrefill goes as far.
Plan ComposePrefillEnd(const ComposeContext& context);
// That output's rows head_index through the final norm and the LM head, into `logits`.
Plan ComposePrefillHead(const ComposeContext& context);
// After ComposePrefill alone: both, of the rows head_index.
Plan ComposePrefillSampled(const ComposeContext& context);

// What a device is asked whether it offers all layers as one operation.
DecoderLayersShape MakeDecoderLayersShape(const ModelDescriptor& descriptor,
                                          const ModelWeights& weights, DType activations, DType kv);

// Building blocks.
// kPrefillAsDecode: with the attention of decode, after the ends of q, k and v.
enum class Pass { kDecode, kPrefill, kPrefillAsDecode };
// A layer's five operations (one more of a prefill), which leave the counter alone where `advance`
// is null.
void AddLayer(const ComposeContext& context, std::string_view part, const LayerRef& layer,
              Pass pass, int32_t* advance, Plan& plan);
// Of layers normed where rows are written. The first operation, from `normed`, but of layer 0:
void AddWrittenQkv(const ComposeContext& context, std::string_view part, const LayerRef& layer,
                   Plan& plan);
// the buffers that the stream is in before `layer`, and that a model with post-norms has it in
// behind;
struct StreamRows {
  Rows stream;
  Rows other;  // null: the same one
};
StreamRows StreamBefore(const ComposeContext& context, int32_t layer);
// what follows attention, on as many rows as `rows` has, which leaves them in `normed` by
// `next_norm`, or not normed where that is null. `paired`: products in pairs;
void AddWrittenEnd(const ComposeContext& context, const LayerRef& layer, const StreamRows& rows,
                   const float* next_norm, const Rows& normed, bool paired, Plan& plan);
// the first `layers` layers, whole. Where those are all, the last one's output is normed by
// `final_norm`.
void AddWrittenLayers(const ComposeContext& context, Pass pass, int32_t layers,
                      const float* final_norm, bool paired, Plan& plan);
BeginStepParams DecodeBegin(const ComposeContext& context, int32_t* layer_counter);
EmbedParams Embed(const ComposeContext& context);
// Of `hidden`, into `normed`.
RmsNormParams FinalNorm(const ComposeContext& context);
// The LM head of `in`, into `logits`, which are then scaled and capped where the model has that.
void AddHead(const ComposeContext& context, const Rows& in, Plan& plan);
// Of `lanes` [R]; with `keep_logits` a copy of the logits before.
void AddSample(const ComposeContext& context, const int32_t* lanes, Plan& plan);
// The MLP of a layer with experts.
void AddExperts(const ComposeContext& context, std::string_view part, const LayerRef& layer,
                int32_t* advance, Plan& plan);
// From the products of q, k and v on; of a prefill in two, of which the second is one of these.
void AddQkvAttention(const ComposeContext& context, std::string_view part, const LayerRef& layer,
                     Pass pass, Plan& plan);
void AddQkvEnd(const ComposeContext& context, std::string_view part, const LayerRef& layer,
               Plan& plan);
void AddPrefillAttention(const ComposeContext& context, std::string_view part,
                         const LayerRef& layer, Plan& plan);
void AddDecodeAttention(const ComposeContext& context, std::string_view part, const LayerRef& layer,
                        const RowMap& map, const Rows& q, Plan& plan);
// What every fused operation knows of a layer. Without a counter: layer `index`.
LayerRef MakeLayerRef(const ComposeContext& context, const int32_t* counter, int32_t index);

}  // namespace sirocco
