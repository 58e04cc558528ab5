// The model families that can be read, as data: a new one is an entry here. What a family computes
// is in its descriptor; nothing else asks for its name.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/model/settings.h"
#include "kernels/ops.h"

namespace sirocco {

// Whether a family's models have a part: as config.json's `option` says (a bool), and without
// option or setting as `otherwise` says. A GGUF file shows an optional part by its tensors.
struct OptionalPart {
  std::string_view option;
  bool otherwise = false;
};

// The names of one tensor: "model.embed_tokens.weight" and "token_embd.weight"; of a layer's,
// what follows "model.layers.N." and "blk.N.".
struct TensorNames {
  std::string_view hugging_face;
  std::string_view gguf;
};

// Layers with a sliding window among those with full attention: what holds where the files are
// silent. A window of 0: a family without such layers.
struct WindowDefaults {
  int32_t window = 0;
  int32_t pattern = 0;  // the last of every so many layers has full attention
  double theta = 0;     // base of the windowed layers' rotary embedding
};

struct Family {
  std::string_view name;               // ModelDescriptor::architecture
  std::string_view model_type;         // of config.json
  std::string_view architecture;       // among config.json's `architectures`
  std::string_view gguf_architecture;  // general.architecture
  OptionalPart qkv_bias;
  OptionalPart output_bias;
  OptionalPart mlp_bias;
  OptionalPart tied_head = {"tie_word_embeddings", false};
  bool head_norms = false;
  bool post_norms = false;
  // The embedding is scaled by sqrt(hidden_size), in float32. (transformers rounds this factor to
  // the type of a model's weights, as the model was trained; its float32 answers, with which ours
  // are compared, have the factor itself.)
  bool scaled_embedding = false;
  // A norm multiplies by 1 + w, and safetensors hold w. GGUF files hold 1 + w.
  bool stored_norms_less_one = false;
  // config.json's name of the activation, and the one that holds where it is silent, and in GGUF.
  std::string_view activation_option = "hidden_act";
  Activation activation = Activation::kSilu;
  // config.json's x, where attention's scale is 1 / sqrt(x); empty: x is the head size.
  std::string_view attention_scalar = "";
  double default_attention_scalar = 0;
  // GGUF files do not say x. It is the head size, but hidden_size / heads in the one model of this
  // many layers.
  int32_t gguf_wide_scale_layers = 0;
  WindowDefaults windows = {};
  double default_theta = 10000;
  int32_t default_head_dim = 0;      // where config.json gives none; 0: hidden_size / heads
  int32_t default_max_position = 0;  // where config.json gives none
  // config.json's settings that would change the answer, and are not acted upon.
  std::span<const NeutralSetting> neutral;
  // All settings under "{gguf_architecture}." that a file may have, those of every family and those
  // of this one; kAny: read, or harmless.
  std::span<const NeutralSetting> gguf_settings;
  std::span<const NeutralSetting> gguf_own_settings;
  // Q and k rows of a GGUF file are in the order of interleaved rotary pairs.
  bool gguf_interleaved_rows = false;
  std::span<const TensorNames> tensors;
  std::span<const TensorNames> layer_tensors;
  std::span<const TensorNames> layer_norms;  // beside the first, which all families have
};

// nullptr: no such family.
const Family* FindFamilyByModelType(std::string_view model_type);
const Family* FindFamilyByArchitecture(std::string_view architecture);
const Family* FindFamilyByGgufArchitecture(std::string_view architecture);

// "llama, qwen2", for error messages.
std::string SupportedModelTypes();
std::string SupportedGgufArchitectures();

// By transformers' name; nullopt: not supported.
std::optional<Activation> FindActivation(std::string_view name);

// A GGUF tensor's Hugging Face name; empty: the family has no tensor of that name.
std::string HuggingFaceName(const Family& family, std::string_view gguf_name);

}  // namespace sirocco
