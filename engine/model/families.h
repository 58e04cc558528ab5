// The model families that can be read, as data: a new one is an entry here. What a family computes
// is in its descriptor; nothing else asks for its name.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/model/settings.h"

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

struct Family {
  std::string_view name;               // ModelDescriptor::architecture
  std::string_view model_type;         // of config.json
  std::string_view architecture;       // among config.json's `architectures`
  std::string_view gguf_architecture;  // general.architecture
  OptionalPart qkv_bias;
  OptionalPart output_bias;
  OptionalPart mlp_bias;
  int32_t default_max_position = 0;  // where config.json gives none
  // config.json's settings that would change the answer, and are not acted upon.
  std::span<const NeutralSetting> neutral;
  // All settings under "{gguf_architecture}." that a file may have; kAny: read, or harmless.
  std::span<const NeutralSetting> gguf_settings;
  // Q and k rows of a GGUF file are in the order of interleaved rotary pairs.
  bool gguf_interleaved_rows = false;
  std::span<const TensorNames> tensors;
  std::span<const TensorNames> layer_tensors;
};

// nullptr: no such family.
const Family* FindFamilyByModelType(std::string_view model_type);
const Family* FindFamilyByArchitecture(std::string_view architecture);
const Family* FindFamilyByGgufArchitecture(std::string_view architecture);

// "llama, qwen2", for error messages.
std::string SupportedModelTypes();
std::string SupportedGgufArchitectures();

// A GGUF tensor's Hugging Face name; empty: the family has no tensor of that name.
std::string HuggingFaceName(const Family& family, std::string_view gguf_name);

}  // namespace sirocco
