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

constexpr NeutralSetting kQwen3Neutral[] = {
    {"use_sliding_window", Neutral::kFalse},  {"quantization_config", Neutral::kAbsent},
    {"partial_rotary_factor", Neutral::kOne}, {"is_encoder_decoder", Neutral::kFalse},
    {"add_cross_attention", Neutral::kFalse}, {"num_experts", Neutral::kAbsent},
};

constexpr NeutralSetting kGemma3Neutral[] = {
    {"attn_logit_softcapping", Neutral::kAbsent},     {"final_logit_softcapping", Neutral::kAbsent},
    {"use_bidirectional_attention", Neutral::kFalse}, {"vision_config", Neutral::kAbsent},
    {"quantization_config", Neutral::kAbsent},        {"partial_rotary_factor", Neutral::kOne},
    {"is_encoder_decoder", Neutral::kFalse},          {"add_cross_attention", Neutral::kFalse},
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
    {"rope.scaling.attn_factor", Neutral::kOne},
    {"rope.scale_linear", Neutral::kOne},
    {"attention.causal", Neutral::kTrue},
    {"expert_count", Neutral::kZero},
    {"expert_used_count", Neutral::kZero},
};

// Not acted upon in families that have neither.
constexpr NeutralSetting kGgufFullAttention[] = {
    {"rope.scaling.type", Neutral::kNone},
    {"rope.scaling.factor", Neutral::kOne},
    {"attention.sliding_window", Neutral::kZero},
};

constexpr NeutralSetting kGgufGemma3[] = {
    // Read.
    {"rope.scaling.type", Neutral::kAny},
    {"rope.scaling.factor", Neutral::kAny},
    {"rope.freq_base_swa", Neutral::kAny},
    {"attention.sliding_window", Neutral::kAny},
    {"attention.sliding_window_pattern", Neutral::kAny},
    // Not acted upon.
    {"attn_logit_softcapping", Neutral::kAbsent},
    {"final_logit_softcapping", Neutral::kAbsent},
};

// Also the names by which the rest of the tree asks for tensors.
constexpr TensorNames kTensors[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};

constexpr TensorNames kLayerTensors[] = {
    {"input_layernorm.weight", "attn_norm.weight"},    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},      {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"}, {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},          {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.bias", "attn_output.bias"},     {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},           {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.gate_proj.bias", "ffn_gate.bias"},           {"mlp.up_proj.bias", "ffn_up.bias"},
    {"mlp.down_proj.bias", "ffn_down.bias"},
};

constexpr TensorNames kMlpNorm[] = {
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
};

constexpr TensorNames kMlpAndHeadNorms[] = {
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
};

constexpr TensorNames kGemma3Norms[] = {
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"post_attention_layernorm.weight", "post_attention_norm.weight"},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight"},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight"},
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
        .gguf_own_settings = kGgufFullAttention,
        .gguf_interleaved_rows = true,
        .tensors = kTensors,
        .layer_tensors = kLayerTensors,
        .layer_norms = kMlpNorm,
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
        .gguf_own_settings = kGgufFullAttention,
        .gguf_interleaved_rows = false,
        .tensors = kTensors,
        .layer_tensors = kLayerTensors,
        .layer_norms = kMlpNorm,
    },
    {
        .name = "qwen3",
        .model_type = "qwen3",
        .architecture = "Qwen3ForCausalLM",
        .gguf_architecture = "qwen3",
        .qkv_bias = {"attention_bias", false},
        .output_bias = {"attention_bias", false},
        .mlp_bias = {"", false},
        .head_norms = true,
        .default_head_dim = 128,
        .default_max_position = 32768,
        .neutral = kQwen3Neutral,
        .gguf_settings = kGgufSettings,
        .gguf_own_settings = kGgufFullAttention,
        .gguf_interleaved_rows = false,
        .tensors = kTensors,
        .layer_tensors = kLayerTensors,
        .layer_norms = kMlpAndHeadNorms,
    },
    {
        .name = "gemma3",
        .model_type = "gemma3_text",
        .architecture = "Gemma3ForCausalLM",
        .gguf_architecture = "gemma3",
        .qkv_bias = {"attention_bias", false},
        .output_bias = {"attention_bias", false},
        .mlp_bias = {"", false},
        .tied_head = {"tie_word_embeddings", true},
        .head_norms = true,
        .post_norms = true,
        .scaled_embedding = true,
        .stored_norms_less_one = true,
        .activation_option = "hidden_activation",
        .activation = Activation::kGeluTanh,
        .attention_scalar = "query_pre_attn_scalar",
        .default_attention_scalar = 256,
        .gguf_wide_scale_layers = 62,  // 27B
        .windows = {.window = 4096, .pattern = 6, .theta = 10000},
        .default_theta = 1e6,
        .default_head_dim = 256,
        .default_max_position = 131072,
        .neutral = kGemma3Neutral,
        .gguf_settings = kGgufSettings,
        .gguf_own_settings = kGgufGemma3,
        .gguf_interleaved_rows = false,
        .tensors = kTensors,
        .layer_tensors = kLayerTensors,
        .layer_norms = kGemma3Norms,
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

std::optional<Activation> FindActivation(std::string_view name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  return std::nullopt;
}

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
  for (const auto& list : {family.layer_tensors, family.layer_norms}) {
    for (const TensorNames& names : list) {
      if (names.gguf != gguf_name.substr(dot + 1)) continue;
      return absl::StrCat("model.layers.", layer, ".", std::string(names.hugging_face));
    }
  }
  return "";
}

}  // namespace sirocco
