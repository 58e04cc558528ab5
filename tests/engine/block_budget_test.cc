#include "engine/block_budget.h"

#include <gtest/gtest.h>

#include <string>

#include "graphs/executor.h"

namespace sirocco {
namespace {

ModelDescriptor TwoGroups() {
  ModelDescriptor descriptor;
  descriptor.kv_heads = 2;
  descriptor.head_dim = 8;
  descriptor.groups = {{.window = 0}, {.window = 16}};
  descriptor.layers = {{.group = 0}, {.group = 1}, {.group = 1}};
  return descriptor;
}

ExecutorOptions Options(int32_t max_batch_size, int32_t max_length) {
  ExecutorOptions options;
  options.max_batch_size = max_batch_size;
  options.max_length = max_length;
  options.prefill_chunk_size = 8;
  options.block_size = 16;
  return options;
}

uint64_t BlockBytes(int group) {
  return static_cast<uint64_t>(KvBlockBytes(TwoGroups(), group, 16, DType::kFloat32));
}

TEST(PlanKvBlocks, TakesWhatTheFullBatchNeeds) {
  // Of 100 slots: 7 blocks, and 3 for a window of 16 and a chunk of 8.
  const auto blocks = PlanKvBlocks(TwoGroups(), Options(4, 100), uint64_t{1} << 40);
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  EXPECT_EQ(*blocks, (std::vector<int32_t>{4 * 7, 4 * 3}));
}

TEST(PlanKvBlocks, AWindowThatSeesEverythingNeedsAsMuch) {
  const auto blocks = PlanKvBlocks(TwoGroups(), Options(4, 40), uint64_t{1} << 40);
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  EXPECT_EQ(*blocks, (std::vector<int32_t>{4 * 3, 4 * 3}));
}

TEST(PlanKvBlocks, TakesWhatTheMemoryHolds) {
  // As many of each group, as short sequences take them.
  const auto even =
      PlanKvBlocks(TwoGroups(), Options(4, 100), 10 * BlockBytes(0) + 10 * BlockBytes(1) + 1);
  ASSERT_TRUE(even.ok()) << even.status();
  EXPECT_EQ(*even, (std::vector<int32_t>{10, 10}));
  // What a window cannot use goes to the other group.
  const auto more =
      PlanKvBlocks(TwoGroups(), Options(4, 100), 21 * BlockBytes(0) + 12 * BlockBytes(1));
  ASSERT_TRUE(more.ok()) << more.status();
  EXPECT_EQ(*more, (std::vector<int32_t>{21, 12}));
}

TEST(PlanKvBlocks, OneSequenceMustFit) {
  const uint64_t enough = 7 * BlockBytes(0) + 3 * BlockBytes(1);
  const auto least = PlanKvBlocks(TwoGroups(), Options(4, 100), enough);
  ASSERT_TRUE(least.ok()) << least.status();
  EXPECT_EQ(*least, (std::vector<int32_t>{7, 3}));
  const auto status = PlanKvBlocks(TwoGroups(), Options(4, 100), enough - 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const std::string message(status.message());
  EXPECT_NE(message.find(std::to_string(enough)), std::string::npos) << message;
  EXPECT_NE(message.find(std::to_string(enough - 1)), std::string::npos) << message;
}

TEST(PlanKvBlocks, SizesThatOverflowDoNotFit) {
  ModelDescriptor descriptor = TwoGroups();
  descriptor.kv_heads = descriptor.head_dim = 1 << 20;
  ExecutorOptions options = Options(512, 1 << 27);
  options.block_size = 1024;
  const auto status = PlanKvBlocks(descriptor, options, uint64_t{1} << 50).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
}

TEST(PlanKvBlocks, RefusesCountsThatAreNotPositive) {
  const auto code = [&](const ModelDescriptor& descriptor, const ExecutorOptions& options) {
    return PlanKvBlocks(descriptor, options, 1 << 30).status().code();
  };
  EXPECT_EQ(code(TwoGroups(), Options(0, 1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(TwoGroups(), Options(1, 0)), absl::StatusCode::kInvalidArgument);
  for (int32_t ExecutorOptions::*size :
       {&ExecutorOptions::block_size, &ExecutorOptions::prefill_chunk_size}) {
    ExecutorOptions options = Options(1, 1);
    options.*size = 0;
    EXPECT_EQ(code(TwoGroups(), options), absl::StatusCode::kInvalidArgument);
  }
  ModelDescriptor none = TwoGroups();
  none.groups.clear();
  EXPECT_EQ(code(none, Options(1, 1)), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sirocco
