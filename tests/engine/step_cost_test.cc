#include "engine/step_cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

namespace sirocco {
namespace {

constexpr double kDecode = 0.010;
constexpr double kFactor = 3;
constexpr int32_t kMost = 512;

// A device and its clock: what steps take there, exactly or with noise.
struct Device {
  double start = 0;
  double a_token = 0;
  double a_pair = 0;
  std::function<double()> noise = [] { return 1.0; };

  double Prefill(const PrefillWork& work) const {
    return start + a_token * work.tokens + a_pair * work.pairs;
  }
  // The largest chunk from `position` on that takes no more than this.
  int32_t Fits(double seconds, int32_t position) const {
    for (int32_t count = kMost; count > 0; --count) {
      if (Prefill(WorkOf(position, count)) <= seconds) return count;
    }
    return 0;
  }
  static PrefillWork WorkOf(int32_t position, int32_t count) {
    PrefillWork work;
    work.Add(position, count);
    return work;
  }
};

// A batch that decodes while prompts come back to back.
class StepCostTest : public testing::Test {
 protected:
  // One step with a chunk from `position` on, cut after `left` tokens; its tokens.
  int32_t Step(int32_t position, int32_t left = kMost) {
    PrefillBudget budget = cost_.Beside(kFactor, kMost);
    const int32_t tokens = std::min(left, budget.TokensFrom(position));
    const PrefillWork work = Device::WorkOf(position, tokens);
    const double prefill = device_.Prefill(work) * device_.noise();
    const double decode = kDecode * device_.noise();
    cost_.Add(work, prefill, 4, decode);
    seconds_.push_back(prefill + decode);
    return tokens;
  }
  void Prompt(int32_t length) {
    for (int32_t position = 0; position < length;) position += Step(position, length - position);
  }
  void DecodeAlone(int steps) {
    for (int i = 0; i < steps; ++i) cost_.Add({}, 0, 4, kDecode * device_.noise());
  }
  double Percentile(double part) {
    std::sort(seconds_.begin(), seconds_.end());
    return seconds_[static_cast<size_t>(part * (seconds_.size() - 1))];
  }

