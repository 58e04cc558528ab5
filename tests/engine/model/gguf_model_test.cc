#include "engine/model/gguf_model.h"

#include <cmath>
#include <functional>

#include "engine/model/model_files.h"
#include "engine/model/tensor_rows.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/gguf_model_fixture.h"
#include "tests/engine/model/gguf_models.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::FloatEq;
using ::testing::IsEmpty;
using ::testing::Pointwise;

// Settings and factors are float32 in GGUF files.
void ExpectSame(const RotaryDescriptor& a, const RotaryDescriptor& b) {
  EXPECT_FLOAT_EQ(a.scale, b.scale);
  EXPECT_EQ(a.original_context, b.original_context);
  EXPECT_THAT(a.inverse_frequencies, Pointwise(FloatEq(), b.inverse_frequencies));
  EXPECT_THAT(a.long_inverse_frequencies, Pointwise(FloatEq(), b.long_inverse_frequencies));
}

// The file of a golden says of the model what the golden's directory says.
TEST_F(GgufModelTest, DescriptorsAreThoseOfTheDirectories) {
  for (const std::string golden :
       {"llama_tied", "qwen2", "qwen2_yarn", "qwen3", "gemma", "gemma2", "gemma3", "phi3",
        "phi3_short", "phi4_mini", "olmo2", "granite", "smollm3", "mixtral", "qwen3_moe"}) {
    SCOPED_TRACE(golden);
    const auto gguf = Open(MakeGgufModel(golden, kGgmlF16).writer);
    ASSERT_TRUE(gguf.ok()) << gguf.status();
    const auto directory = OpenModel(GoldenPath(golden));
    ASSERT_TRUE(directory.ok()) << directory.status();
    EXPECT_EQ(gguf->name, "Tiny-Model");
    EXPECT_EQ(gguf->format, "gguf");
    EXPECT_THAT(gguf->end_token_ids, ElementsAre(2));
    const ModelDescriptor& a = gguf->descriptor;
    const ModelDescriptor& b = directory->descriptor;
    EXPECT_EQ(a.architecture, b.architecture);
    EXPECT_EQ(a.vocab_size, b.vocab_size);
    EXPECT_EQ(a.hidden_size, b.hidden_size);
    EXPECT_EQ(a.intermediate_size, b.intermediate_size);
    EXPECT_EQ(a.experts, b.experts);
    EXPECT_EQ(a.experts_a_row, b.experts_a_row);
    EXPECT_EQ(a.renormalise, b.renormalise);
    EXPECT_EQ(a.heads, b.heads);
    EXPECT_EQ(a.kv_heads, b.kv_heads);
    EXPECT_EQ(a.head_dim, b.head_dim);
    EXPECT_EQ(a.max_position, b.max_position);
    EXPECT_FLOAT_EQ(a.norm_epsilon, b.norm_epsilon);
    // GGUF files do not say Gemma 2's.
    EXPECT_FLOAT_EQ(a.attention_scale,
                    golden == "gemma2" ? 1 / std::sqrt(32.0f) : b.attention_scale);
    EXPECT_FLOAT_EQ(a.embedding_scale, b.embedding_scale);
    EXPECT_FLOAT_EQ(a.logit_scale, b.logit_scale);
    EXPECT_EQ(a.attention_soft_cap, b.attention_soft_cap);
    EXPECT_EQ(a.logit_soft_cap, b.logit_soft_cap);
    EXPECT_EQ(a.activation, b.activation);
    EXPECT_EQ(a.pre_norms, b.pre_norms);
    EXPECT_EQ(a.head_norms, b.head_norms);
    EXPECT_EQ(a.whole_norms, b.whole_norms);
    EXPECT_EQ(a.post_norms, b.post_norms);
    EXPECT_EQ(a.qkv_bias, b.qkv_bias);
    EXPECT_EQ(a.output_bias, b.output_bias);
    EXPECT_EQ(a.mlp_bias, b.mlp_bias);
    EXPECT_EQ(a.tied_head, b.tied_head);
    ASSERT_EQ(a.rotaries.size(), b.rotaries.size());
    for (size_t i = 0; i < a.rotaries.size(); ++i) ExpectSame(a.rotaries[i], b.rotaries[i]);
    EXPECT_EQ(a.groups, b.groups);
    ASSERT_EQ(a.layers.size(), b.layers.size());
    for (size_t i = 0; i < a.layers.size(); ++i) {
      EXPECT_EQ(a.layers[i].group, b.layers[i].group) << i;
      EXPECT_EQ(a.layers[i].rotary, b.layers[i].rotary) << i;
    }
  }
}

