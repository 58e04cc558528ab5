// What config.json files of the families beyond Llama, Qwen and Gemma 3 say, and may not say.
#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/configs.h"
#include "tests/testing/json_mutations.h"

namespace sirocco {
namespace {

using absl::StatusCode;
using nlohmann::json;
using ::testing::ElementsAre;

std::vector<int32_t> GroupsOf(const ModelDescriptor& model) {
  std::vector<int32_t> groups;
  for (const LayerDescriptor& layer : model.layers) groups.push_back(layer.group);
  return groups;
}

std::vector<int32_t> RotariesOf(const ModelDescriptor& model) {
  std::vector<int32_t> rotaries;
  for (const LayerDescriptor& layer : model.layers) rotaries.push_back(layer.rotary);
  return rotaries;
}

TEST(FamilyConfigTest, AllOrNoLayersOfMistralHaveAWindow) {
  json config = Config("mistral_window");
  const auto all = Read(config);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->architecture, "mistral");
  EXPECT_THAT(all->groups, ElementsAre(LayerGroup{16}));
  EXPECT_EQ(all->rotaries.size(), 1u);
  EXPECT_THAT(GroupsOf(*all), ElementsAre(0, 0, 0, 0));
  config["sliding_window"] = nullptr;
  const auto none = Read(config);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_THAT(none->groups, ElementsAre(LayerGroup{0}));
  config.erase("sliding_window");
  config.erase("num_key_value_heads");
  config["num_attention_heads"] = 16;
  const auto silent = Read(config);
  ASSERT_TRUE(silent.ok()) << silent.status();
  EXPECT_THAT(silent->groups, ElementsAre(LayerGroup{4096}));
  EXPECT_EQ(silent->kv_heads, 8);
  config["num_key_value_heads"] = nullptr;
  EXPECT_EQ(Read(config)->kv_heads, 16);
}

TEST(FamilyConfigTest, Gemma2) {
  json config = Config("gemma2");
  const auto model = Read(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->groups, ElementsAre(LayerGroup{0}, LayerGroup{16}));
  EXPECT_THAT(GroupsOf(*model), ElementsAre(1, 0, 1, 0));
  EXPECT_EQ(model->rotaries.size(), 1u);  // both kinds of layers turn alike
  EXPECT_EQ(model->attention_soft_cap, 50);
  EXPECT_EQ(model->logit_soft_cap, 30);
  EXPECT_TRUE(model->post_norms);
  EXPECT_FALSE(model->head_norms);
  EXPECT_FLOAT_EQ(model->attention_scale, 1 / std::sqrt(24.0f));
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping", "layer_types",
                          "sliding_window", "query_pre_attn_scalar"}) {
    config.erase(key);
  }
  const auto silent = Read(config);
  ASSERT_TRUE(silent.ok()) << silent.status();
  EXPECT_THAT(silent->groups, ElementsAre(LayerGroup{0}, LayerGroup{4096}));
  EXPECT_THAT(GroupsOf(*silent), ElementsAre(1, 0, 1, 0));
  EXPECT_EQ(silent->attention_soft_cap, 50);
  EXPECT_EQ(silent->logit_soft_cap, 30);
  EXPECT_EQ(silent->attention_scale, 1.0f / 16);
  config["attn_logit_softcapping"] = nullptr;
  config["final_logit_softcapping"] = nullptr;
  EXPECT_EQ(Read(config)->attention_soft_cap, 0);
  EXPECT_EQ(Read(config)->logit_soft_cap, 0);
  ExpectAll("gemma2", StatusCode::kInvalidArgument,
            {Set("attn_logit_softcapping", 0, "attn_logit_softcapping is 0"),
             Set("final_logit_softcapping", "x", "final_logit_softcapping is 'x'")});
}

