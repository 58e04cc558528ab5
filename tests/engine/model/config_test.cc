#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/configs.h"

namespace sirocco {
namespace {

using absl::StatusCode;
using nlohmann::json;

// What is small as text may be large as a tree, or in a parser's buffers.
TEST(JsonFileTest, MemoryIsBounded) {
  const auto repeated = [](const std::string& text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
  };
  const auto refusal = [](const std::string& text) {
    return std::string(ParseJsonObject(text, "x.json", 1 << 30).status().message());
  };
  EXPECT_EQ(refusal("{\"a\":[" + repeated("[],", 1'000'000) + "0]}"),
            "x.json: holds so many values that they take 24 MiB more than their text");
  EXPECT_EQ(refusal("{" + std::string(5 << 20, ' ') + "}"),
            "x.json: has a value or white space of more than 4194304 bytes at byte 0");
  EXPECT_NE(refusal("{\"a\":\"" + std::string(5 << 20, 'x') + "\"}").find("at byte 5"),
            std::string::npos);
  EXPECT_NE(refusal("{\"a\":" + std::string(5 << 20, '1') + "}").find("at byte 4"),
            std::string::npos);
  EXPECT_EQ(refusal("{\"a\":\"" + repeated("\\\"", 1000) + "\", \"b\": [1, 2]}"), "");
}

TEST(ConfigTest, Llama) {
  const auto model = Read(Config("llama_tied"));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->architecture, "llama");
  EXPECT_EQ(model->vocab_size, 384);
  EXPECT_EQ(model->hidden_size, 64);
  EXPECT_EQ(model->intermediate_size, 160);
  EXPECT_EQ(model->heads, 4);
  EXPECT_EQ(model->kv_heads, 2);
  EXPECT_EQ(model->head_dim, 16);
  EXPECT_EQ(model->max_position, 512);
  EXPECT_EQ(model->norm_epsilon, 1e-6f);
  EXPECT_EQ(model->attention_scale, 0.25f);
  EXPECT_EQ(model->embedding_scale, 1);
  EXPECT_EQ(model->activation, Activation::kSilu);
  EXPECT_FALSE(model->qkv_bias);
  EXPECT_FALSE(model->output_bias);
  EXPECT_FALSE(model->mlp_bias);
  EXPECT_TRUE(model->tied_head);
  EXPECT_EQ(model->layers.size(), 4u);
  ASSERT_EQ(model->groups.size(), 1u);
  EXPECT_EQ(model->groups[0].window, 0);
  ASSERT_EQ(model->rotaries.size(), 1u);
  ASSERT_EQ(model->rotaries[0].inverse_frequencies.size(), 8u);
  for (int i = 0; i < 8; ++i) {
    EXPECT_FLOAT_EQ(model->rotaries[0].inverse_frequencies[i],
                    std::pow(10000.0f, -static_cast<float>(i) / 8));
  }
}

TEST(ConfigTest, Qwen2HasBiasesOfItsOwn) {
  const auto model = Read(Config("qwen2"));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->architecture, "qwen2");
  EXPECT_EQ(model->head_dim, 16);  // not given: hidden_size / heads
  EXPECT_TRUE(model->qkv_bias);
  EXPECT_FALSE(model->output_bias);
  EXPECT_FALSE(model->mlp_bias);
  EXPECT_FLOAT_EQ(model->rotaries[0].inverse_frequencies[1], std::pow(1e6f, -0.125f));
  json config = Config("qwen2");
  config["sliding_window"] = 4096;  // counts only with use_sliding_window
  EXPECT_TRUE(Read(config).ok());
}

TEST(ConfigTest, LlamaOptions) {
  json config = Config("llama_tied");
  config["attention_bias"] = true;
  config["mlp_bias"] = true;
  config["hidden_act"] = "gelu_pytorch_tanh";
  config["head_dim"] = 32;
  const auto model = Read(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->qkv_bias);
  EXPECT_TRUE(model->output_bias);
  EXPECT_TRUE(model->mlp_bias);
  EXPECT_EQ(model->activation, Activation::kGeluTanh);
  EXPECT_EQ(model->head_dim, 32);
  EXPECT_EQ(model->rotaries[0].inverse_frequencies.size(), 16u);
}

// What transformers takes where config.json is silent.
TEST(ConfigTest, Defaults) {
  json config = Config("llama_tied");
  for (const char* key :
       {"architectures", "attention_bias", "dtype", "head_dim", "hidden_act", "mlp_bias",
        "max_position_embeddings", "num_key_value_heads", "rms_norm_eps", "rope_parameters",
        "tie_word_embeddings", "pretraining_tp"}) {
    config.erase(key);
  }
  const auto model = Read(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->kv_heads, 4);
  EXPECT_EQ(model->head_dim, 16);
  EXPECT_EQ(model->max_position, 2048);
  EXPECT_EQ(model->norm_epsilon, 1e-6f);
  EXPECT_FALSE(model->tied_head);
  EXPECT_FLOAT_EQ(model->rotaries[0].inverse_frequencies[4], 0.01f);
}