  Device device_;
  StepCost cost_;
  std::vector<double> seconds_;  // that steps with a chunk took
};

TEST_F(StepCostTest, NothingIsKnownAtFirst) {
  EXPECT_EQ(cost_.Beside(3, 512).TokensFrom(0), StepCost::kLeast);
  EXPECT_EQ(cost_.Beside(3, 10).TokensFrom(0), 10);
  cost_.Add(Device::WorkOf(0, 512), 0.05, 0, 0);
  EXPECT_EQ(cost_.Beside(3, 512).TokensFrom(0), StepCost::kLeast);  // no decode step has ended
}

// The step settles just below the bound, wherever prefills began.
TEST_F(StepCostTest, ChunksSettleAtTheBound) {
  for (const Device& device : {Device{0, 0.0001}, Device{0.005, 0.0001}, Device{0.002, 0.0005}}) {
    for (const int32_t first : {1, 20, 512}) {
      device_ = device;
      cost_ = StepCost();
      const PrefillWork work = Device::WorkOf(0, first);
      cost_.Add(work, device_.Prefill(work), 4, kDecode);
      int32_t tokens = 0;
      for (int step = 0; step < 60; ++step) tokens = Step(0);
      const int32_t expected = device_.Fits((kFactor - 1) * kDecode, 0);
      EXPECT_LE(tokens, expected + 1) << device_.start << " " << first;
      EXPECT_GE(tokens, expected * 0.94) << device_.start << " " << first;
    }
  }
}

TEST_F(StepCostTest, NeverFewerThanTheLeastNorMoreThanTheMost) {
  device_.a_token = 1;
  for (int step = 0; step < 20; ++step) {
    const int32_t tokens = Step(0);
    EXPECT_GE(tokens, StepCost::kLeast);
    EXPECT_LE(tokens, 20);
  }
  device_ = {.a_token = 1e-9};
  cost_ = StepCost();
  for (int step = 0; step < 20; ++step) Step(0);
  EXPECT_EQ(cost_.Beside(kFactor, kMost).TokensFrom(0), kMost);
}

// Where a prefill's start alone is beyond the bound, a step takes a tenth longer than with the
// least tokens: once it has learned what is the start's.
TEST_F(StepCostTest, AStartBeyondTheBoundLeavesATenth) {
  device_ = {.start = 0.5, .a_token = 0.001};
  for (int step = 0; step < 100; ++step) Step(0);
  seconds_.clear();
  int64_t tokens = 0;
  for (int step = 0; step < 100; ++step) tokens += Step(0);
  const double least = kDecode + device_.Prefill(Device::WorkOf(0, StepCost::kLeast));
  EXPECT_LE(Percentile(1), 1.11 * least);
  EXPECT_GT(tokens, 100 * 1.5 * StepCost::kLeast);
}

// It grows fourfold, not by what a fit of two small prefills promises.
TEST_F(StepCostTest, AGuessReachesFourTimesAsFarAsWhatWasSeen) {
  device_.a_token = 1e-7;
  EXPECT_EQ(Step(0), 16);
  EXPECT_EQ(Step(0), 64);
  EXPECT_EQ(Step(0), 256);
}

// Deep in a prompt a token costs three times what it costs at the beginning. Chunks shrink on the
// way, and are as large again as they may be where the next prompt begins.
TEST_F(StepCostTest, ChunksFollowThePosition) {
  device_ = {.start = 0.002, .a_token = 0.0001, .a_pair = 1e-7};
  for (int prompt = 0; prompt < 8; ++prompt) Prompt(2000);
  const double room = (kFactor - 1) * kDecode;
  seconds_.clear();
  for (const int32_t position : {0, 1500, 100, 1900, 1000}) {
    const int32_t fits = device_.Fits(room, position);
    const int32_t tokens = Step(position);
    EXPECT_LE(tokens, fits * 1.05) << position;
    EXPECT_GE(tokens, fits * 0.85) << position;
  }
  EXPECT_LE(Percentile(1), kFactor * kDecode * 1.05);
}

// What a step may take is shared by all its prompts.
TEST_F(StepCostTest, SeveralPromptsShareAStep) {
  device_ = {.start = 0.002, .a_token = 0.0001, .a_pair = 1e-7};
  for (int prompt = 0; prompt < 8; ++prompt) Prompt(2000);
  PrefillBudget budget = cost_.Beside(kFactor, kMost);
  PrefillWork work;
  for (const auto& [position, left] :
       {std::pair(1900, 20), std::pair(0, 30), std::pair(800, 512)}) {
    const int32_t tokens = std::min(left, budget.TokensFrom(position));
    EXPECT_GT(tokens, 0);
    budget.Take(position, tokens);
    work.Add(position, tokens);
  }
  EXPECT_LE(budget.TokensFrom(0), 1);
  EXPECT_NEAR(device_.Prefill(work), (kFactor - 1) * kDecode, 0.1 * kDecode);
}

TEST_F(StepCostTest, TheLeastIsOfTheStepNotOfEachPrompt) {
  device_.start = 1;
  Step(0);
  PrefillBudget budget = cost_.Beside(kFactor, kMost);
  budget.Take(0, 10);
  EXPECT_EQ(budget.TokensFrom(0), 7);  // a tenth more than the least
  budget.Take(0, 7);
  EXPECT_EQ(budget.TokensFrom(0), 0);
  PrefillBudget alone(512);
  alone.Take(100, 500);
  EXPECT_EQ(alone.TokensFrom(5000), 12);
}

TEST_F(StepCostTest, AStepWithoutABatchIsBoundedToo) {
  device_ = {.start = 0.002, .a_token = 0.001, .a_pair = 1e-7};
  EXPECT_EQ(cost_.Alone(kMost).TokensFrom(0), kMost);  // nothing is known
  for (int prompt = 0; prompt < 8; ++prompt) Prompt(2000);
  for (const int32_t position : {0, 1900}) {
    const int32_t fits = device_.Fits(StepCost::kLongest, position);
    EXPECT_NEAR(cost_.Alone(kMost).TokensFrom(position), fits, 0.1 * fits) << position;
  }
  EXPECT_EQ(cost_.Alone(10).TokensFrom(0), 10);
  device_ = {.start = 0.05, .a_token = 0.002};
  cost_ = StepCost();
  for (int step = 0; step < 60; ++step) Step(0, 12 + step % 20);
  EXPECT_NEAR(cost_.Alone(kMost).TokensFrom(0), 9 * 0.05 / 0.002, 70);
  device_ = {.start = 0, .a_token = 0.01};
  for (int step = 0; step < 400; ++step) Step(0);
  EXPECT_EQ(cost_.Alone(kMost).TokensFrom(0), StepCost::kLeast);
}

TEST_F(StepCostTest, WhoWaitsForTheEndIsHeldUpByAQuarterAtMost) {
  device_ = {.start = 0.004, .a_token = 0.001};
  for (int step = 0; step < 60; ++step) Step(0, 12 + step % 20);
  PrefillBudget budget = cost_.Alone(kMost);
  budget.Take(0, 20);
  budget.HoldUpNoMore();
  EXPECT_NEAR(budget.TokensFrom(0), 6, 1);
  budget.Take(0, 6);
  budget.HoldUpNoMore();
  EXPECT_EQ(budget.TokensFrom(0), 0);
  PrefillBudget unknown(100);
  unknown.Take(0, 20);
  unknown.HoldUpNoMore();
  EXPECT_EQ(unknown.TokensFrom(0), 80);
}

TEST_F(StepCostTest, WhatIsLentIsForWhoBorrowed) {
  device_ = {.start = 0.002, .a_token = 0.0001};
  for (int step = 0; step < 60; ++step) Step(0);
  const double room = (kFactor - 1) * kDecode;
  const auto fits = [&](double seconds) { return device_.Fits(seconds, 0); };
  PrefillBudget budget = cost_.Beside(kFactor, kMost);
  EXPECT_NEAR(budget.allowed(), room, 0.05 * room);
  budget.Lend(room / 2, /*had=*/0);
  EXPECT_NEAR(budget.TokensFrom(0), fits(1.5 * room), 17);
  budget.Take(0, 50);
  EXPECT_NEAR(budget.taken(), 0.007, 0.001);
  budget.Reclaim();
  EXPECT_NEAR(budget.TokensFrom(0), fits(room) - 50, 12);
  budget.Reclaim();
  EXPECT_NEAR(budget.TokensFrom(0), fits(room) - 50, 12);
  // Another step had of it, and has had its least.
  budget = cost_.Beside(kFactor, kMost);
  budget.Lend(room, /*had=*/room);
  EXPECT_NEAR(budget.TokensFrom(0), fits(room), 12);
  budget = cost_.Beside(kFactor, kMost);
  budget.Lend(0, /*had=*/room);
  EXPECT_EQ(budget.TokensFrom(0), 0);
  // Nothing is known.
  budget = StepCost().Beside(kFactor, kMost);
  EXPECT_EQ(budget.allowed(), 0);
  budget.Lend(room, 0);
  EXPECT_EQ(budget.TokensFrom(0), StepCost::kLeast);
}

TEST_F(StepCostTest, FewTokensAreMostlyTheirStart) {
  EXPECT_FALSE(cost_.MostlyStart(Device::WorkOf(0, 1)));  // nothing is known
  device_ = {.start = 0.004, .a_token = 0.0001};
  for (int step = 0; step < 60; ++step) Step(0, 12 + step % 80);
  EXPECT_TRUE(cost_.MostlyStart(Device::WorkOf(0, 30)));
  EXPECT_FALSE(cost_.MostlyStart(Device::WorkOf(0, 50)));
}

// Prompts that are mostly cached take a whole start for a token or two: no reason to think that
// every token takes as long.
TEST_F(StepCostTest, TinyPrefillsDoNotSpoilTheRate) {
  device_ = {.start = 0.004, .a_token = 0.0001};
  for (int step = 0; step < 60; ++step) Step(0, step % 2 == 0 ? 1 : kMost);
  EXPECT_GE(cost_.Beside(kFactor, kMost).TokensFrom(0), 150);
  EXPECT_LE(cost_.Beside(kFactor, kMost).TokensFrom(0), 161);
}

// Beside prompts a batch takes longer than alone. That makes no room for more, however long the
// prompts come one after the other.
TEST_F(StepCostTest, ABatchThatPromptsHoldUpAllowsNoMore) {
  device_.a_token = 0.0001;
  double step_seconds = 0;
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 20; ++i) cost_.Add({}, 0, 4, kDecode);
    for (int i = 0; i < 40; ++i) {
      const int32_t tokens = cost_.Beside(kFactor, kMost).TokensFrom(0);
      const PrefillWork work = Device::WorkOf(0, tokens);
      step_seconds = device_.Prefill(work) + 1.4 * kDecode;
      cost_.Add(work, device_.Prefill(work), 4, 1.4 * kDecode);
    }
  }
  EXPECT_NEAR(cost_.slowdown(), 1.4, 0.05);
  EXPECT_LE(step_seconds, kFactor * kDecode * 1.03);
  EXPECT_GE(step_seconds, kFactor * kDecode * 0.9);
}

