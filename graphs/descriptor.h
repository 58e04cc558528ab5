// A decoder-only model as plain data: all that the plans need to know. engine/model fills it from
// a model's files; nothing here or below asks for a family's name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace sirocco {

// A rotary embedding's turning rates; position p turns pair i by p * inverse_frequencies[i].
// Scaling rules (linear, llama3, ...) are applied when the descriptor is made.
struct RotaryDescriptor {
  std::vector<float> inverse_frequencies;  // [dim / 2]
  // The rates instead of them where sequences may be longer than `original_context`; empty: the
  // same for any length. One choice for all sequences, by ExecutorOptions::max_length, so that keys
  // in the cache never depend on what is still to come.
  std::vector<float> long_inverse_frequencies = {};  // [dim / 2]
  int32_t original_context = 0;
  float scale = 1;  // of cosines and sines: turned parts of q and k are so much longer
  bool operator==(const RotaryDescriptor&) const = default;
};

// Layers that share a block table.
struct LayerGroup {
  int32_t window = 0;  // 0: full attention
  bool operator==(const LayerGroup&) const = default;
};

struct LayerDescriptor {
  int32_t group = 0;   // index into ModelDescriptor::groups; its window is the layer's
  int32_t rotary = 0;  // index into ModelDescriptor::rotaries
};

struct ModelDescriptor {
  std::string architecture;  // for people: "llama", "qwen2"
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;  // of each expert, where there are experts
  int32_t experts = 0;            // 0: none; else in every layer
  int32_t experts_a_row = 0;      // of which each row takes so many
  bool renormalise = false;       // whose shares sum to 1
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t max_position = 0;  // the longest sequence the model was made for
  float norm_epsilon = 0;
  float attention_scale = 0;
  float attention_soft_cap = 0;  // of scores; 0: none
  float logit_scale = 1;
  float logit_soft_cap = 0;  // 0: none
  float embedding_scale = 1;
  Activation activation = Activation::kSilu;
  bool qkv_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool pre_norms = true;     // what attention and MLP take from the stream is normed
  bool head_norms = false;   // each head of q and k is normed before it is turned
  bool whole_norms = false;  // all heads of q together, and all of k
  bool post_norms = false;   // what attention and MLP add to the stream is normed first
  bool tied_head = false;    // the LM head is the embedding
  std::vector<RotaryDescriptor> rotaries;
  std::vector<LayerGroup> groups;
  std::vector<LayerDescriptor> layers;
};

}  // namespace sirocco