TEST_F(GgufModelTest, TensorsOfEveryTypeReadAsTheyWere) {
  for (const std::string golden : {"llama_tied", "llama3_rope", "qwen2", "qwen3", "gemma3", "phi3",
                                   "phi4_mini", "olmo2", "granite", "mixtral"}) {
    for (const uint32_t type :
         {kGgmlF32, kGgmlF16, kGgmlBF16, kGgmlQ8_0, kGgmlQ4_0, kGgmlQ4_1, kGgmlQ5_0, kGgmlQ5_1}) {
      const GgufModel model = MakeGgufModel(golden, type);
      const auto files = Open(model.writer);
      ASSERT_TRUE(files.ok()) << files.status();
      // Beside LongRoPE's two lists of factors.
      EXPECT_EQ(files->tensors->tensors().size(),
                model.values.size() + (golden == "phi4_mini" ? 2 : 0));
      for (const auto& [name, values] : model.values) {
        const StoredTensor* tensor = files->tensors->Find(name);
        ASSERT_NE(tensor, nullptr) << name;
        std::vector<float> read(values.size());
        ASSERT_TRUE(ReadRows(*tensor, 0, read).ok());
        ASSERT_THAT(read, ElementsAreArray(values)) << golden << " " << type << " " << name;
      }
    }
  }
}

TEST_F(GgufModelTest, RopeFactorsDivideTheRates) {
  GgufModel model = MakeGgufModel("llama_tied", kGgmlF16);
  const auto plain = Open(model.writer);
  ASSERT_TRUE(plain.ok());
  std::string factors;
  for (int i = 0; i < 8; ++i) factors += Raw(static_cast<float>(i + 1));
  model.writer.Tensor("rope_freqs.weight", {8}, kGgmlF32, factors);
  const auto scaled = Open(model.writer);
  ASSERT_TRUE(scaled.ok()) << scaled.status();
  for (int i = 0; i < 8; ++i) {
    EXPECT_FLOAT_EQ(scaled->descriptor.rotaries[0].inverse_frequencies[i] * (i + 1),
                    plain->descriptor.rotaries[0].inverse_frequencies[i]);
  }
}

// Llama models with biases show them by their tensors alone.
TEST_F(GgufModelTest, LlamaBiasesArePermutedToo) {
  GgufModel model = MakeGgufModel("llama_tied", kGgmlF16);
  std::string ramp;
  for (int i = 0; i < 64; ++i) ramp += Raw(static_cast<float>(i));
  for (int layer = 0; layer < 4; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    model.writer.Tensor(prefix + "attn_q.bias", {64}, kGgmlF32, ramp);
    model.writer.Tensor(prefix + "attn_k.bias", {32}, kGgmlF32, ramp.substr(0, 128));
    model.writer.Tensor(prefix + "attn_v.bias", {32}, kGgmlF32, ramp.substr(0, 128));
  }
  const auto files = Open(model.writer);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_TRUE(files->descriptor.qkv_bias);
  EXPECT_FALSE(files->descriptor.output_bias);
  std::vector<float> bias(32);
  const StoredTensor* k = files->tensors->Find("model.layers.3.self_attn.k_proj.bias");
  ASSERT_TRUE(ReadRows(*k, 0, bias).ok());
  EXPECT_EQ(bias[1], 2);  // of two heads of 16: the second pair's first half
  EXPECT_EQ(bias[8], 1);  // the first pair's second half
  EXPECT_EQ(bias[17], 18);
  const StoredTensor* v = files->tensors->Find("model.layers.3.self_attn.v_proj.bias");
  ASSERT_TRUE(ReadRows(*v, 0, bias).ok());
  EXPECT_EQ(bias[1], 1);
}

