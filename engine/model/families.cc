#include "engine/model/families.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sirocco {
namespace {

constexpr NeutralSetting kLlamaNeutral[] = {
    {"pretraining_tp", Neutral::kOne},
    {"quantization_config", Neutral::kAbsent},
    {"partial_rotary_factor", Neutral::kOne},
    {"rope_interleaved", Neutral::kFalse},
    {"is_encoder_decoder", Neutral::kFalse},
    {"add_cross_attention", Neutral::kFalse},
    {"sliding_window", Neutral::kAbsent},
    {"attn_logit_softcapping", Neutral::kAbsent},
    {"final_logit_softcapping", Neutral::kAbsent},
    {"num_local_experts", Neutral::kAbsent},
};

// `sliding_window` counts only where `use_sliding_window` is true.
constexpr NeutralSetting kQwen2Neutral[] = {
    {"use_sliding_window", Neutral::kFalse},  {"quantization_config", Neutral::kAbsent},
    {"partial_rotary_factor", Neutral::kOne}, {"use_mrope", Neutral::kFalse},
    {"is_encoder_decoder", Neutral::kFalse},  {"add_cross_attention", Neutral::kFalse},
    {"num_experts", Neutral::kAbsent},
};

constexpr NeutralSetting kGgufSettings[] = {
    // Read.
    {"block_count", Neutral::kAny},
    {"context_length", Neutral::kAny},
    {"embedding_length", Neutral::kAny},
    {"feed_forward_length", Neutral::kAny},
    {"vocab_size", Neutral::kAny},
    {"attention.head_count", Neutral::kAny},
    {"attention.head_count_kv", Neutral::kAny},
    {"attention.key_length", Neutral::kAny},
    {"attention.value_length", Neutral::kAny},
    {"attention.layer_norm_rms_epsilon", Neutral::kAny},
    {"rope.dimension_count", Neutral::kAny},
    {"rope.freq_base", Neutral::kAny},
    // About how the file was made.
    {"tensor_data_layout", Neutral::kAny},
    {"rope.scaling.original_context_length", Neutral::kAny},
    {"rope.scaling.finetuned", Neutral::kAny},
    // Not acted upon.
    {"rope.scaling.type", Neutral::kNone},
    {"rope.scaling.factor", Neutral::kOne},
    {"rope.scaling.attn_factor", Neutral::kOne},
    {"rope.scale_linear", Neutral::kOne},
    {"attention.causal", Neutral::kTrue},
    {"attention.sliding_window", Neutral::kZero},
    {"expert_count", Neutral::kZero},
    {"expert_used_count", Neutral::kZero},
};

// Also the names by which the rest of the tree asks for tensors.
constexpr TensorNames kTensors[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};

constexpr TensorNames kLayerTensors[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.bias", "attn_output.bias"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.gate_proj.bias", "ffn_gate.bias"},
    {"mlp.up_proj.bias", "ffn_up.bias"},
    {"mlp.down_proj.bias", "ffn_down.bias"},
};

constexpr Family kFamilies[] = {
    {
        .name = "llama",
        .model_type = "llama",
        .architecture = "LlamaForCausalLM",
        .gguf_architecture = "llama",
        .qkv_bias = {"attention_bias", false},
        .output_bias = {"attention_bias", false},
        .mlp_bias = {"mlp_bias", false},
        .default_max_position = 2048,
        .neutral = kLlamaNeutral,
        .gguf_settings = kGgufSettings,
        .gguf_interleaved_rows = true,
        .tensors = kTensors,
        .layer_tensors = kLayerTensors,
    },
    {
        .name = "qwen2",
        .model_type = "qwen2",
        .architecture = "Qwen2ForCausalLM",
        .gguf_architecture = "qwen2",
        .qkv_bias = {"", true},
        .output_bias = {"", false},
        .mlp_bias = {"", false},
        .default_max_position = 32768,
        .neutral = kQwen2Neutral,
        .gguf_settings = kGgufSettings,
        .gguf_interleaved_rows = false,
        .tensors = kTensors,
        .layer_tensors = kLayerTensors,
    },
};

const Family* FindFamily(std::string_view Family::*field, std::string_view value) {
  for (const Family& family : kFamilies) {
    if (family.*field == value) return &family;
  }
  return nullptr;
}

std::string ListFamilies(std::string_view Family::*field) {
  std::vector<std::string> values;
  for (const Family& family : kFamilies) values.emplace_back(family.*field);
  return absl::StrJoin(values, ", ");
}

}  // namespace

const Family* FindFamilyByModelType(std::string_view model_type) {
  return FindFamily(&Family::model_type, model_type);
}

const Family* FindFamilyByArchitecture(std::string_view architecture) {
  return FindFamily(&Family::architecture, architecture);
}

const Family* FindFamilyByGgufArchitecture(std::string_view architecture) {
  return FindFamily(&Family::gguf_architecture, architecture);
}

std::string SupportedModelTypes() { return ListFamilies(&Family::model_type); }

std::string SupportedGgufArchitectures() { return ListFamilies(&Family::gguf_architecture); }

std::string HuggingFaceName(const Family& family, std::string_view gguf_name) {
  for (const TensorNames& names : family.tensors) {
    if (names.gguf == gguf_name) return std::string(names.hugging_face);
  }
  constexpr std::string_view kPrefix = "blk.";
  if (gguf_name.substr(0, kPrefix.size()) != kPrefix) return "";
  gguf_name.remove_prefix(kPrefix.size());
  const size_t dot = gguf_name.find('.');
  if (dot == std::string_view::npos) return "";
  const std::string number(gguf_name.substr(0, dot));
  int32_t layer;
  // "007" and "+7" are other names than "7": two names must not become one.
  if (!absl::SimpleAtoi(number, &layer) || layer < 0 || absl::StrCat(layer) != number) return "";
  for (const TensorNames& names : family.layer_tensors) {
    if (names.gguf != gguf_name.substr(dot + 1)) continue;
    return absl::StrCat("model.layers.", layer, ".", std::string(names.hugging_face));
  }
  return "";
}

}  // namespace sirocco
