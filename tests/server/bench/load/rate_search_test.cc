// Goals, and the search for the highest rate that keeps them.
#include "server/bench/load/rate_search.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/bench/load/goal.h"

namespace sirocco {
namespace {

// The rates that are measured where every rate up to `highest` keeps the goal.
std::vector<double> Measured(RateSearch& search, double highest) {
  std::vector<double> rates;
  while (const auto rate = search.Next()) {
    rates.push_back(*rate);
    if (rates.size() > 100) break;
    search.Record(*rate, *rate <= highest);
  }
  return rates;
}

TEST(RateSearchTest, FindsTheHighestFromBelowAndFromAbove) {
  for (const double first : {0.5, 1.0, 64.0}) {
    RateSearch search(first);
    const std::vector<double> rates = Measured(search, 37);
    EXPECT_LT(rates.size(), 14) << first;
    ASSERT_TRUE(search.highest_kept() && search.lowest_missed());
    EXPECT_LE(*search.highest_kept(), 37);
    EXPECT_GT(*search.lowest_missed(), 37);
    EXPECT_LE(*search.lowest_missed(), *search.highest_kept() * (1 + RateSearch::kResolution));
  }
}

TEST(RateSearchTest, GivesUpWhereNoRateKeepsIt) {
  RateSearch search(16);
  EXPECT_EQ(Measured(search, 0), (std::vector<double>{16, 8, 4, 2, 1}));
  EXPECT_EQ(search.highest_kept(), std::nullopt);
  EXPECT_EQ(search.lowest_missed(), 1);
}

TEST(RateSearchTest, EndsWhereEveryRateKeepsIt) {
  RateSearch search(1);
  EXPECT_LT(Measured(search, 1e12).size(), 25);
  EXPECT_EQ(search.highest_kept(), RateSearch::kMost);
  EXPECT_EQ(search.lowest_missed(), std::nullopt);
}

TEST(GoalTest, NamesAMetricAPercentileAndALimit) {
  const auto goals = ParseGoals("ttft_p99=500ms,itl_p50=40ms,tpot_p99.9=1s,e2e_p5=2m");
  ASSERT_TRUE(goals.ok()) << goals.status();
  ASSERT_EQ(goals->size(), 4);
  const std::vector<LoadMetric> metrics = {LoadMetric::kFirstToken, LoadMetric::kBetweenTokens,
                                           LoadMetric::kPerToken, LoadMetric::kTotal};
  const std::vector<double> parts = {0.99, 0.5, 0.999, 0.05};
  const std::vector<double> seconds = {0.5, 0.04, 1, 120};
  const std::vector<uint64_t> least = {100, 2, 1000, 2};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ((*goals)[i].metric, metrics[i]);
    EXPECT_DOUBLE_EQ((*goals)[i].part, parts[i]);
    EXPECT_DOUBLE_EQ((*goals)[i].seconds, seconds[i]);
    EXPECT_EQ((*goals)[i].LeastSamples(), least[i]);
  }
}

TEST(GoalTest, WhatIsNoneIsNamed) {
  for (const std::string text :
       {"", "ttft", "ttft_p99", "ttft_p99=", "ttft_p99=5", "ttft=5ms", "ttft_p0=5ms",
        "ttft_p100=5ms", "ttft_pnan=5ms", "p99=5ms", "latency_p99=5ms", "ttft_p99=0ms"}) {
    const auto goals = ParseGoals("itl_p50=40ms," + text);
    ASSERT_FALSE(goals.ok()) << text;
    EXPECT_NE(std::string(goals.status().message()).find("'" + text + "'"), std::string::npos);
  }
}

}  // namespace
}  // namespace sirocco
