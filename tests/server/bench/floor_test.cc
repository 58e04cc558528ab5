// What a step must read, of models whose figures everybody can check.
#include "server/bench/floor.h"

#include <gtest/gtest.h>

#include <string>

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
                                           Known{"qwen3-4b", 8.04, 151.0}),
                         [](const auto& info) {
                           std::string name = info.param.model;
                           for (char& c : name) c = isalnum(c) ? c : '_';
                           return name;
                         });

TEST(StreamTest, AKnownDeviceIsNotFlatteredByABadMeasurement) {
  EXPECT_EQ(StreamBandwidth("NVIDIA H200", 4.1e12), 4.6e12);
  EXPECT_EQ(StreamBandwidth("NVIDIA H200", 4.7e12), 4.7e12);
  EXPECT_EQ(StreamBandwidth("NVIDIA H100 80GB HBM3", 3.0e12), 3.0e12);
}

}  // namespace
}  // namespace sirocco