// transformers' _compute_llama3_parameters in numpy's float32, of dim 16 and 32.
TEST(ConfigTest, Llama3Rope) {
  const auto model = Read(Config("llama3_rope"));
  ASSERT_TRUE(model.ok()) << model.status();
  const float expected[] = {1,
                            0.079403013f,
                            0.00470075384f,
                            0.000911583134f,
                            0.000176776681f,
                            3.42810235e-05f,
                            6.64787058e-06f,
                            1.28917316e-06f};
  for (int i = 0; i < 8; ++i) {
    EXPECT_NEAR(model->rotaries[0].inverse_frequencies[i], expected[i], 2e-6f * expected[i]) << i;
  }
  json config = Config("llama_tied");
  config["head_dim"] = 32;
  config.erase("rope_parameters");
  config["rope_theta"] = 10000;
  config["rope_scaling"] = {{"type", "llama3"},
                            {"factor", 4},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 256}};
  const auto second = Read(config);
  ASSERT_TRUE(second.ok()) << second.status();
  const float between[] = {0.100000001f, 0.032210689f, 0.0101859178f, 0.00444569858f};
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(second->rotaries[0].inverse_frequencies[4 + i], between[i], 2e-6f * between[i]);
  }
}

// transformers 4 spells the same model so.
TEST(ConfigTest, SpellingsOfTransformers4) {
  const auto five = Read(Config("llama3_rope"));
  ASSERT_TRUE(five.ok());
  for (const char* type : {"rope_type", "type"}) {
    json config = Config("llama3_rope");
    json rope = config["rope_parameters"];
    config.erase("rope_parameters");
    config["rope_theta"] = rope["rope_theta"];
    rope.erase("rope_theta");
    rope[type] = rope["rope_type"];
    if (std::string(type) == "type") rope.erase("rope_type");
    config["rope_scaling"] = rope;
    config.erase("dtype");
    config["torch_dtype"] = "bfloat16";
    const auto four = Read(config);
    ASSERT_TRUE(four.ok()) << four.status();
    EXPECT_EQ(four->rotaries, five->rotaries);
  }
  json plain = Config("llama_tied");
  plain.erase("rope_parameters");
  plain["rope_theta"] = 10000.0;
  plain["rope_scaling"] = nullptr;
  const auto four = Read(plain);
  ASSERT_TRUE(four.ok()) << four.status();
  EXPECT_EQ(four->rotaries, Read(Config("llama_tied"))->rotaries);
}

TEST(ConfigTest, UnsupportedSettingsAreNamed) {
  ExpectAll(
      "llama_tied", StatusCode::kUnimplemented,
      {Set("model_type", "gpt2",
           "'gpt2'; supported are llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma, gemma2, "
           "gemma3_text, phi3, olmo2, granite, smollm3"),
       Set("architectures", json::array({"LlamaForSequenceClassification"}),
           "'LlamaForSequenceClassification'; supported for llama: LlamaForCausalLM"),
       Set("architectures", json::array({"Qwen2ForCausalLM"}), "Qwen2ForCausalLM"),
       Set("hidden_act", "relu", "'relu'; supported are silu, gelu_pytorch_tanh"),
       Set("pretraining_tp", 2, "pretraining_tp is 2; supported is 1"),
       Set("quantization_config", {{"quant_method", "awq"}}, "quantization_config"),
       Set("sliding_window", 4096, "sliding_window is 4096"),
       Set("partial_rotary_factor", 0.5, "partial_rotary_factor is 0.5"),
       Set("rope_interleaved", true, "rope_interleaved is true"),
       Set("layer_types", {"full_attention", "full_attention", "full_attention", "other"},
           "layer_types has 'other'"),
       SetRope("rope_type", "ntk", "rope_parameters.rope_type is 'ntk'; supported are"),
       SetRope("partial_rotary_factor", 0.25, "rope_parameters.partial_rotary_factor"),
       SetRope("mrope_section", {1, 2}, "mrope_section"),
       SetRope("full_attention", {{"rope_theta", 1.0}}, "rope_parameters.'full_attention'"),
       {"rope_scaling.type is 'ntk'; supported are default, linear, dynamic, llama3, yarn, "
        "longrope",
        [](json& config) {
          config.erase("rope_parameters");
          config["rope_scaling"] = {{"type", "ntk"}, {"factor", 2.0}};
        }}});
  ExpectAll("qwen2", StatusCode::kUnimplemented,
            {Set("use_sliding_window", true, "use_sliding_window is true; supported is false"),
             Set("use_mrope", true, "use_mrope")});
  ExpectAll(
      "qwen3", StatusCode::kUnimplemented,
      {Set("use_sliding_window", true, "use_sliding_window is true; supported is false"),
       Set("num_experts", 128, "num_experts is 128"),
       Set("layer_types",
           json::array({"full_attention", "sliding_attention", "full_attention", "full_attention"}),
           "layer_types has 'sliding_attention'; supported is full_attention")});
  ExpectAll(
      "gemma3", StatusCode::kUnimplemented,
      {Set("use_bidirectional_attention", true, "use_bidirectional_attention is true"),
       Set("vision_config", json::object(), "vision_config is a list or an object"),
       Set("hidden_activation", "gelu", "hidden_activation is 'gelu'; supported are"),
       Set("layer_types", json(std::vector<std::string>(6, "chunked_attention")),
           "'chunked_attention'; supported is full_attention and sliding_attention"),
       SetRope("chunked_attention", json::object(), "rope_parameters has 'chunked_attention'"),
       SetRope("full_attention", {{"rope_type", "ntk"}},
               "rope_parameters.full_attention.rope_type is 'ntk'"),
       SetRope("sliding_attention", {{"mrope_section", 1.0}},
               "rope_parameters.sliding_attention.'mrope_section' is not supported")});
}

