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

int64_t BytesOfAllGroups(const ModelDescriptor& descriptor) {
  return KvBlockBytes(descriptor, 0, 16, DType::kFloat32) +
         KvBlockBytes(descriptor, 1, 16, DType::kFloat32);
}

TEST(PlanKvBlocks, TakesWhatTheFullBatchNeeds) {
  const auto blocks = PlanKvBlocks(TwoGroups(), 16, DType::kFloat32, 4, 100, uint64_t{1} << 40);
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  EXPECT_EQ(*blocks, (std::vector<int32_t>{28, 28}));  // 4 x 7
}

TEST(PlanKvBlocks, TakesWhatTheMemoryHolds) {
  const ModelDescriptor descriptor = TwoGroups();
  const uint64_t memory = 10 * BytesOfAllGroups(descriptor) + 1;
  const auto blocks = PlanKvBlocks(descriptor, 16, DType::kFloat32, 4, 100, memory);
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  EXPECT_EQ(*blocks, (std::vector<int32_t>{10, 10}));
}

TEST(PlanKvBlocks, OneSequenceMustFit) {
  const ModelDescriptor descriptor = TwoGroups();
  const uint64_t enough = 7 * BytesOfAllGroups(descriptor);
  EXPECT_TRUE(PlanKvBlocks(descriptor, 16, DType::kFloat32, 4, 100, enough).ok());
  const auto status = PlanKvBlocks(descriptor, 16, DType::kFloat32, 4, 100, enough - 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const std::string message(status.message());
  EXPECT_NE(message.find(std::to_string(enough)), std::string::npos) << message;
  EXPECT_NE(message.find(std::to_string(enough - 1)), std::string::npos) << message;
}

TEST(PlanKvBlocks, RefusesCountsThatAreNotPositive) {
  ModelDescriptor descriptor = TwoGroups();
  const auto code = [&](int32_t block_size, int32_t batch, int32_t length) {
    return PlanKvBlocks(descriptor, block_size, DType::kFloat32, batch, length, 1 << 30)
        .status()
        .code();
  };
  EXPECT_EQ(code(0, 1, 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(1, 0, 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(1, 1, 0), absl::StatusCode::kInvalidArgument);
  descriptor.groups.clear();
  EXPECT_EQ(code(1, 1, 1), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sirocco
