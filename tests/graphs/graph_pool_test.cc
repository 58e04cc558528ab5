#include "graphs/graph_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/graphs/fake_device.h"

namespace sirocco {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Three parts, the middle one twice; operations that the fake gives no effect.
DecodePlan ThreeParts() {
  DecodePlan plan;
  plan.parts.resize(3);
  plan.parts[0].Add("prologue", EmbedParams{});
  plan.parts[1].Add("layer", NormQkvParams{});
  plan.parts[1].Add("layer", DownResidualParams{});
  plan.parts[2].Add("epilogue", RmsNormParams{});
  plan.order = {0, 1, 1, 2};
  return plan;
}

TEST(GraphPoolTest, CapturesEveryPartOfEverySizeLargestFirst) {
  FakeDevice device;
  std::vector<std::string> progress;
  const absl::StatusOr<GraphPool> pool =
      GraphPool::Capture(device, ThreeParts(), 2, [&](std::string_view phase, int done, int total) {
        progress.push_back(absl::StrCat(std::string(phase), " ", done, "/", total));
      });
  ASSERT_TRUE(pool.ok()) << pool.status();
  EXPECT_THAT(device.events,
              ElementsAre("begin", "embed 2", "end", "begin", "norm_qkv 2", "down_residual 2",
                          "end", "begin", "rms_norm 2", "end", "begin", "embed 1", "end", "begin",
                          "norm_qkv 1", "down_residual 1", "end", "begin", "rms_norm 1", "end"));
  EXPECT_TRUE(device.run.empty());  // recorded, not run
  EXPECT_EQ(pool->graphs(), 6);
  EXPECT_EQ(pool->bytes(), 600u);  // what the device says its recordings hold
  EXPECT_GE(pool->seconds(), 0);
  EXPECT_THAT(progress, ElementsAre("capture 1/2", "capture 2/2"));
}

TEST(GraphPoolTest, ReplaysTheSizeAskedInThePlansOrder) {
  FakeDevice device;
  const absl::StatusOr<GraphPool> pool = GraphPool::Capture(device, ThreeParts(), 3, nullptr);
  ASSERT_TRUE(pool.ok()) << pool.status();
  for (const int32_t rows : {1, 3, 2}) {
    device.run.clear();
    ASSERT_TRUE(pool->Replay(device, rows).ok());
    std::vector<std::string> names;
    for (const FakeDevice::Issued& issued : device.run) {
      EXPECT_EQ(issued.rows, rows);
      names.emplace_back(NameOf(issued.operation));
    }
    EXPECT_THAT(names, ElementsAre("embed", "norm_qkv", "down_residual", "norm_qkv",
                                   "down_residual", "rms_norm"));
  }
  EXPECT_EQ(device.counters().replays, 3u * 4);
  EXPECT_EQ(device.counters().launches, 0u);
}

TEST(GraphPoolTest, PreparingShowsTheDeviceEverySizeAndKeepsNothing) {
  FakeDevice device;
  ASSERT_TRUE(PrepareSizes(device, ThreeParts(), 2).ok());
  EXPECT_THAT(device.events, testing::IsSupersetOf({"embed 2", "norm_qkv 2", "rms_norm 2",
                                                    "embed 1", "norm_qkv 1", "rms_norm 1"}));
  EXPECT_TRUE(device.run.empty());
  device.refuse = "norm_qkv";
  EXPECT_EQ(PrepareSizes(device, ThreeParts(), 2).code(), absl::StatusCode::kUnimplemented);
  EXPECT_FALSE(device.recording);
}

// Three layers, the second as the first: of all sizes the two that differ, and all of them at the
// most rows that an operation is for.
TEST(GraphPoolTest, PreparingShowsLayersThatAreAlikeAtTheMostRows) {
  Plan few, many;
  for (int32_t layer = 0; layer < 3; ++layer) {
    few.SetLayer(layer);
    few.Add("layer", DownResidualParams{});
    many.SetLayer(layer);
    many.Add("layer", DownNormParams{});
  }
  DecodePlan plan;
  plan.parts.resize(1);
  plan.parts[0].Add("prologue", EmbedParams{});
  plan.parts[0].Append(few, {.least = 1, .most = 2});
  plan.parts[0].Append(many, {.least = 3});
  plan.order = {0};
  plan.distinct = {true, false, true};
  FakeDevice device;
  ASSERT_TRUE(PrepareSizes(device, plan, 4).ok());
  EXPECT_THAT(device.events,
              ElementsAre("begin", "embed 4", "down_norm 4", "down_norm 4", "down_norm 4", "end",
                          "begin", "embed 3", "down_norm 3", "down_norm 3", "end",  //
                          "begin", "embed 2", "down_residual 2", "down_residual 2",
                          "down_residual 2", "end",  //
                          "begin", "embed 1", "down_residual 1", "down_residual 1", "end"));
}

TEST(GraphPoolTest, AFailureLeavesTheDeviceNotRecording) {
  FakeDevice device;
  device.refuse = "down_residual";
  const absl::StatusOr<GraphPool> pool = GraphPool::Capture(device, ThreeParts(), 2, nullptr);
  ASSERT_FALSE(pool.ok());
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(pool.status().message()),
              AllOf(HasSubstr("batch size 2"), HasSubstr("down_residual")));
  EXPECT_FALSE(device.recording);
}

}  // namespace
}  // namespace sirocco