TEST(ConfigTest, BadSettingsAreNamed) {
  std::vector<Case> cases = {
      Set("model_type", 3, "model_type"),
      Set("architectures", "LlamaForCausalLM", "architectures"),
      Set("architectures", {1}, "architectures"),
      Set("num_attention_heads", 3, "does not divide"),
      Set("num_key_value_heads", 3, "num_key_value_heads is 3, which does not divide"),
      Set("num_key_value_heads", 8, "num_key_value_heads is 8; allowed are integers from 1 to 4"),
      Set("head_dim", 15, "even numbers"),
      Set("attention_bias", 1, "attention_bias is 1; allowed are true and false"),
      Set("tie_word_embeddings", "yes", "tie_word_embeddings"),
      Set("hidden_act", 5, "hidden_act is 5, not a string"),
      Set("layer_types", {"full_attention"}, "layer_types is no list of 4"),
      Set("rms_norm_eps", 0, "rms_norm_eps is 0"),
      Set("rms_norm_eps", -1e-6, "rms_norm_eps"),
      Set("rms_norm_eps", 1e-206,
          "rms_norm_eps is 1e-206; allowed are numbers of at least 1e-15, at most 1"),
      Set("rms_norm_eps", 2, "rms_norm_eps"),
      Set("rms_norm_eps", "1e-6", "rms_norm_eps is '1e-6'"),
      Set("rope_theta", 0, "rope_theta is 0"),
      Set("rope_theta", 500.0, "rope_parameters.rope_theta is 10000, but rope_theta is 500"),
      Set("rope_parameters", {1}, "rope_parameters is no object"),
      Set("rope_scaling", {{"type", "linear"}}, "rope_parameters and rope_scaling differ"),
      SetRope("rope_theta", -1, "rope_parameters.rope_theta"),
      SetRope("rope_type", 3, "rope_parameters.rope_type is 3, not a string"),
  };
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "max_position_embeddings", "head_dim"}) {
    for (const json& value : {json(0), json(-8), json(1 << 29), json(uint64_t{1} << 63), json(8.5),
                              json(8.0), json("8"), json(true), json::array({8})}) {
      cases.push_back(Set(key, value, std::string(key) + " is "));
    }
  }
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads"}) {
    cases.push_back({std::string(key) + " is missing", [=](json& config) { config.erase(key); }});
  }
  cases.push_back({"neither model_type nor architectures", [](json& config) {
                     config.erase("model_type");
                     config.erase("architectures");
                   }});
  ExpectAll("llama_tied", StatusCode::kInvalidArgument, cases);

  ExpectAll("llama3_rope", StatusCode::kInvalidArgument,
            {SetRope("factor", 0, "rope_parameters.factor is 0"),
             SetRope("factor", nullptr, "rope_parameters.factor is missing"),
             SetRope("low_freq_factor", 4, "high_freq_factor is 4; it must be greater"),
             SetRope("original_max_position_embeddings", -64, "original_max_position_embeddings")});
}

TEST(ConfigTest, Qwen3) {
  const auto model = Read(Config("qwen3"));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->architecture, "qwen3");
  EXPECT_EQ(model->head_dim, 32);
  EXPECT_TRUE(model->head_norms);
  EXPECT_FALSE(model->post_norms);
  EXPECT_FALSE(model->qkv_bias);
  EXPECT_FALSE(model->tied_head);
  EXPECT_EQ(model->activation, Activation::kSilu);
  EXPECT_EQ(model->embedding_scale, 1);
  EXPECT_FLOAT_EQ(model->attention_scale, 1 / std::sqrt(32.0f));
  ASSERT_EQ(model->rotaries.size(), 1u);
  EXPECT_FLOAT_EQ(model->rotaries[0].inverse_frequencies[8], 1e-3f);
  ASSERT_EQ(model->groups.size(), 1u);

  json config = Config("qwen3");
  config["attention_bias"] = true;
  config.erase("head_dim");
  config["sliding_window"] = 4096;  // counts only with use_sliding_window
  const auto other = Read(config);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->head_dim, 128);
  EXPECT_TRUE(other->qkv_bias);
  EXPECT_TRUE(other->output_bias);
}

TEST(ConfigTest, ArchitecturesAloneSuffice) {
  json config = Config("qwen2");
  config.erase("model_type");
  const auto model = Read(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->architecture, "qwen2");
}

}  // namespace
}  // namespace sirocco
