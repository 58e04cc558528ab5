#include "engine/step_rates.h"

#include <gtest/gtest.h>

#include <random>

namespace sirocco {
namespace {

constexpr double kDecode = 0.010;

// A device: a prefill takes a start and a time a token.
struct Device {
  double start = 0;
  double a_token = 0;
  double Prefill(int32_t tokens) const { return start + a_token * tokens; }
};

TEST(StepRates, NothingIsKnownAtFirst) {
  StepRates rates;
  EXPECT_EQ(rates.TokensBeside(3, 512), StepRates::kLeast);
  EXPECT_EQ(rates.TokensBeside(3, 10), 10);
  rates.Add(512, 0.05, 0, 0);
  EXPECT_EQ(rates.TokensBeside(3, 512), StepRates::kLeast);  // no decode step has ended
}

// The step settles just below the bound, wherever prefills began.
TEST(StepRates, ChunksSettleAtTheBound) {
  for (const Device device : {Device{0, 0.0001}, Device{0.005, 0.0001}, Device{0.002, 0.0005}}) {
    for (const int32_t first : {1, 20, 512}) {
      StepRates rates;
      rates.Add(first, device.Prefill(first), 4, kDecode);
      int32_t tokens = 0;
      for (int step = 0; step < 30; ++step) {
        tokens = rates.TokensBeside(3, 512);
        rates.Add(tokens, device.Prefill(tokens), 4, kDecode);
      }
      const double expected = (2 * kDecode - device.start) / device.a_token;
      EXPECT_LE(tokens, expected * 1.001) << device.start << " " << first;
      EXPECT_GE(tokens, expected * 0.95) << device.start << " " << first;
    }
  }
}

TEST(StepRates, NeverFewerThanTheLeastNorMoreThanTheMost) {
  StepRates slow, fast;
  for (int step = 0; step < 20; ++step) {
    const int32_t slow_tokens = slow.TokensBeside(3, 512);
    slow.Add(slow_tokens, 0.5, 1, kDecode);
    EXPECT_EQ(slow.TokensBeside(3, 512), StepRates::kLeast);
    const int32_t fast_tokens = fast.TokensBeside(3, 512);
    fast.Add(fast_tokens, 1e-9, 1, kDecode);
  }
  EXPECT_EQ(fast.TokensBeside(3, 512), 512);
  EXPECT_EQ(fast.TokensBeside(1, 512), StepRates::kLeast);
}

// It grows by doubling, not by what a line through two small prefills promises.
TEST(StepRates, AGuessReachesTwiceAsFarAsWhatWasSeen) {
  StepRates rates;
  rates.Add(16, 1e-6, 1, kDecode);
  EXPECT_EQ(rates.TokensBeside(3, 512), 32);
  rates.Add(32, 1e-6, 1, kDecode);
  EXPECT_EQ(rates.TokensBeside(3, 512), 64);
}

// Prompts that are mostly cached take a whole start for a token or two: no reason to think that
// every token takes as long.
TEST(StepRates, TinyPrefillsDoNotSpoilTheRate) {
  const Device device = {0.004, 0.0001};
  StepRates rates;
  for (int step = 0; step < 40; ++step) {
    const int32_t tokens = step % 2 == 0 ? 1 : rates.TokensBeside(3, 512);
    rates.Add(tokens, device.Prefill(tokens), 4, kDecode);
  }
  EXPECT_GE(rates.TokensBeside(3, 512), 150);
  EXPECT_LE(rates.TokensBeside(3, 512), 161);
}

TEST(StepRates, ItFollowsADeviceWhoseTimesChangeAndScatter) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> scatter(0.8, 1.25);
  StepRates rates;
  int32_t tokens = 0;
  for (const double a_token : {0.0001, 0.0004, 0.00005}) {
    const Device device = {0.001, a_token};
    for (int step = 0; step < 60; ++step) {
      tokens = rates.TokensBeside(3, 512);
      rates.Add(tokens, device.Prefill(tokens) * scatter(random), 4, kDecode * scatter(random));
    }
    const double step_seconds = device.Prefill(tokens) + kDecode;
    EXPECT_LE(step_seconds, 3 * kDecode * 1.4) << a_token;
    EXPECT_GE(step_seconds, 3 * kDecode * 0.6) << a_token;
  }
}

TEST(StepRates, FullStepsTellHowFastPromptsAre) {
  StepRates rates;
  EXPECT_FALSE(rates.SecondsAPromptToken(false));
  EXPECT_FALSE(rates.SecondsAPromptToken(true));
  for (int i = 0; i < 3; ++i) rates.AddFull(/*beside=*/false, 512, 0.0512);
  EXPECT_NEAR(*rates.SecondsAPromptToken(false), 0.0001, 1e-9);
  EXPECT_NEAR(*rates.SecondsAPromptToken(true), 0.0001, 1e-9);
  rates.AddFull(/*beside=*/true, 100, 0.03);
  EXPECT_NEAR(*rates.SecondsAPromptToken(false), 0.0001, 1e-9);
  EXPECT_NEAR(*rates.SecondsAPromptToken(true), 0.0003, 1e-9);
  for (int i = 0; i < 40; ++i) rates.AddFull(/*beside=*/false, 512, 0.1024);
  EXPECT_NEAR(*rates.SecondsAPromptToken(false), 0.0002, 1e-5);
  for (int i = 0; i < 30; ++i) rates.Doubt();
  EXPECT_LT(*rates.SecondsAPromptToken(false), 0.00001);
  rates.AddFull(/*beside=*/false, 512, 0.0512);
  EXPECT_GT(*rates.SecondsAPromptToken(false), 0.00001);
}

}  // namespace
}  // namespace sirocco
