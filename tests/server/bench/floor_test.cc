// What a step must read, of models whose figures everybody can check.
#include "server/bench/floor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine/model/model_files.h"
#include "engine/model/weight_places.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

struct Known {
  const char* model;
  double weight_gigabytes;  // bfloat16
  double kv_megabytes;      // of one sequence of 1,024 tokens
};

ModelWeights Shapes(const ModelDescriptor& model, DType dtype) {
  ModelWeights weights;
  LayOutWeights(model, dtype, weights);
  return weights;
}

class FloorTest : public ::testing::TestWithParam<Known> {};

TEST_P(FloorTest, WeightsOnceAndKeysAndValuesOnce) {
  const absl::StatusOr<ModelDescriptor> model =
      OpenDescriptor(TestPath(std::string("bench/models/") + GetParam().model));
  ASSERT_TRUE(model.ok()) << model.status();
  const auto weights = static_cast<double>(FloorWeightBytes(Shapes(*model, DType::kBFloat16)));
  EXPECT_NEAR(weights * 1e-9, GetParam().weight_gigabytes, 0.01 * GetParam().weight_gigabytes);
  const auto kv = static_cast<double>(FloorKvBytes(*model, 1024, DType::kBFloat16));
  EXPECT_NEAR(kv * 1e-6, GetParam().kv_megabytes, 0.02 * GetParam().kv_megabytes);
  EXPECT_EQ(FloorWeightBytes(Shapes(*model, DType::kFloat32)), 2 * weights);
}

INSTANTIATE_TEST_SUITE_P(Models, FloorTest,
                         ::testing::Values(Known{"gemma3-1b", 2.00, 15.7},
                                           Known{"llama3.2-1b", 2.47, 33.6},
                                           Known{"llama3.1-8b", 15.0, 134.2},
                                           Known{"qwen3-4b", 8.04, 151.0},
                                           Known{"qwen3-30b-a3b", 60.4, 100.7}),
                         [](const auto& info) {
                           std::string name = info.param.model;
                           for (char& c : name) c = isalnum(c) ? c : '_';
                           return name;
                         });

// Frequency 1 of a table of `dim` says its base.
double BaseOf(const RotaryDescriptor& rotary, int dim) {
  return std::pow(rotary.inverse_frequencies[1], -dim / 2.0);
}

// The shapes are those of the published config.json: where they are computed differently, too.
TEST(PublishedTest, Gemma3) {
  const auto model = OpenDescriptor(TestPath("bench/models/gemma3-1b"));
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->layers.size(), 26u);
  std::vector<int> full;
  for (int i = 0; i < 26; ++i) {
    const LayerDescriptor& layer = model->layers[i];
    const int window = model->groups[layer.group].window;
    if (window == 0) full.push_back(i);
    EXPECT_TRUE(window == 0 || window == 512) << i;
    EXPECT_NEAR(BaseOf(model->rotaries[layer.rotary], 256), window == 0 ? 1e6 : 1e4,
                window == 0 ? 100 : 1);
  }
  EXPECT_EQ(full, (std::vector<int>{5, 11, 17, 23}));
  EXPECT_EQ(model->vocab_size, 262144);
  EXPECT_EQ(model->head_dim, 256);
  EXPECT_FLOAT_EQ(model->attention_scale, 1.0f / 16);  // of query_pre_attn_scalar 256
  EXPECT_NEAR(model->embedding_scale, std::sqrt(1152.0), 0.1);
  EXPECT_EQ(model->max_position, 32768);
  EXPECT_TRUE(model->tied_head && model->head_norms && model->post_norms);
}

TEST(PublishedTest, Qwen3) {
  const auto model = OpenDescriptor(TestPath("bench/models/qwen3-4b"));
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->layers.size(), 36u);
  ASSERT_EQ(model->groups.size(), 1u);
  EXPECT_EQ(model->groups[0].window, 0);
  EXPECT_NEAR(BaseOf(model->rotaries[0], 128), 1e6, 100);
  EXPECT_EQ(model->vocab_size, 151936);
  EXPECT_EQ(model->head_dim, 128);  // more than hidden_size / heads
  EXPECT_FLOAT_EQ(model->attention_scale, 1 / std::sqrt(128.0f));
  EXPECT_EQ(model->max_position, 40960);
  EXPECT_TRUE(model->tied_head && model->head_norms);
  EXPECT_FALSE(model->post_norms || model->qkv_bias);
}

TEST(PublishedTest, Qwen3Moe) {
  const auto model = OpenDescriptor(TestPath("bench/models/qwen3-30b-a3b"));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->experts, 128);
  EXPECT_EQ(model->experts_a_row, 8);
  EXPECT_EQ(model->intermediate_size, 768);
  EXPECT_TRUE(model->renormalise);
  EXPECT_FALSE(model->tied_head);
}

TEST(StreamTest, AKnownDeviceIsNotFlatteredByABadMeasurement) {
  EXPECT_EQ(StreamBandwidth("NVIDIA H200", 4.1e12), 4.6e12);
  EXPECT_EQ(StreamBandwidth("NVIDIA H200", 4.7e12), 4.7e12);
  EXPECT_EQ(StreamBandwidth("NVIDIA H100 80GB HBM3", 3.0e12), 3.0e12);
}

}  // namespace
}  // namespace sirocco
