// Every device's modes and types against the reference answers of tests/goldens, by the tolerances
// of its README.
#include "tests/testing/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/model/model_files.h"
#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/graphs/schedule.h"
#include "tests/kernels/devices.h"
#include "tests/testing/paths.h"
#include "tests/testing/tolerance.h"

namespace sirocco {
namespace {

using Tokens = std::vector<int32_t>;
using Logits = std::vector<std::vector<float>>;  // [position][vocab]

// A golden's model on a device, in one mode and type.
struct Rig {
  Rig(absl::StatusOr<std::unique_ptr<Device>> made, const std::string& name, Mode mode,
      DType dtype) {
    EXPECT_TRUE(made.ok()) << made.status();
    if (!made.ok()) return;
    device = *std::move(made);
    absl::StatusOr<ModelFiles> opened = OpenModel(GoldenPath(name));
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) return;
    files = *std::move(opened);
    absl::StatusOr<ModelWeights> loaded = LoadWeights(files, dtype, *device, nullptr);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    if (!loaded.ok()) return;
    weights = *std::move(loaded);
    ExecutorOptions options;
    options.mode = mode;
    options.max_batch_size = 4;
    options.max_length = 128;
    options.prefill_chunk_size = 128;
    options.kv_blocks.assign(files.descriptor.groups.size(), 4 * 8);
    options.kv_dtype = dtype;
    options.activation_dtype = device->ActivationDType(dtype);
    options.keep_logits = true;
    absl::StatusOr<std::unique_ptr<Executor>> created =
        Executor::Create(*device, files.descriptor, weights, options);
    EXPECT_TRUE(created.ok()) << created.status();
    if (created.ok()) executor = *std::move(created);
  }

  std::unique_ptr<Device> device;
  ModelFiles files;
  ModelWeights weights;
  std::unique_ptr<Executor> executor;
};

absl::Status StartWith(Executor& executor, int32_t lane, const Tokens& tokens, int32_t count) {
  LaneStart start;
  start.lane = lane;
  start.state.length = start.prompt_length = count;
  start.state.top_p = 1;
  start.state.repetition_penalty = 1;
  start.tokens = std::span<const int32_t>(tokens).first(count);
  return executor.StartLane(start);
}

// Every position's logits by decode steps on given tokens: before each step the lane is set to
// the tokens so far, so that the step continues them and not what it sampled. All sequences go in
// one batch, which shrinks as they end.
absl::StatusOr<std::vector<Logits>> ForceByDecoding(Executor& executor,
                                                    const std::vector<Tokens>& sequences) {
  RandomBlocks blocks(executor.options(), 6);
  std::vector<Logits> logits(sequences.size());
  for (int32_t position = 0;; ++position) {
    Tokens lanes;
    std::vector<BlockUpdate> updates;
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (position >= static_cast<int32_t>(sequences[i].size())) continue;
      const int32_t lane = static_cast<int32_t>(i);
      absl::Status status = StartWith(executor, lane, sequences[i], position + 1);
      if (!status.ok()) return status;
      blocks.Grow(lane, position + 1, updates);
      lanes.push_back(lane);
    }
    if (lanes.empty()) return logits;
    absl::StatusOr<DecodeResult> result =
        executor.Decode({.block_updates = updates, .lanes = lanes});
    if (!result.ok()) return result.status();
    for (size_t row = 0; row < lanes.size(); ++row) {
      absl::StatusOr<std::span<const float>> kept = executor.KeptLogits(static_cast<int>(row));
      if (!kept.ok()) return kept.status();
      logits[lanes[row]].emplace_back(kept->begin(), kept->end());
    }
  }
}

// Every position's logits by a prefill of all tokens up to it, one sequence.
absl::StatusOr<Logits> ForceByPrefill(Executor& executor, const Tokens& tokens) {
  RandomBlocks blocks(executor.options(), 7);
  Logits logits;
  for (int32_t count = 1; count <= static_cast<int32_t>(tokens.size()); ++count) {
    absl::Status status = StartWith(executor, 1, tokens, count);
    if (!status.ok()) return status;
    std::vector<BlockUpdate> updates;
    blocks.Grow(1, count, updates);
    const PrefillChunk chunk = {.lane = 1, .first_position = 0, .count = count, .sample = true};
    absl::StatusOr<PrefillResult> result =
        executor.Prefill({.block_updates = updates, .chunks = {&chunk, 1}});
    if (!result.ok()) return result.status();
    absl::StatusOr<std::span<const float>> kept = executor.KeptLogits(0);
    if (!kept.ok()) return kept.status();
    logits.emplace_back(kept->begin(), kept->end());
  }
  return logits;
}

