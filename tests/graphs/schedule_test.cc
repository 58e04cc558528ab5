// What must not show: the mode's graphs, the batch, the lane, the blocks, the chunks, the threads.
#include "tests/graphs/schedule.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

ExecutorOptions SmallOptions(Mode mode, DType kv_dtype) {
  ExecutorOptions options;
  options.mode = mode;
  options.max_batch_size = 6;
  options.max_length = 128;
  options.prefill_chunk_size = 40;
  options.block_size = 8;
  options.kv_blocks = {6 * 16 + 3, 6 * 16 + 9};
  options.kv_dtype = kv_dtype;
  options.keep_logits = true;
  return options;
}

// A device, a model on it and an executor.
struct Rig {
  Rig(ExecutorOptions options, DType dtype, int threads, RandomNorms norms = RandomNorms::kFew) {
    absl::StatusOr<std::unique_ptr<Device>> made = CreateCpuDevice(threads);
    EXPECT_TRUE(made.ok()) << made.status();
    if (!made.ok()) return;
    device = *std::move(made);
    absl::StatusOr<RandomModel> random = MakeRandomModel(*device, dtype, 5, norms);
    EXPECT_TRUE(random.ok()) << random.status();
    if (!random.ok()) return;
    model = *std::move(random);
    absl::StatusOr<std::unique_ptr<Executor>> created =
        Executor::Create(*device, model.descriptor, model.weights, options);
    EXPECT_TRUE(created.ok()) << created.status();
    if (created.ok()) executor = *std::move(created);
  }

  std::unique_ptr<Device> device;
  RandomModel model;
  std::unique_ptr<Executor> executor;
};

// Each sequence alone, eager, on one thread: what all else is compared with.
const std::vector<TestOutput>& Reference(const std::vector<TestSequence>& sequences, DType dtype,
                                         RandomNorms norms) {
  static auto& references = *new std::map<std::pair<DType, RandomNorms>, std::vector<TestOutput>>;
  std::vector<TestOutput>& outputs = references[{dtype, norms}];
  if (outputs.empty()) {
    const Rig rig(SmallOptions(Mode::kEager, dtype), dtype, 1, norms);
    for (const TestSequence& sequence : sequences) {
      absl::StatusOr<TestOutput> output = RunAlone(*rig.executor, sequence);
      EXPECT_TRUE(output.ok()) << output.status();
      outputs.push_back(output.ok() ? *std::move(output) : TestOutput{});
    }
  }
  return outputs;
}

using Parameters = std::tuple<Mode, DType, int, RandomNorms>;

class ScheduleTest : public ::testing::TestWithParam<Parameters> {};

std::string NameOfParameters(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [mode, dtype, threads, norms] = info.param;
  return std::string(NameOf(mode)) + "_" + std::string(NameOf(dtype)) + "_" +
         std::to_string(threads) + (norms == RandomNorms::kAll ? "_norms" : "");
}

INSTANTIATE_TEST_SUITE_P(All, ScheduleTest,
                         ::testing::Combine(::testing::ValuesIn(kAllModes),
                                            ::testing::Values(DType::kFloat32, DType::kBFloat16),
                                            ::testing::Values(1, 2, 3),
                                            ::testing::Values(RandomNorms::kFew)),
                         NameOfParameters);
INSTANTIATE_TEST_SUITE_P(Norms, ScheduleTest,
                         ::testing::Combine(::testing::ValuesIn(kAllModes),
                                            ::testing::Values(DType::kFloat32, DType::kBFloat16),
                                            ::testing::Values(1, 2),
                                            ::testing::Values(RandomNorms::kAll)),
                         NameOfParameters);

TEST_P(ScheduleTest, EachSequenceIsAsItWouldBeAlone) {
  const auto& [mode, dtype, threads, norms] = GetParam();
  const std::vector<TestSequence> sequences = RandomSequences(14, 131, 3);
  const std::vector<TestOutput>& reference = Reference(sequences, dtype, norms);
  const Rig rig(SmallOptions(mode, dtype), dtype, threads, norms);
  ASSERT_NE(rig.executor, nullptr);
  const uint64_t plans = rig.executor->stats().plan_builds;
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    const absl::StatusOr<std::vector<TestOutput>> outputs =
        RunSchedule(*rig.executor, sequences, seed);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    for (size_t i = 0; i < sequences.size(); ++i) {
      EXPECT_EQ((*outputs)[i].Tokens(), reference[i].Tokens()) << "sequence " << i;
      EXPECT_TRUE(SameBits((*outputs)[i], reference[i])) << "sequence " << i;
    }
  }
  EXPECT_EQ(rig.executor->stats().plan_builds, plans);
  EXPECT_EQ(rig.executor->stats().decode_allocations, 0u);
}

