// How decode attention is cut: what the kernel and its scratch take for granted.
#include "kernels/cuda/decode_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace sirocco::cuda {
namespace {

int32_t SplitsOf(int32_t first, int32_t position, int32_t fine_splits) {
  const int bits = SplitBitsOf(first, position, fine_splits);
  return (position >> bits) - (first >> bits) + 1;
}

TEST(DecodePlanTest, SplitsAreWhatABlockHoldsAndNoMoreThanPlanned) {
  for (const int32_t fine_splits : {1, 2, 5, 16, 32}) {
    for (const int32_t max_length : {1, 31, 32, 33, 256, 257, 600, 9000}) {
      for (int32_t position = 0; position < max_length; ++position) {
        for (const int32_t first : {0, position / 3, position}) {
          const int bits = SplitBitsOf(first, position, fine_splits);
          ASSERT_GE(bits, kLeastSplitBits);
          ASSERT_LE(bits, kSplitBits);
          const int32_t splits = SplitsOf(first, position, fine_splits);
          ASSERT_LE(splits, MostSplits(max_length, fine_splits)) << first << " ... " << position;
          if (bits < kSplitBits) {
            ASSERT_LE(splits, fine_splits);
          }
        }
      }
    }
  }
}

TEST(DecodePlanTest, FewRowsAreCutFinerThanMany) {
  // One row of one KV head, 512 slots: 16 splits instead of two.
  EXPECT_EQ(SplitsOf(0, 511, FineSplitsFor(1)), 16);
  EXPECT_EQ(SplitBitsOf(0, 1023, FineSplitsFor(1)), 5);
  EXPECT_EQ(SplitBitsOf(0, 1024, FineSplitsFor(1)), 6);
  EXPECT_EQ(SplitBitsOf(0, 8191, FineSplitsFor(1)), kSplitBits);
  // Four rows of eight KV heads: a split for each of 128 blocks.
  EXPECT_EQ(SplitsOf(0, 511, FineSplitsFor(32)), 4);
  // More pairs than half of the blocks have no finer splits.
  EXPECT_EQ(FineSplitsFor(67), 1);
  EXPECT_EQ(FineSplitsFor(1000000), 1);
  EXPECT_EQ(SplitsOf(0, 511, FineSplitsFor(67)), 2);
}

TEST(DecodePlanTest, EverySizeIsUsed) {
  std::set<int> sizes;
  for (int32_t position = 0; position < 20000; ++position) {
    sizes.insert(SplitBitsOf(0, position, FineSplitsFor(1)));
  }
  EXPECT_EQ(sizes, (std::set<int>{5, 6, 7, 8}));
}

// Scratch that was made for many rows does for fewer, which are cut finer.
TEST(DecodePlanTest, ScratchOfManyPairsHoldsTheSplitsOfFewer) {
  for (const int32_t max_length : {1, 32, 100, 256, 600, 4096, 131072}) {
    for (int64_t pairs = 1; pairs <= 600; ++pairs) {
      int64_t most = 0;
      for (int64_t fewer = 1; fewer <= pairs; ++fewer) {
        most = std::max(most, fewer * MostSplits(max_length, FineSplitsFor(fewer)));
      }
      ASSERT_GE(MostSplitsOfAll(pairs, max_length), most) << pairs << " of " << max_length;
    }
  }
}

}  // namespace
}  // namespace sirocco::cuda