// Older files say "gelu" and mean its tanh form.
TEST(FamilyConfigTest, GemmaIsActivatedByTanh) {
  json config = Config("gemma");
  config["hidden_act"] = "gelu";
  const auto model = Read(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->activation, Activation::kGeluTanh);
  EXPECT_FALSE(model->post_norms);
  EXPECT_EQ(model->embedding_scale, 8);
}

TEST(FamilyConfigTest, Phi3) {
  json config = Config("phi3");
  const auto model = Read(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->groups, ElementsAre(LayerGroup{0}));
  EXPECT_EQ(model->rotaries[0].inverse_frequencies.size(), 8u);
  EXPECT_THAT(model->rotaries[0].long_inverse_frequencies, ::testing::IsEmpty());
  config["sliding_window"] = 2047;
  EXPECT_THAT(Read(config)->groups, ElementsAre(LayerGroup{2047}));
}

void ExpectLong(const absl::StatusOr<ModelDescriptor>& model, float scale) {
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->rotaries.size(), 1u);
  const RotaryDescriptor& rotary = model->rotaries[0];
  EXPECT_EQ(rotary.original_context, 16);
  EXPECT_FLOAT_EQ(rotary.scale, scale);
  ASSERT_EQ(rotary.inverse_frequencies.size(), 6u);  // 0.75 of a head of 16
  ASSERT_EQ(rotary.long_inverse_frequencies.size(), 6u);
  EXPECT_FLOAT_EQ(rotary.inverse_frequencies[5], std::pow(10000.0f, -10.0f / 12) / 1.5f);
  EXPECT_FLOAT_EQ(rotary.long_inverse_frequencies[5], std::pow(10000.0f, -10.0f / 12) / 9);
}

TEST(FamilyConfigTest, LongRopeAsTransformers4And5SpellIt) {
  json config = Config("phi4_mini");
  ExpectLong(Read(config), 1.19f);
  const json rope = config["rope_parameters"];
  config.erase("rope_parameters");
  config["rope_theta"] = 10000.0;
  config["partial_rotary_factor"] = 0.75;
  config["rope_scaling"] = {{"type", "longrope"},
                            {"short_factor", rope["short_factor"]},
                            {"long_factor", rope["long_factor"]}};
  const float silent = std::sqrt(1 + std::log(32.0f) / std::log(16.0f));
  ExpectLong(Read(config), silent);
  config["rope_scaling"]["type"] = "su";
  ExpectLong(Read(config), silent);
  const std::vector<double> five(5, 1.0);
  ExpectAll("phi4_mini", StatusCode::kInvalidArgument,
            {SetRope("short_factor", five, "rope_parameters.short_factor is no list of 6 numbers"),
             SetRope("long_factor", nullptr, "rope_parameters.long_factor is no list of 6"),
             SetRope("long_factor", {1, 2, 3, 4, 5, 0}, "rope_parameters.long_factor is no list"),
             SetRope("long_factor", {1, 2, 3, 4, 5, "6"}, "rope_parameters.long_factor is no"),
             SetRope("original_max_position_embeddings", 0, "original_max_position_embeddings is"),
             SetRope("attention_factor", -1, "rope_parameters.attention_factor is -1"),
             SetRope("partial_rotary_factor", 0.01, "0 elements would turn"),
             SetRope("partial_rotary_factor", 0.4375, "7 elements would turn"),
             SetRope("partial_rotary_factor", 1.5, "partial_rotary_factor is 1.5")});
}