TEST_F(GgufModelTest, SpoiltLongRopeIsNamed) {
  const StatusCode invalid = StatusCode::kInvalidArgument;
  const auto without_settings = [](uint32_t turned = 12) {
    GgufModel model = MakeGgufModel("phi4_mini", kGgmlF16, /*with_settings=*/false);
    model.writer.String("general.architecture", "phi3")
        .Uint32("phi3.block_count", 3)
        .Uint32("phi3.context_length", 512)
        .Uint32("phi3.embedding_length", 64)
        .Uint32("phi3.feed_forward_length", 160)
        .Uint32("phi3.attention.head_count", 4)
        .Uint32("phi3.attention.head_count_kv", 2)
        .Uint32("phi3.rope.dimension_count", turned)
        .Float32("phi3.attention.layer_norm_rms_epsilon", 1e-5f);
    return model.writer;
  };
  const std::string ones = Raw(1.0f) + Raw(1.0f) + Raw(1.0f) + Raw(1.0f) + Raw(1.0f) + Raw(1.0f);
  EXPECT_TRUE(Open(without_settings()).ok());
  GgufWriter one = without_settings();
  one.Tensor("rope_factors_long.weight", {6}, kGgmlF32, ones);
  EXPECT_ERROR(Open(one), invalid, "has no tensor 'rope_factors_short.weight'");
  GgufWriter narrow = without_settings();
  narrow.Tensor("rope_factors_short.weight", {5}, kGgmlF32, ones.substr(4))
      .Tensor("rope_factors_long.weight", {6}, kGgmlF32, ones);
  EXPECT_ERROR(Open(narrow), invalid, "'rope_factors_short.weight' is F32 [5]; it must be [6]");
  GgufWriter zero = without_settings();
  zero.Tensor("rope_factors_short.weight", {6}, kGgmlF32, std::string(24, '\0'))
      .Tensor("rope_factors_long.weight", {6}, kGgmlF32, ones);
  EXPECT_ERROR(Open(zero), invalid, "rope_factors_short.weight' has 0");
  EXPECT_ERROR(Open(without_settings(17)), invalid,
               "phi3.rope.dimension_count is 17; allowed are even numbers");
}

TEST_F(GgufModelTest, EndTokens) {
  GgufModel model = MakeGgufModel("qwen2", kGgmlF16, /*with_settings=*/false);
  model.writer.String("general.architecture", "qwen2")
      .Uint32("qwen2.block_count", 4)
      .Uint32("qwen2.context_length", 512)
      .Uint32("qwen2.embedding_length", 64)
      .Uint32("qwen2.feed_forward_length", 160)
      .Uint32("qwen2.attention.head_count", 4)
      .Uint32("qwen2.attention.head_count_kv", 2)
      .Float32("qwen2.attention.layer_norm_rms_epsilon", 1e-6f);
  const auto files = Open(model.writer);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(files->end_token_ids, IsEmpty());
  EXPECT_FLOAT_EQ(files->descriptor.rotaries[0].inverse_frequencies[4], 0.01f);  // base 10,000
  model.writer.Uint32("tokenizer.ggml.eos_token_id", 384);
  EXPECT_ERROR(Open(model.writer), StatusCode::kInvalidArgument,
               "tokenizer.ggml.eos_token_id is 384; allowed are integers from 0 to 383");
}

TEST_F(GgufModelTest, WhatIsNotSupportedIsNamed) {
  struct Case {
    const char* part;
    std::function<void(GgufWriter&)> change;
  };
  const Case cases[] = {
      {"llama.rope.scaling.type is 'dynamic'",
       [](auto& w) { w.String("llama.rope.scaling.type", "dynamic"); }},
      {"llama.rope.scaling.attn_factor is 2; supported is 1",
       [](auto& w) { w.Float32("llama.rope.scaling.attn_factor", 2); }},
      {"'rope_factors_long.weight', which a model",
       [](auto& w) { w.Tensor("rope_factors_long.weight", {1}, kGgmlF32, Raw(1.0f)); }},
      {"llama.expert_used_count is 2; supported is 0",
       [](auto& w) { w.Uint32("llama.expert_used_count", 2); }},
      {"llama.attention.sliding_window is 64",
       [](auto& w) { w.Uint32("llama.attention.sliding_window", 64); }},
      {"'llama.logit_scale' is not supported",
       [](auto& w) { w.Float32("llama.logit_scale", 0.5f); }},
      {"llama.attention.value_length is 8",
       [](auto& w) { w.Uint32("llama.attention.value_length", 8); }},
      {"split.count is 3", [](auto& w) { w.Key("split.count", kMetaUint16, Raw<uint16_t>(3)); }},
      {"'blk.0.attn_q_norm.weight'",
       [](auto& w) { w.Tensor("blk.0.attn_q_norm.weight", {1}, kGgmlF32, Raw(1.0f)); }},
      {"'blk.01.attn_norm.weight'",
       [](auto& w) { w.Tensor("blk.01.attn_norm.weight", {1}, kGgmlF32, Raw(1.0f)); }},
      {"'model.norm.weight'",
       [](auto& w) { w.Tensor("model.norm.weight", {1}, kGgmlF32, Raw(1.0f)); }},
      {"'model.layers.4.input_layernorm.weight'",
       [](auto& w) { w.Tensor("blk.4.attn_norm.weight", {1}, kGgmlF32, Raw(1.0f)); }},
      {"'model.layers.1.mlp.up_proj.bias'",
       [](auto& w) { w.Tensor("blk.1.ffn_up.bias", {1}, kGgmlF32, Raw(1.0f)); }},
  };
  for (const Case& test : cases) {
    GgufModel model = MakeGgufModel("llama_tied", kGgmlF16);
    test.change(model.writer);
    EXPECT_ERROR(Open(model.writer), StatusCode::kUnimplemented, test.part);
  }
  for (const char* architecture : {"gpt2", ""}) {
    GgufModel model = MakeGgufModel("llama_tied", kGgmlF16, false);
    model.writer.String("general.architecture", architecture);
    EXPECT_ERROR(Open(model.writer), StatusCode::kUnimplemented,
                 "supported are llama, qwen2, qwen3, qwen3moe, gemma, gemma2, gemma3, phi3, olmo2, "
                 "granite, smollm3");
  }
  GgufModel adapter = MakeGgufModel("llama_tied", kGgmlF16, false);
  adapter.writer.String("general.type", "adapter");
  EXPECT_ERROR(Open(adapter.writer), StatusCode::kUnimplemented, "general.type is 'adapter'");
}