// Batches of other sizes tell nothing of what prompts do to one.
TEST_F(StepCostTest, OnlyBatchesOfOneSizeTellOfASlowdown) {
  device_.a_token = 0.0001;
  for (int round = 0; round < 30; ++round) {
    cost_.Add({}, 0, 4, kDecode);
    const PrefillWork work = Device::WorkOf(0, 16);
    cost_.Add(work, device_.Prefill(work), 8, 2 * kDecode);
  }
  EXPECT_EQ(cost_.slowdown(), 1);
}

TEST_F(StepCostTest, ABatchThatHasGrownIsBelieved) {
  device_.a_token = 0.0001;
  Prompt(4000);
  for (int i = 0; i < 100; ++i) cost_.Add({}, 0, 16, 4 * kDecode);
  EXPECT_NEAR(cost_.Beside(kFactor, kMost).TokensFrom(0), 400, 400 * 0.6);
  EXPECT_GE(cost_.Beside(kFactor, kMost).TokensFrom(0), 300);
}

// Where many prompts are soon read, the batch that it will be counts, as far as such were seen.
TEST_F(StepCostTest, ABatchThatOthersJoinAllowsWhatItWillHave) {
  device_.a_token = 0.0001;
  const PrefillWork work = Device::WorkOf(0, 200);
  cost_.Add(work, device_.Prefill(work), 0, 0);
  for (int i = 0; i < 60; ++i) cost_.Add({}, 0, 64, 2 * kDecode);
  for (int i = 0; i < 60; ++i) cost_.Add({}, 0, 4, kDecode);
  const auto tokens = [&](int32_t joined) {
    return cost_.Beside(kFactor, 1024, joined).TokensFrom(0);
  };
  EXPECT_NEAR(tokens(0), 200, 2);
  EXPECT_EQ(tokens(1), tokens(0));
  EXPECT_EQ(tokens(4), tokens(0));
  EXPECT_NEAR(tokens(34), 300, 3);
  EXPECT_NEAR(tokens(64), 400, 4);
  EXPECT_EQ(tokens(500), tokens(64));
}

