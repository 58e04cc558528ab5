// Steps launched before the one before was collected, on a device that does its work late.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/graphs/deferring_device.h"
#include "tests/graphs/schedule.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kLanes = 4;
constexpr int32_t kVocabulary = 131;

ExecutorOptions SmallOptions() {
  ExecutorOptions options;
  options.mode = Mode::kDecoderGraph;
  options.max_batch_size = kLanes;
  options.max_length = 96;
  options.prefill_chunk_size = 64;
  options.block_size = 4;
  options.kv_blocks = {kLanes * 24, kLanes * 24};
  options.keep_logits = true;
  return options;
}

// An executor on a device of its own.
struct Rig {
  Rig(ExecutorOptions options, bool late) {
    absl::StatusOr<std::unique_ptr<Device>> cpu = CreateCpuDevice(1);
    EXPECT_TRUE(cpu.ok()) << cpu.status();
    if (!cpu.ok()) return;
    device = *std::move(cpu);
    if (late) {
      auto made = std::make_unique<DeferringDevice>(
          std::move(device), DeferringDevice::Pace::kWhenWaitedFor, /*seed=*/1);
      deferring = made.get();
      device = std::move(made);
    }
    absl::StatusOr<RandomModel> random = MakeRandomModel(*device, DType::kFloat32, 5);
    EXPECT_TRUE(random.ok()) << random.status();
    if (!random.ok()) return;
    model = *std::move(random);
    auto created = Executor::Create(*device, model.descriptor, model.weights, options);
    EXPECT_TRUE(created.ok()) << created.status();
    if (created.ok()) executor = *std::move(created);
  }

  std::unique_ptr<Device> device;
  DeferringDevice* deferring = nullptr;  // `device`, if it is late
  RandomModel model;
  std::unique_ptr<Executor> executor;
};

std::vector<int32_t> Prompt(int32_t length, int32_t salt) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < length; ++i) prompt.push_back((i * 31 + salt * 17 + 5) % kVocabulary);
  return prompt;
}

class RunAheadTest : public ::testing::Test {
 protected:
  RunAheadTest() : rig_(SmallOptions(), /*late=*/true), blocks_(SmallOptions(), 3) {}
  void SetUp() override { ASSERT_NE(rig_.executor, nullptr); }

  Executor& executor() { return *rig_.executor; }

  absl::Status StartLane(int32_t lane, int32_t length, uint32_t flags = 0) {
    const std::vector<int32_t> tokens = Prompt(length, lane);
    LaneStart start;
    start.lane = lane;
    start.state.length = start.prompt_length = length;
    start.state.top_p = 1;
    start.state.repetition_penalty = (flags & kLanePenalties) != 0 ? 1.5f : 1;
    start.state.flags = flags;
    start.tokens = tokens;
    return executor().StartLane(start);
  }

  // The whole prompt of a lane, sampled; with its blocks for all that can follow.
  absl::Status LaunchPrompt(int32_t lane, int32_t length, int32_t score_count = 0) {
    std::vector<BlockUpdate> updates;
    blocks_.Grow(lane, SmallOptions().max_length, updates);
    const PrefillChunk chunk = {
        .lane = lane, .count = length, .sample = true, .score_count = score_count};
    return executor().Launch({.prefill = {.block_updates = updates, .chunks = {&chunk, 1}}});
  }

  absl::Status LaunchDecode(const std::vector<int32_t>& lanes) {
    return executor().Launch({.decode = {.lanes = lanes}});
  }

  Rig rig_;
  RandomBlocks blocks_;
};