TEST_F(GgufModelTest, WhatIsMalformedIsNamed) {
  const StatusCode invalid = StatusCode::kInvalidArgument;
  const auto settings = [](uint32_t heads, const std::string& heads_value) {
    GgufModel model = MakeGgufModel("llama_tied", kGgmlF16, false);
    model.writer.String("general.architecture", "llama")
        .Uint32("llama.block_count", 4)
        .Uint32("llama.context_length", 512)
        .Uint32("llama.embedding_length", 64)
        .Uint32("llama.feed_forward_length", 160)
        .Key("llama.attention.head_count", heads, heads_value)
        .Float32("llama.attention.layer_norm_rms_epsilon", 1e-6f);
    return model.writer;
  };
  EXPECT_ERROR(Open(settings(kMetaUint32, Raw<uint32_t>(0))), invalid,
               "llama.attention.head_count is 0; allowed are integers from 1");
  EXPECT_ERROR(Open(settings(kMetaInt32, Raw<int32_t>(-4))), invalid, "head_count is -4");
  EXPECT_ERROR(Open(settings(kMetaUint64, Raw<uint64_t>(~uint64_t{0}))), invalid, "head_count");
  EXPECT_ERROR(Open(settings(kMetaFloat32, Raw(4.0f))), invalid, "head_count is 4;");
  EXPECT_ERROR(Open(settings(kMetaArray, Raw(kMetaUint32) + Raw<uint64_t>(1) + Raw<uint32_t>(4))),
               invalid, "head_count is a list");
  // Four kv heads by default, but the file's k has two.
  EXPECT_ERROR(Open(settings(kMetaUint32, Raw<uint32_t>(4))), invalid,
               "'model.layers.0.self_attn.k_proj.weight' is F16 [32, 64]; by the model's settings "
               "it is [64, 64]");

  GgufModel vocabulary = MakeGgufModel("llama_tied", kGgmlF16);
  vocabulary.writer.Uint32("llama.vocab_size", 500);
  EXPECT_ERROR(Open(vocabulary.writer), invalid, "embed_tokens");
  GgufModel zero = MakeGgufModel("llama_tied", kGgmlF16);
  zero.writer.Tensor("rope_freqs.weight", {8}, kGgmlF32, std::string(32, '\0'));
  EXPECT_ERROR(Open(zero.writer), invalid, "rope_freqs.weight' has 0");
  GgufModel narrow = MakeGgufModel("llama_tied", kGgmlF16);
  narrow.writer.Tensor("rope_freqs.weight", {4}, kGgmlF32, std::string(16, '\0'));
  EXPECT_ERROR(Open(narrow.writer), invalid, "it must be [8]");
  EXPECT_ERROR(Open(MakeGgufModel("llama_tied", kGgmlF16, false).writer), invalid,
               "general.architecture is missing");
  GgufWriter nothing;
  nothing.String("general.architecture", "llama");
  EXPECT_ERROR(Open(nothing), invalid, "no tensor 'token_embd.weight'");
}

}  // namespace
}  // namespace sirocco
