// The fixture of the executor's tests: in each mode, on a device that computes nothing.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/executor.h"
#include "tests/graphs/fake_device.h"
#include "tests/testing/random_model.h"

namespace sirocco {

inline ExecutorOptions SmallOptions(Mode mode) {
  ExecutorOptions options;
  options.mode = mode;
  options.max_batch_size = 4;
  options.max_length = 64;
  options.prefill_chunk_size = 48;
  options.block_size = 8;
  options.kv_blocks = {32, 16};
  return options;
}

class ExecutorTest : public ::testing::TestWithParam<Mode> {
 protected:
  void SetUp() override {
    absl::StatusOr<RandomModel> model = MakeRandomModel(device_, DType::kFloat32, 1);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    device_.events.clear();
  }

  absl::Status Create(const ExecutorOptions& options) {
    absl::StatusOr<std::unique_ptr<Executor>> executor =
        Executor::Create(device_, model_.descriptor, model_.weights, options);
    if (!executor.ok()) return executor.status();
    executor_ = *std::move(executor);
    return absl::OkStatus();
  }

  void StartLane(int32_t lane, int32_t length) {
    const std::vector<int32_t> tokens(length, 7);
    LaneStart start;
    start.lane = lane;
    start.state.length = start.prompt_length = length;
    start.tokens = tokens;
    ASSERT_TRUE(executor_->StartLane(start).ok());
  }

  FakeDevice device_;
  RandomModel model_;
  std::unique_ptr<Executor> executor_;
};

}  // namespace sirocco
