// When requests are meant to be sent.
#include "server/bench/load/arrivals.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace sirocco {
namespace {

constexpr uint64_t kSeed = 3;

Load Open(double rate) { return {.concurrency = 0, .rate = rate}; }
Load Closed(int32_t concurrency) { return {.concurrency = concurrency, .rate = 0}; }

std::vector<double> Times(Arrivals& arrivals, int count) {
  std::vector<double> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(arrivals.Next().value());
    arrivals.Take();
  }
  return out;
}

TEST(ArrivalsTest, AClosedLoopWaitsForEnds) {
  const auto arrivals = MakeArrivals(Closed(2), kSeed, 10);
  EXPECT_EQ(Times(*arrivals, 2), (std::vector<double>{10, 10}));
  EXPECT_EQ(arrivals->Next(), std::nullopt);
  arrivals->Ended(13);
  arrivals->Ended(14);
  EXPECT_EQ(Times(*arrivals, 2), (std::vector<double>{13, 14}));
  EXPECT_EQ(arrivals->Next(), std::nullopt);
}

TEST(ArrivalsTest, AnOpenLoopDoesNot) {
  const auto arrivals = MakeArrivals(Open(5), kSeed, 10);
  const std::optional<double> next = arrivals->Next();
  arrivals->Ended(11);
  EXPECT_EQ(arrivals->Next(), next);
}

// Gaps of a Poisson process: mean and standard deviation are both 1 / rate, and a gap longer than
// the mean has the probability 1 / e.
TEST(ArrivalsTest, GapsOfAnOpenLoopAreExponential) {
  constexpr int kCount = 20000;
  const std::vector<double> times = Times(*MakeArrivals(Open(4), kSeed, 10), kCount);
  EXPECT_GT(times.front(), 10);
  double sum = 0, squares = 0;
  int longer = 0;
  for (int i = 1; i < kCount; ++i) {
    const double gap = times[i] - times[i - 1];
    ASSERT_GT(gap, 0);
    sum += gap;
    squares += gap * gap;
    longer += gap > 0.25;
  }
  const double mean = sum / (kCount - 1);
  EXPECT_NEAR(mean, 0.25, 0.01);
  EXPECT_NEAR(std::sqrt(squares / (kCount - 1) - mean * mean), 0.25, 0.01);
  EXPECT_NEAR(static_cast<double>(longer) / kCount, std::exp(-1), 0.02);
}

TEST(ArrivalsTest, RatesScaleTheSameGaps) {
  const std::vector<double> slow = Times(*MakeArrivals(Open(1), kSeed, 0), 100);
  const std::vector<double> fast = Times(*MakeArrivals(Open(8), kSeed, 0), 100);
  for (int i = 0; i < 100; ++i) EXPECT_NEAR(fast[i], slow[i] / 8, 1e-9);
  EXPECT_NE(Times(*MakeArrivals(Open(1), kSeed + 1, 0), 100), slow);
}

}  // namespace
}  // namespace sirocco