std::span<const float> PromptLogits(const Golden& golden, size_t i, size_t position) {
  return std::span<const float>(golden.logits[i])
      .subspan(position * golden.vocab_size, golden.vocab_size);
}

void ExpectPromptLogprobs(const Golden& golden, size_t i, const Logits& logits) {
  ASSERT_GE(logits.size(), golden.prompts[i].size());
  for (size_t p = 0; p < golden.prompts[i].size(); ++p) {
    EXPECT_LT(LargestLogprobError(logits[p], PromptLogits(golden, i, p)), kLogprobTolerance)
        << "prompt " << i << " position " << p;
  }
}

// The prompts with what was generated after them.
std::vector<Tokens> FullSequences(const Golden& golden) {
  std::vector<Tokens> sequences;
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    Tokens& tokens = sequences.emplace_back(golden.prompts[i]);
    tokens.insert(tokens.end(), golden.greedy[i].begin(), golden.greedy[i].end() - 1);
  }
  return sequences;
}

using Parameters = std::tuple<TypedCase, const char*, Mode>;

class GoldenTest : public ::testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    absl::StatusOr<Golden> golden = ReadGolden(GoldenPath(Name() + "/expected.safetensors"));
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
    ASSERT_FALSE(golden_.prompts.empty());
  }

  static const TypedCase& TheCase() { return std::get<0>(GetParam()); }
  static std::string Name() { return std::get<1>(GetParam()); }
  static Mode TheMode() { return std::get<2>(GetParam()); }
  static Rig TheRig() { return Rig(TheCase().device.create(), Name(), TheMode(), TheCase().dtype); }

  Golden golden_;
};

// The cases of float32, or those of lower precisions.
std::vector<TypedCase> Cases(bool float32) {
  std::vector<TypedCase> cases;
  for (const TypedCase& typed : TypedCases()) {
    if ((typed.dtype == DType::kFloat32) == float32) cases.push_back(typed);
  }
  return cases;
}

auto OfAllModels(bool float32) {
  return ::testing::Combine(
      ::testing::ValuesIn(Cases(float32)),
      ::testing::Values("llama_tied", "llama3_rope", "qwen2", "qwen3", "gemma3"),
      ::testing::ValuesIn(kAllModes));
}

std::string NameOfParameters(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [typed, name, mode] = info.param;
  return CaseName(typed) + "_" + name + "_" + std::string(NameOf(mode));
}

INSTANTIATE_TEST_SUITE_P(Float32, GoldenTest, OfAllModels(true), NameOfParameters);

class LowerPrecisionTest : public GoldenTest {};

INSTANTIATE_TEST_SUITE_P(LowerPrecisions, LowerPrecisionTest, OfAllModels(false), NameOfParameters);

TEST_P(GoldenTest, Float32LogprobsByDecoding) {
  const Rig rig = TheRig();
  ASSERT_NE(rig.executor, nullptr);
  const absl::StatusOr<std::vector<Logits>> logits =
      ForceByDecoding(*rig.executor, golden_.prompts);
  ASSERT_TRUE(logits.ok()) << logits.status();
  for (size_t i = 0; i < golden_.prompts.size(); ++i) {
    ExpectPromptLogprobs(golden_, i, (*logits)[i]);
  }
}

TEST_P(GoldenTest, Float32LogprobsByPrefill) {
  const Rig rig = TheRig();
  ASSERT_NE(rig.executor, nullptr);
  for (size_t i = 0; i < golden_.prompts.size(); ++i) {
    const absl::StatusOr<Logits> logits = ForceByPrefill(*rig.executor, golden_.prompts[i]);
    ASSERT_TRUE(logits.ok()) << logits.status();
    ExpectPromptLogprobs(golden_, i, *logits);
  }
}

