#include "tests/engine/model/gguf_models.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "nlohmann/json.hpp"
#include "tests/engine/model/test_files.h"
#include "tests/testing/golden.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

// Powers of two, so that float16 holds them and products are exact.
constexpr float kScale = 1.0f / 64;
constexpr uint16_t kScaleBits = (15 - 6) << 10;
constexpr float kLeast = -1.0f / 8;
constexpr uint16_t kLeastBits = 0x8000 | (15 - 3) << 10;

int Quantise(float value, int least, int most) {
  return std::clamp(static_cast<int>(std::lround(value)), least, most);
}

// A block of 32 values in `type`; the values become what the block stands for.
std::string EncodeBlock(float* values, uint32_t type) {
  std::string block = Raw(kScaleBits);
  if (type == kGgmlQ8_0) {
    for (int i = 0; i < 32; ++i) {
      const int q = Quantise(values[i] / kScale, -128, 127);
      block += Raw(static_cast<int8_t>(q));
      values[i] = static_cast<float>(q) * kScale;
    }
    return block;
  }
  const bool five = type == kGgmlQ5_0 || type == kGgmlQ5_1;
  const bool with_least = type == kGgmlQ4_1 || type == kGgmlQ5_1;
  const int most = five ? 31 : 15;
  if (with_least) block += Raw(kLeastBits);
  const float least = with_least ? kLeast : static_cast<float>(-(most + 1) / 2) * kScale;
  int q[32];
  uint32_t fifth = 0;
  for (int i = 0; i < 32; ++i) {
    q[i] = Quantise((values[i] - least) / kScale, 0, most);
    values[i] = static_cast<float>(q[i]) * kScale + least;
    fifth |= static_cast<uint32_t>(q[i] >> 4) << i;
  }
  if (five) block += Raw(fifth);
  for (int i = 0; i < 16; ++i) {
    block += Raw(static_cast<uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4));
  }
  return block;
}

// Values of bfloat16 in any type; float16 may lose the smallest.
std::string Encode(std::vector<float>& values, uint32_t type) {
  std::string bytes;
  if (type == kGgmlF32) {
    for (const float value : values) bytes += Raw(value);
  } else if (type == kGgmlBF16) {
    for (const float value : values) bytes += Raw(value).substr(2);
  } else if (type == kGgmlF16) {
    for (float& value : values) {
      const _Float16 half = static_cast<_Float16>(value);
      bytes += Raw(half);
      value = static_cast<float>(half);
    }
  } else {
    for (size_t i = 0; i < values.size(); i += 32) bytes += EncodeBlock(&values[i], type);
  }
  return bytes;
}

// Hugging Face's rows [head][half][pair] as llama.cpp's converter has them: [head][pair][half].
std::vector<float> Interleave(const std::vector<float>& values, int64_t rows, int heads) {
  const int64_t width = static_cast<int64_t>(values.size()) / rows;
  const int64_t dim = rows / heads;
  std::vector<float> out;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t pair = 0; pair < dim / 2; ++pair) {
      for (int64_t half = 0; half < 2; ++half) {
        const float* row = &values[(head * dim + half * (dim / 2) + pair) * width];
        out.insert(out.end(), row, row + width);
      }
    }
  }
  return out;
}

// Hugging Face's tensor of one expert as the name of all of them; empty: it is none.
std::string NameOfAllExperts(std::string name, int expert) {
  const std::pair<const char*, const char*> mixtrals[] = {{"block_sparse_moe.", "mlp."},
                                                          {".w1.", ".gate_proj."},
                                                          {".w2.", ".down_proj."},
                                                          {".w3.", ".up_proj."}};
  for (const auto& [from, to] : mixtrals) {
    const size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, std::string(from).size(), to);
  }
  const std::string number = "experts." + std::to_string(expert) + ".";
  const size_t at = name.find(number);
  return at == std::string::npos ? "" : name.replace(at, number.size(), "experts.");
}

// Tensors [rows, cols] of experts become one [experts, rows, cols].
void StackExperts(int experts, std::map<std::string, GoldenTensor>& tensors) {
  if (experts == 0) return;
  std::map<std::string, GoldenTensor> all;
  for (int i = 0; i < experts; ++i) {
    for (const auto& [name, tensor] : tensors) {
      const std::string whole = NameOfAllExperts(name, i);
      if (whole.empty()) continue;
      GoldenTensor& to = all[whole];
      to.shape = {experts, tensor.shape[0], tensor.shape[1]};
      to.floats.insert(to.floats.end(), tensor.floats.begin(), tensor.floats.end());
    }
  }
  for (auto& [name, tensor] : tensors) {
    if (name.find("experts.") != std::string::npos) continue;
    const size_t router = name.find("block_sparse_moe.gate");
    const std::string own =
        router == std::string::npos ? name : name.substr(0, router) + "mlp.gate.weight";
    all[own] = std::move(tensor);
  }
  tensors = std::move(all);
}