// transformers' _compute_yarn_parameters of the golden's settings; its answers test the rates.
TEST(FamilyConfigTest, Yarn) {
  const auto model = Read(Config("qwen2_yarn"));
  ASSERT_TRUE(model.ok()) << model.status();
  const RotaryDescriptor& rotary = model->rotaries[0];
  EXPECT_FLOAT_EQ(rotary.scale, 0.1f * std::log(4.0f) + 1);
  EXPECT_FLOAT_EQ(rotary.inverse_frequencies[0], 1);
  EXPECT_FLOAT_EQ(rotary.inverse_frequencies[7], std::pow(10000.0f, -7.0f / 8) / 4);
  json config = Config("qwen2_yarn");
  config["rope_parameters"]["mscale"] = 2;
  config["rope_parameters"]["mscale_all_dim"] = 1;
  EXPECT_FLOAT_EQ(Read(config)->rotaries[0].scale,
                  (0.2f * std::log(4.0f) + 1) / (0.1f * std::log(4.0f) + 1));
  config["rope_parameters"]["attention_factor"] = 1;
  EXPECT_EQ(Read(config)->rotaries[0].scale, 1);
  ExpectAll("qwen2_yarn", StatusCode::kInvalidArgument,
            {SetRope("factor", 0, "rope_parameters.factor is 0"),
             SetRope("beta_fast", 0.5, "beta_fast is 0.5; it must be greater than beta_slow 1"),
             SetRope("attention_factor", 0, "rope_parameters.attention_factor is 0"),
             SetRope("truncate", 3, "rope_parameters.truncate is 3")});
}

// Of sequences that may not be longer than the model's own longest it changes nothing.
TEST(FamilyConfigTest, DynamicRopeIsPlain) {
  json config = Config("llama_tied");
  const auto plain = Read(config);
  config["rope_parameters"]["rope_type"] = "dynamic";
  config["rope_parameters"]["factor"] = 4.0;
  const auto dynamic = Read(config);
  ASSERT_TRUE(dynamic.ok()) << dynamic.status();
  EXPECT_EQ(dynamic->rotaries, plain->rotaries);
}

// The stream is kept divided by the residual multiplier.
TEST(FamilyConfigTest, GraniteMultipliers) {
  const auto model = Read(Config("granite"));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_FLOAT_EQ(model->embedding_scale, 6.0f / 0.4f);
  EXPECT_FLOAT_EQ(model->norm_epsilon, 1e-6f / 0.16f);
  EXPECT_FLOAT_EQ(model->attention_scale, 0.2f);
  EXPECT_FLOAT_EQ(model->logit_scale, 1 / 1.6f);
  json config = Config("granite");
  for (const char* key :
       {"embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"}) {
    config.erase(key);
  }
  const auto silent = Read(config);
  ASSERT_TRUE(silent.ok()) << silent.status();
  EXPECT_EQ(silent->embedding_scale, 1);
  EXPECT_EQ(silent->norm_epsilon, 1e-6f);
  EXPECT_EQ(silent->attention_scale, 1);
  EXPECT_EQ(silent->logit_scale, 1);
  ExpectAll("granite", StatusCode::kInvalidArgument,
            {Set("residual_multiplier", 0, "residual_multiplier is 0"),
             Set("logits_scaling", -8, "logits_scaling is -8"),
             Set("embedding_multiplier", "a", "embedding_multiplier is 'a'")});
}

TEST(FamilyConfigTest, Olmo2HasPostNormsAlone) {
  const auto model = Read(Config("olmo2"));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_FALSE(model->pre_norms);
  EXPECT_TRUE(model->post_norms);
  EXPECT_TRUE(model->whole_norms);
  EXPECT_FALSE(model->head_norms);
  ExpectAll("olmo2", StatusCode::kUnimplemented,
            {Set("attention_bias", true, "attention_bias is true; supported is false")});
}