TEST_P(GoldenTest, Float32PromptScores) {
  const Rig rig = TheRig();
  ASSERT_NE(rig.executor, nullptr);
  for (size_t i = 0; i < golden_.prompts.size(); ++i) {
    const Tokens& prompt = golden_.prompts[i];
    const int32_t length = static_cast<int32_t>(prompt.size());
    ASSERT_TRUE(StartWith(*rig.executor, 2, prompt, length).ok());
    RandomBlocks blocks(rig.executor->options(), 3);
    std::vector<BlockUpdate> updates;
    blocks.Grow(2, length, updates);
    const PrefillChunk chunk = {.lane = 2,
                                .first_position = 0,
                                .count = length,
                                .sample = false,
                                .score_count = length - 1,
                                .score_top = kMaxTopLogprobs};
    const absl::StatusOr<PrefillResult> result =
        rig.executor->Prefill({.block_updates = updates, .chunks = {&chunk, 1}});
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->scored.size(), static_cast<size_t>(length - 1));
    for (int32_t p = 0; p + 1 < length; ++p) {
      const TokenScore& score = result->scored[p];
      const std::vector<double> reference = Logprobs(PromptLogits(golden_, i, p));
      EXPECT_EQ(score.token_id, prompt[p + 1]);
      EXPECT_NEAR(score.logprob, reference[prompt[p + 1]], kLogprobTolerance);
      // Within the tolerance of a tie, ids may change places; logprobs by place may not.
      std::vector<double> sorted = reference;
      std::sort(sorted.rbegin(), sorted.rend());
      ASSERT_EQ(score.top_count, kMaxTopLogprobs);
      for (int32_t t = 0; t < kMaxTopLogprobs; ++t) {
        EXPECT_NEAR(score.top_logprobs[t], sorted[t], kLogprobTolerance);
        EXPECT_NEAR(score.top_logprobs[t], reference[score.top_ids[t]], kLogprobTolerance);
      }
      ASSERT_GE(score.rank, 1);
      ASSERT_LE(score.rank, golden_.vocab_size);
      EXPECT_NEAR(sorted[score.rank - 1], reference[prompt[p + 1]], 2 * kLogprobTolerance);
    }
  }
}

TEST_P(GoldenTest, Float32Greedy) {
  const Rig rig = TheRig();
  ASSERT_NE(rig.executor, nullptr);
  int compared = 0;
  for (size_t i = 0; i < golden_.prompts.size(); ++i) {
    TestSequence sequence;
    sequence.prompt = golden_.prompts[i];
    sequence.params.top_p = 1;
    sequence.params.repetition_penalty = 1;
    sequence.generate = static_cast<int32_t>(golden_.greedy[i].size());
    const absl::StatusOr<TestOutput> output = RunAlone(*rig.executor, sequence);
    ASSERT_TRUE(output.ok()) << output.status();
    const Tokens tokens = output->Tokens();
    for (size_t t = 0; t < tokens.size() && golden_.margins[i][t] >= kGreedyMargin; ++t) {
      EXPECT_EQ(tokens[t], golden_.greedy[i][t]) << "prompt " << i << " token " << t;
      ++compared;
    }
  }
  EXPECT_GT(compared, 20);
}

TEST_P(LowerPrecisionTest, IsWithinToleranceByTeacherForcing) {
  const std::vector<Tokens> sequences = FullSequences(golden_);
  // The reference past the prompts: the CPU backend in float32.
  const Rig reference_rig(CreateCpuDevice(2), Name(), Mode::kEager, DType::kFloat32);
  ASSERT_NE(reference_rig.executor, nullptr);
  const absl::StatusOr<std::vector<Logits>> reference =
      ForceByDecoding(*reference_rig.executor, sequences);
  ASSERT_TRUE(reference.ok()) << reference.status();

  const Rig rig = TheRig();
  ASSERT_NE(rig.executor, nullptr);
  const Tolerance tolerance =
      ToleranceOf(TheCase().dtype, rig.executor->options().activation_dtype);
  const absl::StatusOr<std::vector<Logits>> decoded = ForceByDecoding(*rig.executor, sequences);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  std::vector<double> errors;
  int compared = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (size_t p = 0; p < sequences[i].size(); ++p) {
      const std::span<const float> expected = p < golden_.prompts[i].size()
                                                  ? PromptLogits(golden_, i, p)
                                                  : std::span<const float>((*reference)[i][p]);
      const std::vector<float>& given = (*decoded)[i][p];
      errors.push_back(RelativeError(given, expected));
      if (Margin(expected) < tolerance.margin) continue;
      EXPECT_EQ(Best(given), Best(expected)) << "prompt " << i << " position " << p;
      ++compared;
    }
  }
  EXPECT_GT(compared, 20);
  std::sort(errors.begin(), errors.end());
  EXPECT_LT(errors[errors.size() / 2], tolerance.median);
  EXPECT_LT(errors.back(), tolerance.largest);
  EXPECT_GT(errors.back(), 0);  // the lower precision was really on
}

}  // namespace
}  // namespace sirocco
