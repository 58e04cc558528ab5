// All layers of a decode step, or each of them, as one operation, which a device may offer for some
// shapes (Device::OfferDecoderLayers): DecoderLayersParams. Apart from params.h, so that only what
// knows it is compiled again when it changes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/lanes.h"
#include "kernels/params.h"

namespace sirocco {

// What all layers of a decoder have in common.
struct DecoderLayersShape {
  int32_t hidden = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t intermediate = 0;
  bool heads_turn_whole = false;  // all elements of a head, in every layer
  bool head_norms = false;
  bool post_norms = false;
  // Norms before attention and before the MLP; no biases, no experts, no norms of all heads
  // together.
  bool plain = false;
  DType weights = DType::kFloat32;      // of all matrices
  DType activations = DType::kFloat32;  // Device::ActivationDType of them
  DType kv = DType::kFloat32;
};

struct DecoderLayersOffer {
  int32_t rows = 0;           // steps of 1 ... `rows` rows; 0: none
  int32_t longest = 0;        // whose contexts have at most so many tokens
  size_t exchange_bytes = 0;  // DecoderLayersParams::exchange
  bool counted = true;        // layers by a counter, too
};

// Without a counter all layers: normed = norm(all layers(hidden)) * final_norm, and keys and values
// into the cache.
//
// With a counter the one that it says: layer(sum), where sum is hidden in layer 0, later hidden +
// delta, or hidden + norm(delta) * input_post_norm where there are post-norms. It leaves in
// `hidden` the stream with what attention adds and in `delta` what the MLP adds, which is not in it
// yet; then *advance += 1. `final_norm` and `normed` are not used.
struct DecoderLayersParams {
  int32_t rows = 0;
  RowMap map;
  Lanes lanes;
  LayerRef layer;                     // of the first, index 0; or of any, by a counter
  int32_t layers = 0;                 // in the table
  Rows hidden;                        // [R, hidden] float32
  const float* final_norm = nullptr;  // [hidden]
  float epsilon = 0;                  // of all norms but those of heads
  Rows normed;                        // [R, hidden]
  Rows delta;                         // [R, hidden] float32
  int32_t* advance = nullptr;         // layer.counter
  // Zero before the first run, and then left alone: of one set of layers, whose runs are in order,
  // with a counter or without.
  void* exchange = nullptr;
};

}  // namespace sirocco