// What is known of the sizes that a batch had before is believed at once, prompts beside or not.
TEST_F(StepCostTest, ABatchOfASizeThatWasSeenIsKnown) {
  device_.a_token = 0.0001;
  const PrefillWork work = Device::WorkOf(0, 200);
  cost_.Add(work, device_.Prefill(work), 0, 0);
  for (int i = 0; i < 60; ++i) cost_.Add({}, 0, 64, 2 * kDecode);
  for (int i = 0; i < 60; ++i) cost_.Add({}, 0, 4, kDecode);
  cost_.Add(work, device_.Prefill(work), 64, 2 * kDecode);
  EXPECT_NEAR(cost_.Beside(kFactor, 1024).TokensFrom(0), 400, 4);
  EXPECT_NEAR(cost_.caution(), 1, 0.001);  // it was foreseen
  cost_.Add(work, device_.Prefill(work), 4, kDecode);
  EXPECT_NEAR(cost_.Beside(kFactor, 1024).TokensFrom(0), 200, 2);
}

// Rows that the device computes anyway are taken, and no more than there may be.
TEST_F(StepCostTest, AStepIsFilledUpWithTokens) {
  device_.a_token = 0.0001;
  Prompt(2000);
  DecodeAlone(20);
  const std::vector<int32_t> sizes = {32, 64, 128, 256, 384};
  PrefillBudget budget = cost_.Beside(kFactor, kMost);
  EXPECT_NEAR(budget.TokensFrom(0), 200, 4);
  budget.Take(0, 100);
  budget.FillUp(sizes, 0);
  EXPECT_EQ(budget.TokensFrom(0), 156);
  budget.Take(0, 150);
  EXPECT_EQ(budget.TokensFrom(1000), 6);
  budget.Take(0, 6);
  EXPECT_EQ(budget.TokensFrom(0), 0);

  PrefillBudget full = cost_.Beside(kFactor, 220);
  full.FillUp(sizes, 0);
  EXPECT_EQ(full.TokensFrom(0), 220);
  PrefillBudget beyond = cost_.Beside(kFactor, kMost);
  beyond.FillUp({}, 0);
  EXPECT_NEAR(beyond.TokensFrom(0), 200, 4);
}

