// How a streamed product is cut: what the kernel takes for granted of every plan.
#include "kernels/cuda/stream_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kMultiprocessors = 132;

std::vector<StreamShape> Shapes() {
  std::vector<StreamShape> shapes;
  for (const int32_t rows : {1, 2, 3, 4, 8}) {
    for (const int32_t units : {1, 7, 131, 133, 1152, 3072, 14336, 262144}) {
      for (const int32_t columns : {8, 40, 64, 576, 1152, 1160, 2048, 4096, 6912, 8192, 14336}) {
        for (const int32_t bytes : {2, 4}) {
          for (const int32_t rows_a_unit : {1, 2}) {
            shapes.push_back({rows, units, rows_a_unit, columns, bytes});
          }
        }
      }
    }
  }
  return shapes;
}

TEST(StreamPlanTest, TilesGroupsAndMemoryFitTheKernel) {
  int fitting = 0, deep = 0, shallow = 0, own = 0;
  for (const StreamShape& shape : Shapes()) {
    for (const StreamTuning& tuning : {StreamTuning{}, StreamTuning{2}, StreamTuning{8}}) {
      SCOPED_TRACE(::testing::Message()
                   << shape.rows << " rows, " << shape.units << " units of " << shape.rows_a_unit
                   << " x " << shape.columns << " columns of " << shape.element_bytes
                   << " bytes; tiles of " << tuning.tile_rows << " rows");
      const StreamPlan plan = PlanStream(shape, tuning, kMultiprocessors);
      if (!plan.fits) continue;
      ++fitting;
      EXPECT_EQ(plan.blocks, std::min(kMultiprocessors, shape.units));
      EXPECT_GE(plan.half_rows, 1);
      EXPECT_LE(plan.half_rows, kStreamHalf);
      EXPECT_GE(plan.groups * kStreamGroupBytes, shape.columns * shape.element_bytes);
      EXPECT_LT((plan.groups - 1) * kStreamGroupBytes, shape.columns * shape.element_bytes);
      EXPECT_EQ(plan.x_stride * shape.element_bytes % 128, 64);
      EXPECT_GE(plan.x_stride * shape.element_bytes, plan.groups * kStreamGroupBytes);
      if (plan.own_columns) {
        EXPECT_EQ(plan.groups % kStreamWarps, 0);
        EXPECT_GE(plan.groups, kStreamOwnGroups);
        EXPECT_GE(plan.rows, kStreamOwnRows);
      }
      own += plan.own_columns;
      EXPECT_TRUE(plan.depth == kStreamDepth || plan.depth == kStreamShallow);
      (plan.depth == kStreamDepth ? deep : shallow) += 1;
      const size_t ring = size_t{kStreamWarps} * plan.depth * kStreamSlotBytes;
      EXPECT_EQ(plan.shared_bytes,
                ring + size_t{1} * shape.rows * plan.x_stride * shape.element_bytes);
      EXPECT_LE(plan.shared_bytes, 209u * 1024);
    }
  }
  EXPECT_GT(fitting, 1000);
  EXPECT_GT(deep, shallow);
  EXPECT_GT(own, 0);
  EXPECT_EQ(shallow > 0, kStreamShallow < kStreamDepth);
}

TEST(StreamPlanTest, BlocksTakeAllUnitsInRunsOfOneLength) {
  for (const StreamShape& shape : Shapes()) {
    const StreamPlan plan = PlanStream(shape, {}, kMultiprocessors);
    if (!plan.fits) continue;
    EXPECT_EQ(plan.first_unit(0), 0);
    EXPECT_EQ(plan.first_unit(plan.blocks), shape.units);
    for (int32_t block = 0; block < plan.blocks; ++block) {
      const int32_t units = plan.first_unit(block + 1) - plan.first_unit(block);
      EXPECT_GE(units, shape.units / plan.blocks);
      EXPECT_LE(units, shape.units / plan.blocks + 1);
    }
  }
}

// The order of the sums: what a row's sums are does not depend on the rows beside it.
TEST(StreamPlanTest, TheCutDoesNotDependOnTheNumberOfRows) {
  for (StreamShape shape : Shapes()) {
    const StreamPlan plan = PlanStream(shape, {}, kMultiprocessors);
    shape.rows = 1;
    const StreamPlan one = PlanStream(shape, {}, kMultiprocessors);
    if (!plan.fits || !one.fits) continue;
    EXPECT_EQ(plan.half_rows, one.half_rows);
    EXPECT_EQ(plan.groups, one.groups);
  }
}

#if SIROCCO_HOPPER
// Two of one kernel would leave other multiprocessors without any.
TEST(StreamPlanTest, NoTwoBlocksOfAKernelShareAMultiprocessor) {
  constexpr size_t kOther = 17 * 1024;  // the sums, and what the driver takes
  constexpr size_t kMultiprocessor = 228 * 1024;
  for (const int32_t columns : {1024, 1152, 2048, 4096, 6912, 14336}) {
    const StreamPlan plan = PlanStream({1, 4096, 1, columns, 2}, {}, kMultiprocessors);
    ASSERT_TRUE(plan.fits);
    EXPECT_GT(2 * (plan.shared_bytes + kOther), kMultiprocessor) << columns << " columns";
  }
}
#endif

// The shape of MatMulTest.MoreThanARingHolds: on a GPU of up to 132 multiprocessors every warp
// fills slots of its ring again.
TEST(StreamPlanTest, AProductOfTheTestsGoesRoundTheRing) {
  for (const int multiprocessors : {6, 40, 108, kMultiprocessors}) {
    for (const int32_t rows : {1, 4}) {
      for (const int32_t bytes : {2, 4}) {
        SCOPED_TRACE(::testing::Message() << multiprocessors << " multiprocessors, " << rows
                                          << " rows, " << bytes << " bytes");
        const StreamPlan plan = PlanStream({rows, 4400, 1, 1160, bytes}, {}, multiprocessors);
        ASSERT_TRUE(plan.fits);
        const int32_t least_units = plan.units / plan.blocks;
        const int32_t tiles = (least_units + 2 * plan.half_rows - 1) / (2 * plan.half_rows);
        EXPECT_GT(plan.groups * tiles, kStreamWarps * kStreamDepth);
      }
    }
  }
}

TEST(StreamPlanTest, WhatTheKernelDoesNotTakeDoesNotFit) {
  EXPECT_FALSE(PlanStream({9, 1024, 1, 1024, 2}, {}, kMultiprocessors).fits);
  EXPECT_FALSE(PlanStream({0, 1024, 1, 1024, 2}, {}, kMultiprocessors).fits);
  EXPECT_FALSE(PlanStream({1, 1024, 1, 1020, 2}, {}, kMultiprocessors).fits);
  EXPECT_FALSE(PlanStream({8, 4096, 1, 14336, 2}, {}, kMultiprocessors).fits);
}

}  // namespace
}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
