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

std::vector<StreamTuning> Tunings() {
  return {{}, {2, 2048, 48 * 1024}, {16, 10 * 1024, 64 * 1024}, {16, 34 * 1024, 160 * 1024}};
}

TEST(StreamPlanTest, PiecesSlotsAndMemoryFitTheKernel) {
  int fitting = 0;
  for (const StreamShape& shape : Shapes()) {
    for (const StreamTuning& tuning : Tunings()) {
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
      EXPECT_TRUE(plan.whole_rows() || plan.piece_columns % kStreamColumnBlock == 0);
      EXPECT_LE(plan.piece_columns, plan.columns);
      EXPECT_GE(plan.row_bytes, plan.piece_columns * shape.element_bytes);
      EXPECT_EQ(plan.row_bytes % 16, 0);
      EXPECT_GE(plan.slots, 2);
      EXPECT_LE(plan.slots, kStreamSlots);
      EXPECT_EQ(plan.x_stride * shape.element_bytes % 128, 64);
      EXPECT_GE(plan.x_stride, (shape.columns + 31) / 32 * 32);
      const size_t x_bytes = size_t{1} * shape.rows * plan.x_stride * shape.element_bytes;
      EXPECT_EQ(plan.shared_bytes, size_t{1} * plan.slots * plan.slot_bytes() + x_bytes);
      EXPECT_LE(plan.shared_bytes, 217u * 1024);
    }
  }
  EXPECT_GT(fitting, 1000);
}

// The order of the sums: what a row's sums are does not depend on the rows beside it.
TEST(StreamPlanTest, TheCutDoesNotDependOnTheNumberOfRows) {
  for (StreamShape shape : Shapes()) {
    const StreamPlan plan = PlanStream(shape, {}, kMultiprocessors);
    shape.rows = 1;
    const StreamPlan one = PlanStream(shape, {}, kMultiprocessors);
    if (!plan.fits || !one.fits) continue;
    EXPECT_EQ(plan.half_rows, one.half_rows);
    EXPECT_EQ(plan.piece_columns, one.piece_columns);
  }
}

#if SIROCCO_HOPPER
// Room for the next kernel's ring beside this one's.
TEST(StreamPlanTest, TwoBlocksShareAMultiprocessorWhereTheActivationsAreSmall) {
  for (const int32_t columns : {1152, 2048, 4096, 8192, 14336}) {
    const StreamPlan plan = PlanStream({1, 4096, 1, columns, 2}, {}, kMultiprocessors);
    ASSERT_TRUE(plan.fits);
    EXPECT_LE(plan.shared_bytes, 103u * 1024);
    EXPECT_GE(plan.slots * plan.slot_bytes(), 40 * 1024);
  }
}

#endif

// The shape of MatMulTest.MoreThanARingHolds: on a GPU of up to 132 multiprocessors every block
// fills slots of its ring again, with pieces of rows.
TEST(StreamPlanTest, AProductOfTheTestsGoesRoundTheRing) {
  for (const int multiprocessors : {6, 40, 108, kMultiprocessors}) {
    for (const int32_t rows : {1, 4, 8}) {
      for (const int32_t bytes : {2, 4}) {
        SCOPED_TRACE(::testing::Message() << multiprocessors << " multiprocessors, " << rows
                                          << " rows, " << bytes << " bytes");
        const StreamPlan plan = PlanStream({rows, 4400, 1, 1160, bytes}, {}, multiprocessors);
        ASSERT_TRUE(plan.fits);
        EXPECT_FALSE(plan.whole_rows());
        const int32_t least_units = plan.units / plan.blocks;
        const int32_t tiles = (least_units + 2 * plan.half_rows - 1) / (2 * plan.half_rows);
        const int32_t pieces = (plan.columns + plan.piece_columns - 1) / plan.piece_columns;
        EXPECT_GT(pieces * tiles, plan.slots);
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