// One step in 100 may be slower than the bound with its tail says, half of them are not slower than
// the bound itself: whatever the noise, and whatever its tail.
TEST_F(StepCostTest, NoiseIsAllowedFor) {
  std::mt19937 random(1);
  std::lognormal_distribution<double> even(0, 0.1), wide(0, 0.2);
  std::uniform_real_distribution<double> dice(0, 1);
  const std::function<double()> noises[] = {
      [&] { return even(random); }, [&] { return wide(random); },
      [&] { return dice(random) < 0.03 ? 1.5 : 1.0; },   // seldom, and then much
      [&] { return dice(random) < 0.004 ? 4.0 : 1.0; },  // within the hundredth
  };
  for (const auto& noise : noises) {
    device_ = {.start = 0.001, .a_token = 0.0002, .a_pair = 1e-7, .noise = noise};
    cost_ = StepCost();
    DecodeAlone(50);
    for (int prompt = 0; prompt < 40; ++prompt) {
      Prompt(2000);
      DecodeAlone(1);
    }
    seconds_.clear();
    for (int prompt = 0; prompt < 100; ++prompt) {
      Prompt(2000);
      DecodeAlone(1);
    }
    const size_t which = &noise - noises;
    EXPECT_LE(Percentile(0.985), kFactor * kDecode * StepCost::kTail * 1.03) << which;
    EXPECT_LE(Percentile(0.5), kFactor * kDecode * 1.03) << which;
    EXPECT_GE(Percentile(0.5), kFactor * kDecode * 0.6) << which;
  }
}

// Seldom and short delays are no reason to take fewer tokens.
TEST_F(StepCostTest, WhatIsWithinTheTailCostsNothing) {
  int step = 0;
  device_ = {.start = 0.001, .a_token = 0.0002};
  device_.noise = [&] { return ++step % 2 == 0 ? 1.04 : 0.96; };
  DecodeAlone(50);
  for (int prompt = 0; prompt < 10; ++prompt) Prompt(4000);
  seconds_.clear();
  Prompt(4000);
  EXPECT_GE(Percentile(0.5), kFactor * kDecode * 0.95);
}

TEST_F(StepCostTest, CautionGoesWithTheNoise) {
  device_ = {.start = 0.001, .a_token = 0.0002};
  DecodeAlone(5);
  Prompt(4000);
  int parts = 0;
  device_.noise = [&] { return ++parts / 2 % 3 == 0 ? 1.5 : 1.0; };  // of every third step
  Prompt(8000);
  EXPECT_GT(cost_.caution(), 1.1);
  device_.noise = [] { return 1.0; };
  for (int prompt = 0; prompt < 15; ++prompt) Prompt(8000);
  EXPECT_LT(cost_.caution(), 1.01);
}

// Of the first steps some are slower than a fit that knows little expects: it soon counts no more.
TEST_F(StepCostTest, WhatTheFirstStepsRaiseIsForgotten) {
  device_.a_token = 0.0001;
  cost_.Add(Device::WorkOf(0, 16), 0.0001, 0, 0);  // an estimate far too low
  DecodeAlone(5);
  for (int step = 0; step < 7; ++step) Step(0);
  EXPECT_GT(cost_.caution(), 1.2);
  for (int step = 0; step < 80; ++step) Step(0);
  EXPECT_LT(cost_.caution(), StepCost::kTail);
}

TEST_F(StepCostTest, ItFollowsADeviceWhoseTimesChange) {
  for (const double a_token : {0.0001, 0.0004, 0.00005}) {
    device_ = {.start = 0.001, .a_token = a_token};
    for (int step = 0; step < 400; ++step) Step(0);
    EXPECT_LE(seconds_.back(), kFactor * kDecode * 1.05) << a_token;
    EXPECT_GE(seconds_.back(), kFactor * kDecode * 0.8) << a_token;
  }
}

}  // namespace
}  // namespace sirocco