TEST_F(RunAheadTest, TwoStepsCanBeInFlightAndAreCollectedInOrder) {
  EXPECT_EQ(executor().run_ahead(), 1);
  EXPECT_EQ(executor().Collect().status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(StartLane(0, 5).ok());
  ASSERT_TRUE(LaunchPrompt(0, 5).ok());
  ASSERT_TRUE(LaunchDecode({0}).ok());
  EXPECT_EQ(executor().in_flight(), 2);
  EXPECT_EQ(LaunchDecode({0}).code(), absl::StatusCode::kFailedPrecondition);
  const std::vector<int32_t> lanes = {0};
  EXPECT_EQ(executor().Decode({.lanes = lanes}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  const PrefillChunk chunk = {.lane = 0, .count = 1};
  EXPECT_EQ(executor().Prefill({.chunks = {&chunk, 1}}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  absl::StatusOr<StepResult> result = executor().Collect();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->prefill.sampled.size(), 1u);
  EXPECT_TRUE(result->decode.sampled.empty());
  EXPECT_GT(result->prefill_seconds, 0);
  EXPECT_EQ(result->decode_seconds, 0);
  result = executor().Collect();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->prefill.sampled.empty());
  EXPECT_EQ(result->decode.sampled.size(), 1u);
  EXPECT_EQ(result->prefill_seconds, 0);
  EXPECT_GT(result->decode_seconds, 0);
  EXPECT_EQ(executor().in_flight(), 0);
}

TEST_F(RunAheadTest, WithoutRunningAheadOneStepCanBeInFlight) {
  const Rig rig(SmallOptions(), /*late=*/false);
  ASSERT_NE(rig.executor, nullptr);
  EXPECT_EQ(rig.executor->run_ahead(), 0);
  const std::vector<int32_t> tokens = {1, 2}, lanes = {0};
  LaneStart start;
  start.state.length = start.prompt_length = 2;
  start.tokens = tokens;
  ASSERT_TRUE(rig.executor->StartLane(start).ok());
  ASSERT_TRUE(rig.executor->Launch({.decode = {.lanes = lanes}}).ok());
  EXPECT_EQ(rig.executor->Launch({.decode = {.lanes = lanes}}).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(rig.executor->Collect().ok());
}

// A decode after a prefill after a decode, tokens unknown all the time, as one by one.
TEST_F(RunAheadTest, AStepGoesOnFromTokensThatTheHostDoesNotKnow) {
  const Rig alone(SmallOptions(), /*late=*/false);
  ASSERT_NE(alone.executor, nullptr);
  TestSequence sequence;
  sequence.prompt = Prompt(9, 2);
  sequence.params.top_p = 1;
  sequence.params.repetition_penalty = 1;
  sequence.generate = 12;
  const absl::StatusOr<TestOutput> expected = RunAlone(*alone.executor, sequence);
  ASSERT_TRUE(expected.ok()) << expected.status();

  ASSERT_TRUE(StartLane(2, 9).ok());
  ASSERT_TRUE(LaunchPrompt(2, 9).ok());
  TestOutput output;
  for (int32_t token = 0; token < 12; ++token) {
    if (token < 11) {
      ASSERT_TRUE(LaunchDecode({2}).ok());
    }
    const absl::StatusOr<StepResult> result = executor().Collect();
    ASSERT_TRUE(result.ok()) << result.status();
    output.scores.push_back(token == 0 ? result->prefill.sampled[0] : result->decode.sampled[0]);
    // Of the step collected, though the next has been launched.
    const auto logits = executor().KeptLogits(0);
    ASSERT_TRUE(logits.ok());
    output.logits.insert(output.logits.end(), logits->begin(), logits->end());
  }
  EXPECT_TRUE(SameBits(output, *expected));
}

TEST_F(RunAheadTest, KeptLogitsHaveTheRowsOfBothParts) {
  ASSERT_TRUE(StartLane(0, 5).ok());
  ASSERT_TRUE(LaunchPrompt(0, 5).ok());
  ASSERT_TRUE(StartLane(1, 7).ok());
  std::vector<BlockUpdate> updates;
  blocks_.Grow(1, 7, updates);
  const PrefillChunk chunk = {.lane = 1, .count = 7, .sample = true};
  const std::vector<int32_t> lanes = {0};
  ASSERT_TRUE(executor()
                  .Launch({.prefill = {.block_updates = updates, .chunks = {&chunk, 1}},
                           .decode = {.lanes = lanes}})
                  .ok());
  ASSERT_TRUE(executor().Collect().ok());
  const absl::StatusOr<StepResult> result = executor().Collect();
  ASSERT_TRUE(result.ok()) << result.status();
  for (const auto& [row, score] :
       {std::pair(0, result->prefill.sampled[0]), std::pair(1, result->decode.sampled[0])}) {
    const absl::StatusOr<std::span<const float>> logits = executor().KeptLogits(row);
    ASSERT_TRUE(logits.ok());
    const auto best = std::max_element(logits->begin(), logits->end());
    EXPECT_EQ(best - logits->begin(), score.token_id);
  }
}

TEST_F(RunAheadTest, NothingWaitsButCollect) {
  for (int32_t lane = 0; lane < 3; ++lane) ASSERT_TRUE(StartLane(lane, 40).ok());
  rig_.deferring->waits = 0;
  ASSERT_TRUE(LaunchPrompt(0, 40, /*score_count=*/39).ok());  // two slices of scores
  ASSERT_TRUE(StartLane(3, 6, kLanePenalties | kLaneBias).ok());
  ASSERT_TRUE(LaunchDecode({0}).ok());
  EXPECT_EQ(rig_.deferring->waits, 0);
  const absl::StatusOr<StepResult> result = executor().Collect();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(rig_.deferring->waits, 1);
  const std::vector<int32_t> prompt = Prompt(40, 0);
  ASSERT_EQ(result->prefill.scored.size(), 39u);
  for (int i = 0; i < 39; ++i) EXPECT_EQ(result->prefill.scored[i].token_id, prompt[i + 1]);
}

TEST_F(RunAheadTest, WhatStandsOnTheDeviceIsNotCopiedAgain) {
  for (int32_t lane = 0; lane < 3; ++lane) {
    ASSERT_TRUE(StartLane(lane, 4).ok());
    ASSERT_TRUE(LaunchPrompt(lane, 4).ok());
    ASSERT_TRUE(executor().Collect().ok());
  }
  const auto copies = [&](const std::vector<int32_t>& lanes,
                          const std::vector<BlockUpdate>& updates = {}) {
    rig_.deferring->copies = 0;
    EXPECT_TRUE(executor().Decode({.block_updates = updates, .lanes = lanes}).ok());
    return rig_.deferring->copies;
  };
  const BlockUpdate update = {.lane = 1, .group = 0, .logical = 23, .physical = 5};
  EXPECT_EQ(copies({0, 1, 2}), 2);  // the prefill had other rows, and updates
  EXPECT_EQ(copies({0, 1, 2}), 0);
  EXPECT_EQ(copies({0, 1}), 0);  // the last has left
  EXPECT_EQ(copies({1}), 1);
  EXPECT_EQ(copies({1}, {update}), 1);
  EXPECT_EQ(copies({1}), 1);  // no updates any more
  EXPECT_EQ(copies({1}), 0);
}

TEST_F(RunAheadTest, APromptIsBroughtInFewCopies) {
  ASSERT_TRUE(StartLane(0, 4).ok());
  rig_.deferring->copies = 0;
  ASSERT_TRUE(LaunchPrompt(0, 4).ok());
  // The rows' lanes and positions, the segments, the block updates, and of the head's row its
  // place, lane and position.
  EXPECT_EQ(rig_.deferring->copies, 2 + 1 + 1 + 3);
}

TEST_F(RunAheadTest, ALaneInFlightCannotBeStarted) {
  ASSERT_TRUE(StartLane(0, 5).ok());
  ASSERT_TRUE(StartLane(1, 5).ok());
  ASSERT_TRUE(LaunchPrompt(0, 5).ok());
  ASSERT_TRUE(LaunchPrompt(1, 5).ok());
  EXPECT_EQ(StartLane(0, 6).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(executor().Collect().ok());
  EXPECT_TRUE(StartLane(0, 6).ok());
  EXPECT_EQ(StartLane(1, 6).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(StartLane(2, 6).ok());
}

TEST_F(RunAheadTest, ARefusedStepLeavesNothingBehind) {
  ASSERT_TRUE(StartLane(0, 5).ok());
  const PrefillChunk chunk = {.lane = 0, .count = 5, .sample = true};
  const std::vector<int32_t> same = {0}, none;
  const BlockUpdate update = {};
  const struct {
    const char* expected;
    Step step;
  } kCases[] = {
      {"neither chunks nor lanes", {}},
      {"lane 0 is named twice", {.prefill = {.chunks = {&chunk, 1}}, .decode = {.lanes = same}}},
      {"of a prefill without chunks",
       {.prefill = {.block_updates = {&update, 1}}, .decode = {.lanes = same}}},
      {"of a decode without lanes",
       {.prefill = {.chunks = {&chunk, 1}}, .decode = {.block_updates = {&update, 1}}}},
  };
  for (const auto& c : kCases) {
    const absl::Status status = executor().Launch(c.step);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.expected));
    EXPECT_EQ(executor().in_flight(), 0);
  }
  EXPECT_TRUE(StartLane(0, 6).ok());
}

// More starts with arrays as long as the vocabulary than one area holds, before one launch: those
// that were first must not find the arrays of those that were last.
TEST_F(RunAheadTest, AnyNumberOfLanesStartsBeforeAStep) {
  const auto run = [](Rig& rig, bool alone) {
    std::vector<int32_t> tokens;
    RandomBlocks blocks(SmallOptions(), 3);
    std::vector<BlockUpdate> updates;
    std::vector<PrefillChunk> chunks;
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      const std::vector<int32_t> prompt = Prompt(6, lane);
      std::vector<int32_t> allowed;
      for (int32_t id = lane * 20; id < lane * 20 + 20; ++id) allowed.push_back(id);
      LaneStart start;
      start.lane = lane;
      start.state.length = start.prompt_length = 6;
      start.state.top_p = 1;
      start.state.repetition_penalty = 1.5f;
      start.state.flags = kLaneBias | kLanePenalties;
      start.tokens = prompt;
      start.allowed_ids = allowed;
      for (int repeat = 0; repeat < 3; ++repeat) {
        EXPECT_TRUE(rig.executor->StartLane(start).ok());
      }
      blocks.Grow(lane, 6, updates);
      chunks.push_back({.lane = lane, .count = 6, .sample = true});
      if (!alone && lane + 1 < kLanes) continue;
      const auto result = rig.executor->Prefill({.block_updates = updates, .chunks = chunks});
      EXPECT_TRUE(result.ok()) << result.status();
      if (!result.ok()) return tokens;
      for (const TokenScore& score : result->sampled) tokens.push_back(score.token_id);
      updates.clear();
      chunks.clear();
    }
    return tokens;
  };
  Rig alone(SmallOptions(), /*late=*/false);
  const std::vector<int32_t> expected = run(alone, true);
  ASSERT_EQ(expected.size(), 4u);
  for (int32_t lane = 0; lane < kLanes; ++lane) EXPECT_EQ(expected[lane] / 20, lane);
  EXPECT_EQ(run(rig_, false), expected);
}

TEST_F(RunAheadTest, BlockUpdatesOfBothPartsReachTheDeviceHoweverMany) {
  ASSERT_TRUE(StartLane(0, 5).ok());
  ASSERT_TRUE(LaunchPrompt(0, 5).ok());
  ASSERT_TRUE(executor().Collect().ok());
  ASSERT_TRUE(StartLane(1, 8).ok());
  // Wrong ones first, as often as takes several uploads; the last are right.
  const auto updates_of = [&](int32_t lane) {
    std::vector<BlockUpdate> right, updates;
    if (lane == 0) blocks_.Free(0);
    blocks_.Grow(lane, SmallOptions().max_length, right);
    for (int repeat = 0; repeat < 200; ++repeat) {
      for (BlockUpdate wrong : right) {
        wrong.physical = (wrong.physical + 1 + repeat) % SmallOptions().kv_blocks[0];
        updates.push_back(wrong);
      }
    }
    updates.insert(updates.end(), right.begin(), right.end());
    return updates;
  };
  const std::vector<BlockUpdate> prefill_updates = updates_of(1);
  ASSERT_GT(prefill_updates.size(), 2 * 4096u);
  const PrefillChunk chunk = {.lane = 1, .count = 8, .sample = true};
  ASSERT_TRUE(executor()
                  .Launch({.prefill = {.block_updates = prefill_updates, .chunks = {&chunk, 1}}})
                  .ok());
  std::vector<int32_t> tokens;
  for (int step = 0; step < 6; ++step) {
    ASSERT_TRUE(LaunchDecode({1}).ok());
    const absl::StatusOr<StepResult> result = executor().Collect();
    ASSERT_TRUE(result.ok()) << result.status();
    tokens.push_back(step == 0 ? result->prefill.sampled[0].token_id
                               : result->decode.sampled[0].token_id);
  }
  const Rig alone(SmallOptions(), /*late=*/false);
  TestSequence sequence;
  sequence.prompt = Prompt(8, 1);
  sequence.params.top_p = 1;
  sequence.params.repetition_penalty = 1;
  sequence.generate = 6;
  const absl::StatusOr<TestOutput> expected = RunAlone(*alone.executor, sequence);
  ASSERT_TRUE(expected.ok());
  EXPECT_EQ(tokens, expected->Tokens());
}

TEST_F(RunAheadTest, AFaultShowsWhenItsStepIsCollected) {
  ASSERT_TRUE(StartLane(0, 5).ok());
  ASSERT_TRUE(LaunchPrompt(0, 5).ok());
  ASSERT_TRUE(LaunchDecode({0}).ok());
  ASSERT_TRUE(executor().Collect().ok());
  rig_.deferring->BreakAfter(0);
  ASSERT_TRUE(LaunchDecode({0}).ok());
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = executor().Collect().status();
    EXPECT_EQ(status.message(), "the deferring device broke");
  }
  rig_.executor.reset();  // with steps in flight
}

}  // namespace
}  // namespace sirocco
