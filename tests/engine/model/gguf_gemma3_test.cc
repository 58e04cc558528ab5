// Gemma 3 in GGUF files: what larger models have, and what converters write or leave out.
#include <cmath>
#include <functional>

#include "engine/model/gguf_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/gguf_model_fixture.h"
#include "tests/engine/model/gguf_models.h"

namespace sirocco {
namespace {

using absl::StatusCode;

// What larger models have, and what later converters write.
TEST_F(GgufModelTest, Gemma3Settings) {
  GgufModel linear = MakeGgufModel("gemma3", kGgmlF16);
  const auto plain = Open(linear.writer);
  ASSERT_TRUE(plain.ok()) << plain.status();
  linear.writer.String("gemma3.rope.scaling.type", "linear")
      .Float32("gemma3.rope.scaling.factor", 8)
      .Float32("gemma3.rope.freq_base_swa", 500);
  const auto scaled = Open(linear.writer);
  ASSERT_TRUE(scaled.ok()) << scaled.status();
  ASSERT_EQ(scaled->descriptor.rotaries.size(), 2u);
  for (int i = 0; i < 16; ++i) {
    EXPECT_FLOAT_EQ(scaled->descriptor.rotaries[0].inverse_frequencies[i] * 8,
                    plain->descriptor.rotaries[0].inverse_frequencies[i]);
    EXPECT_FLOAT_EQ(scaled->descriptor.rotaries[1].inverse_frequencies[i],
                    std::pow(500.0f, -static_cast<float>(i) / 16));
  }

  GgufModel pattern = MakeGgufModel("gemma3", kGgmlF16);
  pattern.writer.Uint32("gemma3.attention.sliding_window_pattern", 2);
  const auto alternating = Open(pattern.writer);
  ASSERT_TRUE(alternating.ok()) << alternating.status();
  for (size_t i = 0; i < 6; ++i) {
    const int32_t group = alternating->descriptor.layers[i].group;
    EXPECT_EQ(alternating->descriptor.groups[group].window, i % 2 == 0 ? 16 : 0) << i;
  }
}

TEST_F(GgufModelTest, AGemma3FileWithoutAWindowHasFullAttention) {
  GgufModel model = MakeGgufModel("gemma3", kGgmlF16, /*with_settings=*/false);
  model.writer.String("general.architecture", "gemma3")
      .Uint32("gemma3.block_count", 6)
      .Uint32("gemma3.context_length", 512)
      .Uint32("gemma3.embedding_length", 64)
      .Uint32("gemma3.feed_forward_length", 160)
      .Uint32("gemma3.attention.head_count", 4)
      .Uint32("gemma3.attention.head_count_kv", 1)
      .Uint32("gemma3.attention.key_length", 32)
      .Float32("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
  const auto files = Open(model.writer);
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->descriptor.groups.size(), 1u);
  EXPECT_EQ(files->descriptor.groups[0].window, 0);
  ASSERT_EQ(files->descriptor.rotaries.size(), 1u);
  EXPECT_FLOAT_EQ(files->descriptor.rotaries[0].inverse_frequencies[8], 1e-3f);  // base 1e6
}

TEST_F(GgufModelTest, WhatGemma3DoesNotSupportIsNamed) {
  struct Case {
    StatusCode code;
    const char* part;
    std::function<void(GgufWriter&)> change;
  };
  const Case cases[] = {
      {StatusCode::kInvalidArgument, "gemma3.final_logit_softcapping is -30",
       [](auto& w) { w.Float32("gemma3.final_logit_softcapping", -30); }},
      {StatusCode::kUnimplemented, "gemma3.rope.scaling.type is 'longrope' with a factor of 1",
       [](auto& w) { w.String("gemma3.rope.scaling.type", "longrope"); }},
      {StatusCode::kUnimplemented, "gemma3.rope.scaling.type is 'none' with a factor of 8",
       [](auto& w) {
         w.String("gemma3.rope.scaling.type", "none").Float32("gemma3.rope.scaling.factor", 8);
       }},
      {StatusCode::kInvalidArgument, "gemma3.rope.scaling.factor is 0",
       [](auto& w) { w.Float32("gemma3.rope.scaling.factor", 0); }},
      {StatusCode::kInvalidArgument, "gemma3.rope.freq_base_swa is -1",
       [](auto& w) { w.Float32("gemma3.rope.freq_base_swa", -1); }},
      {StatusCode::kInvalidArgument,
       "gemma3.attention.sliding_window_pattern is 0; allowed are integers from 1",
       [](auto& w) { w.Uint32("gemma3.attention.sliding_window_pattern", 0); }},
      {StatusCode::kInvalidArgument, "gemma3.attention.sliding_window_pattern is a list",
       [](auto& w) {
         w.Array("gemma3.attention.sliding_window_pattern", kMetaBool, 1, std::string(1, '\1'));
       }},
      {StatusCode::kUnimplemented, "'gemma3.mm.tokens_per_image' is not supported",
       [](auto& w) { w.Uint32("gemma3.mm.tokens_per_image", 256); }},
      {StatusCode::kUnimplemented, "'rope_freqs.weight', which a model of the architecture gemma3",
       [](auto& w) { w.Tensor("rope_freqs.weight", {1}, kGgmlF32, Raw(1.0f)); }},
      {StatusCode::kUnimplemented, "'v.patch_embd.weight', which a model of the architecture",
       [](auto& w) { w.Tensor("v.patch_embd.weight", {1}, kGgmlF32, Raw(1.0f)); }},
  };
  for (const Case& test : cases) {
    GgufModel model = MakeGgufModel("gemma3", kGgmlF16);
    test.change(model.writer);
    EXPECT_ERROR(Open(model.writer), test.code, test.part);
  }
}

// The file does not say the scale of attention: 27B, known by its layers, has one of its own.
TEST_F(GgufModelTest, Gemma3OfSixtyTwoLayersScalesByItsWidth) {
  GgufWriter writer;
  writer.String("general.architecture", "gemma3")
      .Uint32("gemma3.block_count", 62)
      .Uint32("gemma3.context_length", 512)
      .Uint32("gemma3.embedding_length", 32)
      .Uint32("gemma3.feed_forward_length", 2)
      .Uint32("gemma3.attention.head_count", 2)
      .Uint32("gemma3.attention.head_count_kv", 1)
      .Uint32("gemma3.attention.key_length", 4)
      .Uint32("gemma3.attention.sliding_window", 16)
      .Float32("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
  const auto add = [&](const std::string& name, const std::vector<uint64_t>& shape) {
    uint64_t count = 1;
    for (const uint64_t size : shape) count *= size;
    writer.Tensor(name, shape, kGgmlF32, std::string(count * sizeof(float), '\0'));
  };
  add("token_embd.weight", {8, 32});
  add("output_norm.weight", {32});
  for (int i = 0; i < 62; ++i) {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    for (const char* norm : {"attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"}) {
      add(prefix + norm + ".weight", {32});
    }
    for (const char* norm : {"attn_q_norm", "attn_k_norm"}) add(prefix + norm + ".weight", {4});
    add(prefix + "attn_q.weight", {8, 32});
    for (const char* kv : {"attn_k", "attn_v"}) add(prefix + kv + ".weight", {4, 32});
    add(prefix + "attn_output.weight", {32, 8});
    for (const char* mlp : {"ffn_gate", "ffn_up"}) add(prefix + mlp + ".weight", {2, 32});
    add(prefix + "ffn_down.weight", {32, 2});
  }
  const auto files = Open(writer);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_FLOAT_EQ(files->descriptor.attention_scale, 0.25f);  // of 32 / 2
}

}  // namespace
}  // namespace sirocco
