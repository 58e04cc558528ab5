// How wide products are cut: every tile and every stage once.
#include "kernels/cuda/wide_grid.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

namespace sirocco::cuda {
namespace {

TEST(WideGridTest, EveryItemOnce) {
  for (const int32_t rows : {1, 2, 3, 8, 17}) {
    for (const int32_t outputs : {1, 5, 64}) {
      for (const int32_t parts : {1, 2, 4}) {
        for (const int32_t group : {1, 2, 3, 8, 100}) {
          const WideGrid grid = {rows, outputs, parts, group};
          ASSERT_EQ(grid.items(), rows * outputs * parts);
          std::set<std::tuple<int32_t, int32_t, int32_t>> seen;
          for (int32_t i = 0; i < grid.items(); ++i) {
            const WideItem item = grid.At(i);
            ASSERT_TRUE(item.rows >= 0 && item.rows < rows) << i;
            ASSERT_TRUE(item.outputs >= 0 && item.outputs < outputs) << i;
            ASSERT_TRUE(item.part >= 0 && item.part < parts) << i;
            seen.emplace(item.rows, item.outputs, item.part);
          }
          ASSERT_EQ(static_cast<int32_t>(seen.size()), grid.items())
              << rows << " by " << outputs << ", groups of " << group;
        }
      }
    }
  }
}

TEST(WideGridTest, ItemsSideBySideShareTheirWeights) {
  const WideGrid grid = {.rows = 11, .outputs = 6, .parts = 1, .group = 4};
  for (int32_t i = 0; i < grid.items(); ++i) {
    const WideItem item = grid.At(i);
    if (item.rows % 4 == 0) continue;
    const WideItem before = grid.At(i - 1);
    EXPECT_EQ(before.outputs, item.outputs);
    EXPECT_EQ(before.rows + 1, item.rows);
  }
}

TEST(WideGridTest, PartsAreAllStages) {
  for (const int32_t depth : {1, 4, 18, 63, 64, 224}) {
    for (const int32_t parts : {1, 2, 4}) {
      int32_t next = 0;
      for (int32_t part = 0; part < parts; ++part) {
        const WideStages stages = StagesOf(depth, part, parts);
        EXPECT_EQ(stages.first, next);
        EXPECT_LE(stages.last - stages.first, depth / parts + 1);
        next = stages.last;
      }
      EXPECT_EQ(next, depth);
    }
  }
}

}  // namespace
}  // namespace sirocco::cuda
