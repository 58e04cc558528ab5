// What families share: settings that must be neutral, and names of tensors. For family_table.cc.
#pragma once

#include <string_view>

#include "engine/model/families.h"
#include "engine/model/settings.h"

namespace sirocco {

inline constexpr NeutralSetting kLlamaNeutral[] = {
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
inline constexpr NeutralSetting kQwen2Neutral[] = {
    {"use_sliding_window", Neutral::kFalse},  {"quantization_config", Neutral::kAbsent},
    {"partial_rotary_factor", Neutral::kOne}, {"use_mrope", Neutral::kFalse},
    {"is_encoder_decoder", Neutral::kFalse},  {"add_cross_attention", Neutral::kFalse},
    {"num_experts", Neutral::kAbsent},
};

inline constexpr NeutralSetting kQwen3Neutral[] = {
    {"use_sliding_window", Neutral::kFalse},  {"quantization_config", Neutral::kAbsent},
    {"partial_rotary_factor", Neutral::kOne}, {"is_encoder_decoder", Neutral::kFalse},
    {"add_cross_attention", Neutral::kFalse}, {"num_experts", Neutral::kAbsent},
};

inline constexpr NeutralSetting kGemmaNeutral[] = {
    {"use_bidirectional_attention", Neutral::kFalse}, {"vision_config", Neutral::kAbsent},
    {"quantization_config", Neutral::kAbsent},        {"partial_rotary_factor", Neutral::kOne},
    {"is_encoder_decoder", Neutral::kFalse},          {"add_cross_attention", Neutral::kFalse},
};

// What no family acts upon, of those that have no such list of their own.
inline constexpr NeutralSetting kPlainNeutral[] = {
    {"quantization_config", Neutral::kAbsent},    {"partial_rotary_factor", Neutral::kOne},
    {"is_encoder_decoder", Neutral::kFalse},      {"add_cross_attention", Neutral::kFalse},
    {"attn_logit_softcapping", Neutral::kAbsent}, {"final_logit_softcapping", Neutral::kAbsent},
    {"num_local_experts", Neutral::kAbsent},      {"num_experts", Neutral::kAbsent},
    {"use_sliding_window", Neutral::kFalse},
};

// The same where a part of each head may turn.
inline constexpr NeutralSetting kPhi3Neutral[] = {
    {"quantization_config", Neutral::kAbsent},
    {"is_encoder_decoder", Neutral::kFalse},
    {"add_cross_attention", Neutral::kFalse},
    {"num_local_experts", Neutral::kAbsent},
};

inline constexpr NeutralSetting kMixtralNeutral[] = {
    {"quantization_config", Neutral::kAbsent},
    {"partial_rotary_factor", Neutral::kOne},
    {"is_encoder_decoder", Neutral::kFalse},
    {"add_cross_attention", Neutral::kFalse},
};

// Layers without experts would be among the others.
inline constexpr NeutralSetting kQwen3MoeNeutral[] = {
    {"use_sliding_window", Neutral::kFalse},  {"quantization_config", Neutral::kAbsent},
    {"partial_rotary_factor", Neutral::kOne}, {"is_encoder_decoder", Neutral::kFalse},
    {"add_cross_attention", Neutral::kFalse}, {"decoder_sparse_step", Neutral::kOne},
    {"mlp_only_layers", Neutral::kEmpty},
};

// Norms of q and k whole leave no place for their biases.
inline constexpr NeutralSetting kOlmo2Neutral[] = {
    {"attention_bias", Neutral::kFalse},      {"quantization_config", Neutral::kAbsent},
    {"partial_rotary_factor", Neutral::kOne}, {"is_encoder_decoder", Neutral::kFalse},
    {"add_cross_attention", Neutral::kFalse}, {"sliding_window", Neutral::kAbsent},
    {"clip_qkv", Neutral::kAbsent},
};

inline constexpr NeutralSetting kGgufSettings[] = {
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
    {"rope.scaling.type", Neutral::kAny},
    {"rope.scaling.factor", Neutral::kAny},
    {"rope.scaling.original_context_length", Neutral::kAny},
    {"rope.scaling.attn_factor", Neutral::kAny},
    // About how the file was made.
    {"tensor_data_layout", Neutral::kAny},
    {"rope.scaling.finetuned", Neutral::kAny},
    // Not acted upon.
    {"rope.scale_linear", Neutral::kOne},
    {"attention.causal", Neutral::kTrue},
};

// Not acted upon in families that have none.
inline constexpr NeutralSetting kGgufFullAttention[] = {
    {"expert_count", Neutral::kZero},
    {"expert_used_count", Neutral::kZero},
    {"attention.sliding_window", Neutral::kZero},
};

// Read.
inline constexpr NeutralSetting kGgufWindows[] = {
    {"rope.freq_base_swa", Neutral::kAny},
    {"attention.sliding_window", Neutral::kAny},
    {"attention.sliding_window_pattern", Neutral::kAny},
    {"attn_logit_softcapping", Neutral::kAny},
    {"final_logit_softcapping", Neutral::kAny},
};

inline constexpr NeutralSetting kGgufOneWindow[] = {
    {"attention.sliding_window", Neutral::kAny},
};

inline constexpr NeutralSetting kGgufExperts[] = {
    // Read.
    {"expert_count", Neutral::kAny},
    {"expert_used_count", Neutral::kAny},
    {"expert_feed_forward_length", Neutral::kAny},
    // Not acted upon.
    {"attention.sliding_window", Neutral::kZero},
    {"expert_shared_count", Neutral::kZero},
    {"expert_weights_scale", Neutral::kOne},
};

inline constexpr NeutralSetting kGgufMultipliers[] = {
    {"embedding_scale", Neutral::kAny},
    {"residual_scale", Neutral::kAny},
    {"attention.scale", Neutral::kAny},
    {"logit_scale", Neutral::kAny},
    // Not acted upon.
    {"attention.sliding_window", Neutral::kZero},
};

// Also the names by which the rest of the tree asks for tensors.
inline constexpr TensorNames kTensors[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};

inline constexpr TensorNames kLayerTensors[] = {
    {"input_layernorm.weight", "attn_norm.weight"},    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},      {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"}, {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},          {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.bias", "attn_output.bias"},     {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},           {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.gate_proj.bias", "ffn_gate.bias"},           {"mlp.up_proj.bias", "ffn_up.bias"},
    {"mlp.down_proj.bias", "ffn_down.bias"},
};

// The MLPs of all experts are one tensor each in GGUF files.
inline constexpr TensorNames kExpertLayerTensors[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"mlp.gate.weight", "ffn_gate_inp.weight"},
    {"mlp.experts.gate_proj.weight", "ffn_gate_exps.weight"},
    {"mlp.experts.up_proj.weight", "ffn_up_exps.weight"},
    {"mlp.experts.down_proj.weight", "ffn_down_exps.weight"},
};

inline constexpr Renaming kMixtralRenamings[] = {
    {"block_sparse_moe.", "mlp."},
    {".w1.weight", ".gate_proj.weight"},
    {".w2.weight", ".down_proj.weight"},
    {".w3.weight", ".up_proj.weight"},
};

inline constexpr TensorNames kMlpNorm[] = {
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
};

inline constexpr TensorNames kMlpAndHeadNorms[] = {
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
};

// Gemma 2: post-norms.
inline constexpr TensorNames kPostNorms[] = {
    {"post_attention_layernorm.weight", "post_attention_norm.weight"},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight"},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight"},
};

// OLMo 2: post-norms and norms of q and k.
inline constexpr TensorNames kPostAndHeadNorms[] = {
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"post_attention_layernorm.weight", "post_attention_norm.weight"},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight"},
};

// Gemma 3: all there are.
inline constexpr TensorNames kAllNorms[] = {
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"post_attention_layernorm.weight", "post_attention_norm.weight"},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight"},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight"},
};

// Phi-3: q, k and v are one tensor, gate and up another.
inline constexpr TensorNames kFusedLayerTensors[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"mlp.gate_up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
};

inline constexpr std::string_view kQkvParts[] = {
    "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"};
inline constexpr std::string_view kGateUpParts[] = {"mlp.gate_proj.weight", "mlp.up_proj.weight"};
inline constexpr FusedTensor kFusedProjections[] = {
    {"self_attn.qkv_proj.weight", kQkvParts},
    {"mlp.gate_up_proj.weight", kGateUpParts},
};

}  // namespace sirocco
