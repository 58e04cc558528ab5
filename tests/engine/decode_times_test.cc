#include "engine/decode_times.h"

#include <gtest/gtest.h>

namespace sirocco {
namespace {

TEST(DecodeTimes, NothingIsKnownAtFirst) {
  DecodeTimes times;
  EXPECT_EQ(times.Ratio(1, 256), 1);
  times.Add(4, 0.01, true);
  EXPECT_EQ(times.Ratio(0, 4), 1);
  EXPECT_EQ(times.Ratio(4, 0), 1);
  EXPECT_EQ(times.Ratio(4, 256), 1);
  EXPECT_EQ(times.Ratio(4, 1), 1);
}

TEST(DecodeTimes, BetweenWhatWasSeenItGoesStraight) {
  DecodeTimes times;
  times.Add(16, 0.010, true);
  times.Add(256, 0.020, true);
  EXPECT_DOUBLE_EQ(times.Ratio(16, 256), 2);
  EXPECT_DOUBLE_EQ(times.Ratio(256, 16), 0.5);
  EXPECT_DOUBLE_EQ(times.Ratio(16, 136), 1.5);
  EXPECT_DOUBLE_EQ(times.Ratio(136, 256), 2 / 1.5);
  EXPECT_DOUBLE_EQ(times.Ratio(1, 8), 1);
  EXPECT_DOUBLE_EQ(times.Ratio(256, 512), 1);
}

TEST(DecodeTimes, ItFollowsWhatStepsTakeOfLate) {
  DecodeTimes times;
  times.Add(16, 0.010, true);
  for (int i = 0; i < 40; ++i) times.Add(64, 0.010, true);
  for (int i = 0; i < 40; ++i) times.Add(64, 0.020, true);
  EXPECT_NEAR(times.Ratio(16, 64), 2, 0.01);
}

// The first ones beside prompts may have been held up by these.
TEST(DecodeTimes, AClearStepIsBelievedBeforeOthers) {
  DecodeTimes times;
  times.Add(16, 0.010, true);
  times.Add(64, 0.030, false);
  times.Add(64, 0.040, false);
  EXPECT_DOUBLE_EQ(times.Ratio(16, 64), 4);
  times.Add(64, 0.020, true);
  EXPECT_DOUBLE_EQ(times.Ratio(16, 64), 2);
  times.Add(64, 0.040, false);
  EXPECT_DOUBLE_EQ(times.Ratio(16, 64), 2);
}

// Two rows may take longer than four, where they have other kernels; and noise may be anything.
TEST(DecodeTimes, MoreRowsAreNeverShorterNorLongerThanInProportion) {
  DecodeTimes times;
  times.Add(2, 0.012, true);
  times.Add(4, 0.010, true);
  EXPECT_EQ(times.Ratio(2, 4), 1);
  EXPECT_EQ(times.Ratio(4, 2), 1);
  times.Add(8, 0.100, true);
  EXPECT_EQ(times.Ratio(4, 8), 2);
  EXPECT_EQ(times.Ratio(8, 4), 0.5);
}

// Up to the largest batch that there may be; beyond it nothing is told apart.
TEST(DecodeTimes, EveryNumberOfRowsHasAPlace) {
  for (int32_t rows = 1; rows <= 2000; ++rows) {
    DecodeTimes times;
    times.Add(rows, 0.010, true);
    times.Add(2 * rows, 0.015, true);
    EXPECT_DOUBLE_EQ(times.Ratio(rows, 2 * rows), rows < 448 ? 1.5 : 1) << rows;
  }
}

}  // namespace
}  // namespace sirocco
