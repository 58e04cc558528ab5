// Gemma 3's settings: windows, two rotary tables, scaling.
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/configs.h"

namespace sirocco {
namespace {

using absl::StatusCode;
using nlohmann::json;

TEST(Gemma3ConfigTest, BadSettingsOfWindowsAreNamed) {
  const auto without_types = [](const std::string& key, const json& value) {
    return [=](json& config) {
      config.erase("layer_types");
      config.erase("_sliding_window_pattern");
      config[key] = value;
    };
  };
  std::vector<Case> cases = {
      Set("layer_types", {"full_attention"}, "layer_types is no list of 6"),
      Set("layer_types", {{"0", "full_attention"}}, "layer_types is no list of 6"),
      Set("sliding_window", nullptr, "sliding_window is null, but there are layers with"),
      Set("sliding_window", 0, "sliding_window is 0; allowed are integers from 1"),
      Set("sliding_window", -5, "sliding_window is -5"),
      Set("sliding_window", 16.0, "sliding_window is 16"),
      Set("sliding_window", uint64_t{1} << 40, "sliding_window is 1099511627776"),
      Set("query_pre_attn_scalar", 0, "query_pre_attn_scalar is 0"),
      Set("query_pre_attn_scalar", -1.5, "query_pre_attn_scalar is -1.5"),
      Set("query_pre_attn_scalar", "x", "query_pre_attn_scalar is 'x'"),
      Set("hidden_activation", 1, "hidden_activation is 1, not a string"),
      Set("rope_local_base_freq", 500,
          "rope_parameters.sliding_attention.rope_theta is 10000, but rope_local_base_freq is 500"),
      Set("rope_theta", 500, "rope_parameters.full_attention.rope_theta is 1e+06, but rope_theta"),
      SetRope("full_attention", 3, "rope_parameters.full_attention is no object"),
      SetRope("sliding_attention", {{"rope_theta", 0}},
              "rope_parameters.sliding_attention.rope_theta is 0"),
      SetRope("full_attention", {{"rope_type", "linear"}},
              "rope_parameters.full_attention.factor is missing"),
      SetRope("full_attention", {{"rope_type", "linear"}, {"factor", 0}},
              "rope_parameters.full_attention.factor is 0"),
      {"sliding_window_pattern is 0; allowed are integers from 1",
       without_types("sliding_window_pattern", 0)},
      {"sliding_window_pattern is 'a'", without_types("sliding_window_pattern", "a")},
      {"_sliding_window_pattern is -1", without_types("_sliding_window_pattern", -1)},
      {"sliding_window_pattern is 2, but _sliding_window_pattern is 6",
       [](json& config) {
         config.erase("layer_types");
         config["sliding_window_pattern"] = 2;
       }},
      {"rope_local_base_freq is 0",
       [](json& config) {
         config.erase("rope_parameters");
         config["rope_local_base_freq"] = 0;
       }},
  };
  ExpectAll("gemma3", StatusCode::kInvalidArgument, cases);
}

void ExpectGemma3(const absl::StatusOr<ModelDescriptor>& model) {
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->architecture, "gemma3");
  EXPECT_TRUE(model->head_norms);
  EXPECT_TRUE(model->post_norms);
  EXPECT_TRUE(model->tied_head);
  EXPECT_EQ(model->activation, Activation::kGeluTanh);
  EXPECT_EQ(model->embedding_scale, 8);
  EXPECT_FLOAT_EQ(model->attention_scale, 1 / std::sqrt(32.0f));
  ASSERT_EQ(model->groups.size(), 2u);
  EXPECT_EQ(model->groups[0].window, 0);
  EXPECT_EQ(model->groups[1].window, 16);
  ASSERT_EQ(model->rotaries.size(), 2u);
  EXPECT_FLOAT_EQ(model->rotaries[0].inverse_frequencies[8], 1e-3f);
  EXPECT_FLOAT_EQ(model->rotaries[1].inverse_frequencies[8], 1e-2f);
  ASSERT_EQ(model->layers.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(model->layers[i].group, i == 5 ? 0 : 1) << i;
    EXPECT_EQ(model->layers[i].rotary, i == 5 ? 0 : 1) << i;
  }
}

TEST(Gemma3ConfigTest, Gemma3) { ExpectGemma3(Read(Config("gemma3"))); }

// As transformers 4 wrote it, by its releases: a pattern or types, bases beside one another.
TEST(Gemma3ConfigTest, Gemma3InSpellingsOfTransformers4) {
  json config = Config("gemma3");
  config.erase("rope_parameters");
  config.erase("_sliding_window_pattern");
  config["rope_theta"] = 1000000;
  config["rope_local_base_freq"] = 10000;
  config["rope_scaling"] = nullptr;
  ExpectGemma3(Read(config));
  config.erase("layer_types");
  config["sliding_window_pattern"] = 6;
  ExpectGemma3(Read(config));
  config.erase("sliding_window_pattern");
  config["_sliding_window_pattern"] = 6;
  ExpectGemma3(Read(config));
  config.erase("_sliding_window_pattern");  // 6, one base for each kind, a tied head: the defaults
  config.erase("rope_theta");
  config.erase("rope_local_base_freq");
  config.erase("tie_word_embeddings");
  config.erase("hidden_activation");
  ExpectGemma3(Read(config));
  // One object for the layers with full attention.
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  config["rope_local_base_freq"] = 10000.0;
  ExpectGemma3(Read(config));
  // Types that are missing or null have their base beside, or the default one.
  config["rope_parameters"] = {{"full_attention", {{"rope_theta", 1e6}}},
                               {"sliding_attention", nullptr}};
  ExpectGemma3(Read(config));
}

TEST(Gemma3ConfigTest, Gemma3Options) {
  json config = Config("gemma3");
  for (const char* key : {"layer_types", "_sliding_window_pattern", "sliding_window", "head_dim",
                          "query_pre_attn_scalar", "max_position_embeddings"}) {
    config.erase(key);
  }
  const auto silent = Read(config);
  ASSERT_TRUE(silent.ok()) << silent.status();
  EXPECT_EQ(silent->groups[1].window, 4096);
  EXPECT_EQ(silent->head_dim, 256);
  EXPECT_EQ(silent->attention_scale, 1.0f / 16);
  EXPECT_EQ(silent->max_position, 131072);

  config = Config("gemma3");
  config["query_pre_attn_scalar"] = 168.0;  // 27B: hidden_size / heads
  config["hidden_size"] = 1152;
  const auto scaled = Read(config);
  ASSERT_TRUE(scaled.ok()) << scaled.status();
  EXPECT_FLOAT_EQ(scaled->attention_scale, 1 / std::sqrt(168.0f));
  EXPECT_FLOAT_EQ(scaled->embedding_scale, 33.941125f);  // not rounded to bfloat16's 34

  // One kind of layers alone: one group, one rotary embedding.
  config = Config("gemma3");
  config["layer_types"] = std::vector<std::string>(6, "sliding_attention");
  const auto local = Read(config);
  ASSERT_TRUE(local.ok()) << local.status();
  ASSERT_EQ(local->groups.size(), 1u);
  EXPECT_EQ(local->groups[0].window, 16);
  ASSERT_EQ(local->rotaries.size(), 1u);
  EXPECT_FLOAT_EQ(local->rotaries[0].inverse_frequencies[8], 1e-2f);
  config["layer_types"] = std::vector<std::string>(6, "full_attention");
  config["sliding_window"] = nullptr;  // no layer needs it
  const auto full = Read(config);
  ASSERT_TRUE(full.ok()) << full.status();
  ASSERT_EQ(full->groups.size(), 1u);
  EXPECT_EQ(full->groups[0].window, 0);
}

// Positions of the layers with full attention alone are interpolated.
TEST(Gemma3ConfigTest, LinearRope) {
  const auto plain = Read(Config("gemma3"));
  ASSERT_TRUE(plain.ok());
  json five = Config("gemma3");
  five["rope_parameters"]["full_attention"]["rope_type"] = "linear";
  five["rope_parameters"]["full_attention"]["factor"] = 8.0;
  json four = Config("gemma3");
  four.erase("rope_parameters");
  four["rope_theta"] = 1000000.0;
  four["rope_local_base_freq"] = 10000.0;
  four["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8}};
  for (const json& config : {five, four}) {
    const auto scaled = Read(config);
    ASSERT_TRUE(scaled.ok()) << scaled.status();
    EXPECT_EQ(scaled->rotaries[1], plain->rotaries[1]);
    for (int i = 0; i < 16; ++i) {
      EXPECT_FLOAT_EQ(scaled->rotaries[0].inverse_frequencies[i] * 8,
                      plain->rotaries[0].inverse_frequencies[i]);
    }
  }
}

}  // namespace
}  // namespace sirocco
