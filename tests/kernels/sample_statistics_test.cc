// Draws follow the softmax of the scaled logits: Pearson's chi-square over many seeds, with fixed
// seeds, so that the test has one outcome.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/ops_test.h"
#include "tests/kernels/world.h"

namespace sirocco {
namespace {

constexpr int32_t kRows = 400;
constexpr int kSteps = 30;

class SampleStatisticsTest : public OpsTest {
 protected:
  // How often each id comes up in kRows * kSteps draws: all rows have the same logits, each lane
  // its seed, each step its position.
  std::vector<int> Draw(const std::vector<float>& logits, const Lane& like) {
    const int32_t vocab = static_cast<int32_t>(logits.size());
    World world(memory(), {.lanes = kRows, .max_length = kSteps + 1, .vocab_size = vocab}, 1);
    std::vector<Lane> lanes(kRows, like);
    std::vector<int32_t> row_lane;
    std::vector<float> all;
    for (int32_t r = 0; r < kRows; ++r) {
      lanes[r].seed = 1000 + static_cast<uint64_t>(r);
      lanes[r].length = 1;
      row_lane.push_back(r);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    SampleParams p;
    p.rows = kRows;
    p.row_lane = memory().Upload(row_lane);
    p.lanes = world.lanes();
    p.lanes.lane = memory().Upload(lanes);
    p.logits = memory().Activations(all, DType::kFloat32, vocab);
    p.out = memory().Upload(std::vector<TokenScore>(kRows));
    std::vector<int> seen(vocab, 0);
    for (int step = 0; step < kSteps; ++step) {
      EXPECT_TRUE(device().CopyToDevice(p.logits.data, all.data(), all.size() * 4).ok());
      Execute(p);
      for (const TokenScore& score : memory().Download(p.out, kRows)) ++seen[score.token_id];
    }
    return seen;
  }

  // Against probabilities that sum to 1; ids of probability 0 must not come up. The bound is four
  // standard deviations of the statistic above its mean.
  void ExpectDistribution(const std::vector<int>& seen, const std::vector<double>& probability) {
    const double draws = double{kRows} * kSteps;
    double statistic = 0;
    int kinds = -1;
    for (size_t i = 0; i < seen.size(); ++i) {
      const double expected = probability[i] * draws;
      if (expected == 0) {
        EXPECT_EQ(seen[i], 0) << i;
        continue;
      }
      statistic += (seen[i] - expected) * (seen[i] - expected) / expected;
      ++kinds;
    }
    EXPECT_LT(statistic, kinds + 4 * std::sqrt(2.0 * kinds));
  }
};

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> probability;
  double total = 0;
  for (const float logit : logits) {
    probability.push_back(std::exp(logit / temperature));
    total += probability.back();
  }
  for (double& p : probability) p /= total;
  return probability;
}

Lane At(float temperature) {
  Lane lane = Lane();
  lane.temperature = temperature;
  lane.top_p = 1;
  lane.repetition_penalty = 1;
  return lane;
}

TEST_P(SampleStatisticsTest, Softmax) {
  const std::vector<float> logits = Values(41).Floats(50, 2);
  for (const float temperature : {0.7f, 1.0f, 3.0f}) {
    SCOPED_TRACE(temperature);
    ExpectDistribution(Draw(logits, At(temperature)), Softmax(logits, temperature));
  }
}

TEST_P(SampleStatisticsTest, Uniform) {
  const std::vector<float> logits(128, 0.0f);
  ExpectDistribution(Draw(logits, At(1)), std::vector<double>(128, 1.0 / 128));
}

TEST_P(SampleStatisticsTest, WhatFiltersLeaveIsRenormalised) {
  const std::vector<float> logits = Values(42).Floats(50, 2);
  Lane lane = At(1);
  lane.top_k = 10;
  std::vector<double> probability = Softmax(logits, 1);
  std::vector<double> sorted = probability;
  std::sort(sorted.rbegin(), sorted.rend());
  double kept = 0;
  for (double& p : probability) {
    if (p < sorted[9]) p = 0;
    kept += p;
  }
  for (double& p : probability) p /= kept;
  ExpectDistribution(Draw(logits, lane), probability);
}

SIROCCO_ON_ALL_DEVICES(SampleStatisticsTest);

}  // namespace
}  // namespace sirocco
