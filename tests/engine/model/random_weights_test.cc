// Weights that mean nothing: complete, finite, small, and the same for the same seed.
#include "engine/model/random_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "engine/model/model_files.h"
#include "tests/engine/model/host_device.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

ModelDescriptor Tied() { return OpenDescriptor(GoldenPath("llama_tied")).value(); }

std::vector<float> ValuesOf(const Matrix& matrix) {
  std::vector<float> values;
  for (int64_t i = 0; i < int64_t{matrix.rows} * matrix.cols; ++i) {
    values.push_back(static_cast<const BFloat16*>(matrix.data)[i].ToFloat());
  }
  return values;
}

TEST(RandomWeightsTest, EveryWeightIsThereFiniteAndSmall) {
  HostDevice device;
  const ModelDescriptor d = Tied();
  const auto weights = RandomWeights(d, DType::kBFloat16, 7, device, nullptr);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->embedding.data, weights->head.data);
  ASSERT_EQ(weights->layers.size(), d.layers.size());
  std::vector<Matrix> matrices = {weights->embedding};
  for (const LayerWeights& layer : weights->layers) {
    for (const Matrix& m : {layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down}) {
      matrices.push_back(m);
    }
    for (int32_t i = 0; i < d.hidden_size; ++i) {
      ASSERT_EQ(layer.attention_norm[i], 1.0f);
      ASSERT_EQ(layer.mlp_norm[i], 1.0f);
    }
  }
  for (const Matrix& matrix : matrices) {
    ASSERT_NE(matrix.data, nullptr);
    double sum = 0, squares = 0;
    const std::vector<float> values = ValuesOf(matrix);
    for (const float value : values) {
      ASSERT_LT(std::fabs(value), 0.5f);
      sum += value;
      squares += double{value} * value;
    }
    const double n = static_cast<double>(values.size());
    EXPECT_NEAR(sum / n, 0, 0.01);
    // A variance of 1 / width keeps a product about as large as what goes in.
    EXPECT_NEAR(squares / n * std::max(d.hidden_size, d.intermediate_size), 1, 0.1);
  }
}

TEST(RandomWeightsTest, TheSeedDecides) {
  HostDevice device;
  const auto make = [&](uint64_t seed) {
    return ValuesOf(RandomWeights(Tied(), DType::kBFloat16, seed, device, nullptr)->layers[1].down);
  };
  EXPECT_EQ(make(1), make(1));
  EXPECT_NE(make(1), make(2));
}

TEST(RandomWeightsTest, TakesWhatWeightBytesSays) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    HostDevice random, loaded;
    uint64_t last = 0, all = 0;
    ASSERT_TRUE(RandomWeights(Tied(), dtype, 1, random, [&](uint64_t done, uint64_t total) {
                  EXPECT_GT(done, last);
                  last = done;
                  all = total;
                }).ok());
    EXPECT_EQ(last, all);
    const ModelFiles files = OpenModel(GoldenPath("llama_tied")).value();
    ASSERT_TRUE(LoadWeights(files, dtype, loaded, nullptr).ok());
    const auto taken = [](const Device& device) {
      return device.counters().bytes[static_cast<int>(MemoryUse::kWeights)].load();
    };
    EXPECT_EQ(taken(random), WeightBytes(Tied(), dtype));
    EXPECT_EQ(taken(loaded), WeightBytes(files.descriptor, dtype));
  }
}

TEST(RandomWeightsTest, WhatThereIsNoMemoryForIsRefused) {
  HostDevice device;
  device.limit = 1000;
  EXPECT_EQ(RandomWeights(Tied(), DType::kFloat32, 1, device, nullptr).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace sirocco