// The sequences would not be much of a test if they all said the same.
TEST(ScheduleInputTest, SequencesDiffer) {
  for (const RandomNorms norms : {RandomNorms::kFew, RandomNorms::kAll}) {
    const std::vector<TestOutput>& reference =
        Reference(RandomSequences(14, 131, 3), DType::kFloat32, norms);
    std::map<std::vector<int32_t>, int> seen;
    for (const TestOutput& output : reference) {
      ++seen[output.Tokens()];
      std::map<int32_t, int> ids;
      for (const int32_t id : output.Tokens()) ++ids[id];
      EXPECT_GT(ids.size(), 3u);
    }
    EXPECT_EQ(seen.size(), reference.size());
  }
}

// One graph serves every length: past several splits of the attention and the whole window.
TEST(LengthTest, GraphsAndTheirTwinsAgreeWhileASequenceGrows) {
  const std::pair<DType, RandomNorms> kCases[] = {{DType::kFloat32, RandomNorms::kFew},
                                                  {DType::kBFloat16, RandomNorms::kFew},
                                                  {DType::kBFloat16, RandomNorms::kAll}};
  for (const auto& [dtype, norms] : kCases) {
    TestOutput eager;
    for (const Mode mode : kAllModes) {
      ExecutorOptions options = SmallOptions(mode, dtype);
      options.max_batch_size = 2;
      options.max_length = 600;
      options.kv_blocks = {80, 80};
      const Rig rig(options, dtype, 2, norms);
      ASSERT_NE(rig.executor, nullptr);
      TestSequence sequence = RandomSequences(1, 131, 9)[0];
      sequence.generate = 600 - static_cast<int32_t>(sequence.prompt.size());
      const absl::StatusOr<TestOutput> output = RunAlone(*rig.executor, sequence);
      ASSERT_TRUE(output.ok()) << output.status();
      if (mode == Mode::kEager) eager = *output;
      EXPECT_TRUE(SameBits(*output, eager)) << NameOf(mode);
      EXPECT_EQ(rig.executor->stats().replays[1],
                UsesGraphs(mode) ? static_cast<uint64_t>(sequence.generate - 1) : 0u);
    }
  }
}

// Prompt scores do not depend on how the prompt was cut either.
TEST(ScoreTest, PromptScoresAreTheSameInAnyChunks) {
  const std::vector<int32_t> prompt = RandomSequences(3, 131, 21)[2].prompt;
  const int32_t length = static_cast<int32_t>(prompt.size());
  ASSERT_GT(length, 8);
  std::vector<TokenScore> whole;
  for (const int32_t chunk_size : {40, 7, 1}) {
    const Rig rig(SmallOptions(Mode::kEager, DType::kFloat32), DType::kFloat32, 2);
    ASSERT_NE(rig.executor, nullptr);
    RandomBlocks blocks(rig.executor->options(), 4);
    LaneStart start;
    start.lane = 3;
    start.state.length = start.prompt_length = length;
    start.tokens = prompt;
    ASSERT_TRUE(rig.executor->StartLane(start).ok());
    std::vector<TokenScore> scores;
    for (int32_t done = 0; done < length; done += chunk_size) {
      PrefillChunk chunk = {.lane = 3, .first_position = done, .score_top = 20};
      chunk.count = std::min(chunk_size, length - done);
      chunk.score_count = std::min(chunk.count, length - done - 1);
      std::vector<BlockUpdate> updates;
      blocks.Grow(3, done + chunk.count, updates);
      const absl::StatusOr<PrefillResult> result =
          rig.executor->Prefill({.block_updates = updates, .chunks = {&chunk, 1}});
      ASSERT_TRUE(result.ok()) << result.status();
      scores.insert(scores.end(), result->scored.begin(), result->scored.end());
    }
    ASSERT_EQ(scores.size(), static_cast<size_t>(length - 1));
    for (int32_t i = 0; i + 1 < length; ++i) EXPECT_EQ(scores[i].token_id, prompt[i + 1]);
    if (whole.empty()) whole = scores;
    EXPECT_TRUE(SameBits({.scores = scores, .logits = {}}, {.scores = whole, .logits = {}}))
        << chunk_size;
  }
}

}  // namespace
}  // namespace sirocco