TEST(FamilyConfigTest, SomeLayersOfSmolLm3DoNotTurn) {
  json config = Config("smollm3");
  const auto model = Read(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(RotariesOf(*model), ElementsAre(0, 0, 0, 1));
  EXPECT_EQ(model->rotaries[1].inverse_frequencies, std::vector<float>(8, 0.0f));
  config["no_rope_layers"] = {1, 1, 1, 1};
  EXPECT_THAT(RotariesOf(*Read(config)), ElementsAre(0, 0, 0, 0));
  config.erase("no_rope_layers");
  config["no_rope_layer_interval"] = 2;
  EXPECT_THAT(RotariesOf(*Read(config)), ElementsAre(0, 1, 0, 1));
  config.erase("no_rope_layer_interval");
  EXPECT_THAT(RotariesOf(*Read(config)), ElementsAre(0, 0, 0, 1));
  ExpectAll("smollm3", StatusCode::kInvalidArgument,
            {Set("no_rope_layers", {1, 0}, "no_rope_layers is no list of 4 0 and 1"),
             Set("no_rope_layers", {1, 0, 2, 1}, "no_rope_layers is no list of 4 0 and 1"),
             Set("no_rope_layers", "all", "no_rope_layers is no list of 4 0 and 1")});
}

TEST(FamilyConfigTest, Experts) {
  const auto mixtral = Read(Config("mixtral"));
  ASSERT_TRUE(mixtral.ok()) << mixtral.status();
  EXPECT_EQ(mixtral->experts, 4);
  EXPECT_EQ(mixtral->experts_a_row, 2);
  EXPECT_EQ(mixtral->intermediate_size, 160);
  EXPECT_TRUE(mixtral->renormalise);
  json config = Config("qwen3_moe");
  const auto qwen3 = Read(config);
  ASSERT_TRUE(qwen3.ok()) << qwen3.status();
  EXPECT_EQ(qwen3->experts, 8);
  EXPECT_EQ(qwen3->experts_a_row, 3);
  EXPECT_EQ(qwen3->intermediate_size, 48);
  EXPECT_TRUE(qwen3->renormalise);
  config.erase("norm_topk_prob");
  config["num_experts"] = 8;  // as transformers 4 spells it
  config.erase("num_local_experts");
  const auto silent = Read(config);
  ASSERT_TRUE(silent.ok()) << silent.status();
  EXPECT_EQ(silent->experts, 8);
  EXPECT_FALSE(silent->renormalise);
  ExpectAll("qwen3_moe", StatusCode::kInvalidArgument,
            {Set("num_experts_per_tok", 9, "num_experts_per_tok is 9; allowed are integers from 1"),
             Set("num_experts", 4, "num_experts is 4, but num_local_experts is 8"),
             Set("num_local_experts", 0, "num_local_experts is 0"),
             Set("moe_intermediate_size", nullptr, "moe_intermediate_size is missing")});
  ExpectAll(
      "qwen3_moe", StatusCode::kUnimplemented,
      {Set("decoder_sparse_step", 2, "decoder_sparse_step is 2; supported is 1"),
       Set("mlp_only_layers", {0}, "mlp_only_layers is a list or an object; supported is an")});
}

// Each setting becomes what nobody expects there: a model comes of it, or one line.
TEST(FamilyConfigTest, SettingsOfAnyKind) {
  for (const std::string golden :
       {"mistral_window", "qwen2_yarn", "gemma", "gemma2", "phi3", "phi4_mini", "olmo2", "granite",
        "smollm3", "mixtral", "qwen3_moe"}) {
    int opened = 0, refused = 0;
    ForEachMutation(Config(golden), 3, 50, [&](const json& mutated, const std::string& what) {
      const absl::StatusOr<ModelDescriptor> model = Read(mutated);
      ++(model.ok() ? opened : refused);
      if (model.ok()) return;
      const std::string message(model.status().message());
      const StatusCode code = model.status().code();
      EXPECT_TRUE(code == StatusCode::kInvalidArgument || code == StatusCode::kUnimplemented)
          << golden << " " << what << ": " << message;
      EXPECT_EQ(message.compare(0, 13, "config.json: "), 0) << golden << " " << what << message;
      EXPECT_TRUE(std::none_of(message.begin(), message.end(),
                               [](char c) { return static_cast<unsigned char>(c) < ' '; }))
          << golden << " " << what << ": " << message;
    });
    EXPECT_GT(opened, 20) << golden;
    EXPECT_GT(refused, 100) << golden;
  }
}

}  // namespace
}  // namespace sirocco