std::string GgufName(std::string name, bool post_norms) {
  const std::pair<const char*, const char*> parts[] = {
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
      {"model.layers.", "blk."},
      {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", post_norms ? "post_attention_norm" : "ffn_norm"},
      {"pre_feedforward_layernorm", "ffn_norm"},
      {"post_feedforward_layernorm", "post_ffw_norm"},
      {"self_attn.o_proj", "attn_output"},
      {"gate_up_proj", "up"},
      {"mlp.gate.", "ffn_gate_inp."},
      {"mlp.experts.gate_proj", "ffn_gate_exps"},
      {"mlp.experts.up_proj", "ffn_up_exps"},
      {"mlp.experts.down_proj", "ffn_down_exps"},
      {"self_attn.", "attn_"},
      {"mlp.", "ffn_"},
      {"_proj", ""},
  };
  for (const auto& [from, to] : parts) {
    const size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, std::string(from).size(), to);
  }
  return name;
}

// Numbers that some families have, where config.json has them.
void AddScales(const nlohmann::json& config, const std::string& prefix, GgufWriter& writer) {
  const std::pair<const char*, const char*> numbers[] = {
      {"embedding_scale", "embedding_multiplier"},
      {"residual_scale", "residual_multiplier"},
      {"attention.scale", "attention_multiplier"},
      {"logit_scale", "logits_scaling"},
      {"attn_logit_softcapping", "attn_logit_softcapping"},
      {"final_logit_softcapping", "final_logit_softcapping"},
  };
  for (const auto& [to, from] : numbers) {
    if (config.contains(from) && !config[from].is_null()) {
      writer.Float32(prefix + to, config[from]);
    }
  }
}

void AddRope(const nlohmann::json& config, const std::string& prefix, GgufWriter& writer) {
  const nlohmann::json& parameters = config["rope_parameters"];
  const nlohmann::json& rope =
      parameters.contains("rope_theta") ? parameters : parameters["full_attention"];
  writer.Float32(prefix + "rope.freq_base", rope["rope_theta"]);
  const int head_dim = config.value("head_dim", 16);
  writer.Uint32(prefix + "rope.dimension_count",
                static_cast<uint32_t>(head_dim * rope.value("partial_rotary_factor", 1.0)));
  const std::string type = rope["rope_type"];
  if (type == "yarn") {
    writer.String(prefix + "rope.scaling.type", type)
        .Float32(prefix + "rope.scaling.factor", rope["factor"])
        .Uint32(prefix + "rope.scaling.original_context_length",
                rope["original_max_position_embeddings"]);
  }
  if (type != "longrope") return;
  const double original = rope["original_max_position_embeddings"];
  const double factor = config["max_position_embeddings"].get<double>() / original;
  const double scale = std::sqrt(1 + std::log(factor) / std::log(original));
  writer.Uint32(prefix + "rope.scaling.original_context_length", static_cast<uint32_t>(original))
      .Float32(prefix + "rope.scaling.attn_factor", rope.value("attention_factor", scale));
  for (const char* name : {"short", "long"}) {
    const nlohmann::json& factors = rope[name + std::string("_factor")];
    std::string bytes;
    for (const nlohmann::json& value : factors) bytes += Raw(value.get<float>());
    writer.Tensor("rope_factors_" + std::string(name) + ".weight", {factors.size()}, kGgmlF32,
                  bytes);
  }
}

