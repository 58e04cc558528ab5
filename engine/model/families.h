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

// Tensors of a layer that files hold as one, row below row, and their parts, in order; names as in
// TensorNames::hugging_face.
struct FusedTensor {
  std::string_view whole;
  std::span<const std::string_view> parts;
};

// Experts in every layer. Names of config.json's settings, and what holds where one is silent.
struct ExpertSettings {
  int32_t experts = 0;  // 0: a family without any
  int32_t experts_a_row = 0;
  std::string_view intermediate = "";  // of each; empty: intermediate_size
  OptionalPart renormalise = {"", true};
};

// What a tensor's name has in a file of Hugging Face's beside TensorNames: `from` is `to` there.
struct Renaming {
  std::string_view from;
  std::string_view to;
};

enum class WindowedLayers : uint8_t { kNone, kByPattern, kAll };

// Layers with a sliding window, and what holds where the files are silent.
struct WindowDefaults {
  WindowedLayers layers = WindowedLayers::kNone;
  int32_t window = 0;   // 0, of families whose layers may all have one: none has
  int32_t pattern = 0;  // kByPattern: the last of every so many layers has full attention
  double theta = 0;     // base of the windowed layers' own rotary embedding; 0: they have none
};

// Soft-caps of attention's scores and of the logits where the files are silent; 0: none.
struct SoftCaps {
  double attention = 0;
  double logits = 0;
};

struct Family {
  std::string_view name;                    // ModelDescriptor::architecture
  std::string_view model_type;              // of config.json
  std::string_view architecture;            // among config.json's `architectures`
  std::string_view gguf_architecture = "";  // general.architecture; empty: no GGUF files
  OptionalPart qkv_bias;
  OptionalPart output_bias;
  OptionalPart mlp_bias;
  OptionalPart tied_head = {"tie_word_embeddings", false};
  bool pre_norms = true;
  bool head_norms = false;
  bool whole_norms = false;  // of q and k, over all heads; such families have no biases there
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
  std::string_view activation_alias = "";  // what older files call it
  // config.json's x, where attention's scale is 1 / sqrt(x); empty: x is the head size.
  std::string_view attention_scalar = "";
  double default_attention_scalar = 0;
  // GGUF files do not say x. It is the head size, but hidden_size / heads in the one model of this
  // many layers.
  int32_t gguf_wide_scale_layers = 0;
  int32_t gguf_default_window = 0;  // where a GGUF file says none; 0: full attention
  WindowDefaults windows = {};
  bool soft_caps = false;  // config.json may state them
  SoftCaps default_soft_caps = {};
  // config.json may have embedding_multiplier, residual_multiplier, attention_multiplier and
  // logits_scaling, each 1 where it has not; attention's is its scale, whatever the head size.
  bool multipliers = false;
  bool partial_rotary = false;  // config.json may have a partial_rotary_factor
  // The last of every so many layers turns no heads, where config.json's no_rope_layer_interval and
  // no_rope_layers are silent; 0: all layers turn theirs.
  int32_t unturned_interval = 0;
  ExpertSettings experts = {};
  double default_theta = 10000;
  double default_norm_epsilon = 1e-6;
  int32_t default_kv_heads = 0;      // where config.json has no such setting; 0: as many as heads
  int32_t default_head_dim = 0;      // where config.json gives none; 0: hidden_size / heads
  int32_t default_max_position = 0;  // where config.json gives none
  int32_t default_original_context = 0;  // the same of original_max_position_embeddings; 0: none
  // config.json's settings that would change the answer, and are not acted upon.
  std::span<const NeutralSetting> neutral;
  // All settings under "{gguf_architecture}." that a file may have, those of every family and those
  // of this one; kAny: read, or harmless.
  std::span<const NeutralSetting> gguf_settings = {};
  std::span<const NeutralSetting> gguf_own_settings = {};
  // Q and k rows of a GGUF file are in the order of interleaved rotary pairs.
  bool gguf_interleaved_rows = false;
  std::span<const TensorNames> tensors;
  std::span<const TensorNames> layer_tensors;
  std::span<const TensorNames> layer_norms;  // beside the first, which all families have
  std::span<const FusedTensor> fused = {};
  std::span<const Renaming> renamings = {};
};

// family_table.cc
std::span<const Family> Families();

// nullptr: no such family.
const Family* FindFamilyByModelType(std::string_view model_type);
const Family* FindFamilyByArchitecture(std::string_view architecture);
// Of two with one name, that with or without experts.
const Family* FindFamilyByGgufArchitecture(std::string_view architecture, bool experts);

// "llama, qwen2", for error messages.
std::string SupportedModelTypes();
std::string SupportedGgufArchitectures();

// By transformers' name; nullopt: not supported.
std::optional<Activation> FindActivation(std::string_view name);

// A GGUF tensor's Hugging Face name; empty: the family has no tensor of that name.
std::string HuggingFaceName(const Family& family, std::string_view gguf_name);

}  // namespace sirocco
