// Durations in buckets, compared with the durations themselves; and what happened when.
#include "server/bench/load/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "server/bench/load/draws.h"
#include "server/bench/load/timeline.h"

namespace sirocco {
namespace {

constexpr double kError = 0.004;

TEST(HistogramTest, PercentilesAreTheNearestRankRoundedUpALittle) {
  Draws draws(5, Draws::kArrivals, 0);
  Histogram histogram;
  std::vector<double> values;
  for (int i = 0; i < 5000; ++i) {
    values.push_back(std::exp(3 * draws.Normal()) * 1e-3);  // over many octaves
    histogram.Add(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double part : {0.001, 0.1, 0.5, 0.9, 0.99, 0.999}) {
    const double exact = values[static_cast<size_t>(std::ceil(part * 5000 - 1e-6)) - 1];
    EXPECT_GE(histogram.Percentile(part), exact - 1e-9) << part;
    EXPECT_LE(histogram.Percentile(part), exact * (1 + kError) + 1e-9) << part;
  }
  EXPECT_EQ(histogram.Percentile(1), values.back());
  EXPECT_EQ(histogram.max(), values.back());
  EXPECT_EQ(histogram.count(), 5000);
}

TEST(HistogramTest, AnyDurationHasABucket) {
  for (const double seconds :
       {0.0, 1e-9, 255e-9, 256e-9, 511e-9, 512e-9, 1e-3, 1.0, 86400.0, 1e8}) {
    Histogram histogram;
    histogram.Add(seconds);
    histogram.Add(seconds * 2);
    EXPECT_NEAR(histogram.Percentile(0.5), seconds, seconds * kError + 1e-12) << seconds;
  }
  Histogram backwards;  // a clock's fault at most
  backwards.Add(-1);
  EXPECT_EQ(backwards.Percentile(0.5), 0);
}

TEST(HistogramTest, ASampleMayCountSeveralTimes) {
  Histogram histogram;
  histogram.Add(1, 9);
  histogram.Add(11);
  histogram.Add(5, 0);
  EXPECT_EQ(histogram.count(), 10);
  EXPECT_DOUBLE_EQ(histogram.mean(), 2);
  EXPECT_NEAR(histogram.Percentile(0.9), 1, kError);
  EXPECT_EQ(histogram.Percentile(0.91), 11);
}

TEST(HistogramTest, WhatIsBeyondAllIsInfinite) {
  Histogram histogram;
  EXPECT_EQ(histogram.Percentile(0.5), 0);
  EXPECT_TRUE(std::isinf(histogram.Percentile(0.5, 1)));
  for (int i = 1; i <= 98; ++i) histogram.Add(i);
  EXPECT_NEAR(histogram.Percentile(0.98, 2), 98, 98 * kError);
  EXPECT_TRUE(std::isinf(histogram.Percentile(0.99, 2)));
}

TEST(TimelineTest, BinsDoubleAndKeepWhatIsInThem) {
  Timeline timeline;
  for (int i = 0; i < 1000; ++i) {
    timeline.Add(Timeline::kTokens, i * 0.1, 3);
    timeline.Add(Timeline::kWorstFirstToken, i * 0.1, i);
  }
  EXPECT_LE(timeline.bins(), Timeline::kMostBins);
  EXPECT_DOUBLE_EQ(timeline.bin_seconds(), 16 * Timeline::kFirstBinSeconds);
  double tokens = 0;
  for (size_t bin = 0; bin < timeline.bins(); ++bin) {
    tokens += timeline.At(Timeline::kTokens, bin);
    const double end = static_cast<double>(bin + 1) * timeline.bin_seconds();
    EXPECT_LE(timeline.At(Timeline::kWorstFirstToken, bin), end / 0.1 + 1e-6);
    EXPECT_GE(timeline.At(Timeline::kWorstFirstToken, bin), end / 0.1 - 2);
  }
  EXPECT_EQ(tokens, 3000);
}

TEST(TimelineTest, AnOddNumberOfBinsFoldsToo) {
  Timeline timeline;
  timeline.Add(Timeline::kArrivals, 0, 1);
  timeline.Add(Timeline::kArrivals, 2 * Timeline::kFirstBinSeconds, 4);
  timeline.Add(Timeline::kArrivals, Timeline::kMostBins * Timeline::kFirstBinSeconds, 8);
  EXPECT_DOUBLE_EQ(timeline.bin_seconds(), 2 * Timeline::kFirstBinSeconds);
  EXPECT_EQ(timeline.At(Timeline::kArrivals, 0), 1);
  EXPECT_EQ(timeline.At(Timeline::kArrivals, 1), 4);
  EXPECT_EQ(timeline.At(Timeline::kArrivals, Timeline::kMostBins / 2), 8);
}

}  // namespace
}  // namespace sirocco