void AddSettings(const nlohmann::json& config, const std::string& type, GgufWriter& writer) {
  const std::string prefix = type + ".";
  writer.String("general.architecture", type).String("general.type", "model");
  const std::pair<const char*, const char*> sizes[] = {
      {"block_count", "num_hidden_layers"},
      {"context_length", "max_position_embeddings"},
      {"embedding_length", "hidden_size"},
      {"feed_forward_length", "intermediate_size"},
      {"attention.head_count", "num_attention_heads"},
      {"attention.head_count_kv", "num_key_value_heads"},
  };
  for (const auto& [to, from] : sizes) writer.Uint32(prefix + to, config[from]);
  writer.Float32(prefix + "attention.layer_norm_rms_epsilon", config["rms_norm_eps"]);
  AddRope(config, prefix, writer);
  AddScales(config, prefix, writer);
  // As Llama's converter does, without a size that follows from the others.
  const int heads = config["num_attention_heads"];
  if (config.contains("head_dim") && heads * int{config["head_dim"]} != config["hidden_size"]) {
    writer.Uint32(prefix + "attention.key_length", config["head_dim"])
        .Uint32(prefix + "attention.value_length", config["head_dim"]);
  }
  if (config.contains("num_local_experts")) {
    writer.Uint32(prefix + "expert_count", config["num_local_experts"])
        .Uint32(prefix + "expert_used_count", config["num_experts_per_tok"]);
  }
  if (config.contains("moe_intermediate_size")) {
    writer.Uint32(prefix + "expert_feed_forward_length", config["moe_intermediate_size"]);
  }
  if (type == "gemma2" || type == "gemma3") {
    writer.Uint32(prefix + "attention.sliding_window", config["sliding_window"]);
  }
  writer.Uint32("tokenizer.ggml.eos_token_id", 2);
}

// The values of a tensor under the names of its parts, which are one below the other.
void AddValues(const nlohmann::json& config, const std::string& name,
               const std::vector<float>& values, std::map<std::string, std::vector<float>>& all) {
  if (const size_t at = name.find("mlp.experts."); at != std::string::npos) {
    const size_t experts = config["num_local_experts"];
    const size_t each = values.size() / experts;
    for (size_t i = 0; i < experts; ++i) {
      std::string own = name;
      own.insert(at + std::string("mlp.experts.").size(), std::to_string(i) + ".");
      all[own] = {values.begin() + i * each, values.begin() + (i + 1) * each};
    }
    return;
  }
  const int q = config["num_attention_heads"], kv = config["num_key_value_heads"];
  const std::pair<const char*, std::vector<std::pair<const char*, int>>> fused[] = {
      {"qkv_proj", {{"q_proj", q}, {"k_proj", kv}, {"v_proj", kv}}},
      {"gate_up_proj", {{"gate_proj", 1}, {"up_proj", 1}}},
  };
  for (const auto& [whole, parts] : fused) {
    const size_t at = name.find(whole);
    if (at == std::string::npos) continue;
    int shares = 0;
    for (const auto& part : parts) shares += part.second;
    auto from = values.begin();
    for (const auto& [part, share] : parts) {
      const auto to = from + static_cast<ptrdiff_t>(values.size()) / shares * share;
      std::string own = name;
      all[own.replace(at, std::string(whole).size(), part)] = {from, to};
      from = to;
    }
    return;
  }
  all[name] = values;
}

}  // namespace

GgufModel MakeGgufModel(const std::string& golden, uint32_t type, bool with_settings) {
  const auto config = nlohmann::json::parse(ReadBytes(GoldenPath(golden + "/config.json")));
  auto tensors = ReadGoldenTensors(GoldenPath(golden + "/model.safetensors"));
  if (!tensors.ok()) std::abort();
  StackExperts(config.value("num_local_experts", 0), *tensors);
  std::string architecture = config["model_type"];
  if (architecture == "gemma3_text") architecture = "gemma3";
  if (architecture == "mixtral") architecture = "llama";
  if (architecture == "qwen3_moe") architecture = "qwen3moe";
  const bool gemma = architecture.compare(0, 5, "gemma") == 0;
  const bool post_norms =
      architecture == "gemma2" || architecture == "gemma3" || architecture == "olmo2";
  GgufModel model;
  if (with_settings) AddSettings(config, architecture, model.writer);
  const bool interleaved =
      architecture == "llama" || architecture == "granite" || architecture == "smollm3";
  for (const auto& [name, tensor] : *tensors) {
    const uint32_t stored = tensor.shape.size() == 1 ? kGgmlF32 : type;
    const bool q = name.find(".q_proj.") != std::string::npos;
    const bool k = name.find(".k_proj.") != std::string::npos;
    std::vector<float> values = tensor.floats;
    if (gemma && tensor.shape.size() == 1) {
      for (float& value : values) value += 1;
    }
    std::string data = Encode(values, stored);  // rows are whole blocks: order does not matter
    AddValues(config, name, values, model.values);
    if (interleaved && (q || k)) {
      std::vector<float> permuted =
          Interleave(tensor.floats, tensor.shape[0],
                     config[q ? "num_attention_heads" : "num_key_value_heads"]);
      data = Encode(permuted, stored);
    }
    model.writer.Tensor(GgufName(name, post_norms), {tensor.shape.begin(), tensor.shape.end()},
                        stored, data);
  }
  return model;
}

}  // namespace sirocco
