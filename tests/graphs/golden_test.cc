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

#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/graphs/golden_rig.h"
#include "tests/graphs/schedule.h"
#include "tests/kernels/devices.h"
#include "tests/testing/paths.h"
#include "tests/testing/tolerance.h"

namespace sirocco {
namespace {

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
  // `choices` of experts: a near tie's may flip below float32, and all later positions with it.
  static GoldenRig TheRig(const std::vector<int32_t>& choices = {}) {
    return {TheCase().device.create(),
            GoldenPath(Name()),
            TheMode(),
            TheCase().dtype,
            false,
            choices,
            TheCase().kv};
  }

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
      ::testing::Values("llama_tied", "llama3_rope", "mistral_window", "qwen2", "qwen2_yarn",
                        "qwen3", "gemma", "gemma2", "gemma3", "phi3", "phi3_short", "phi4_mini",
                        "granite", "smollm3", "olmo2", "mixtral", "qwen3_moe"),
      ::testing::ValuesIn(kAllModes));
}

std::string NameOfParameters(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [typed, name, mode] = info.param;
  return CaseName(typed) + "_" + name + "_" + std::string(NameOf(mode));
}

INSTANTIATE_TEST_SUITE_P(Float32, GoldenTest, OfAllModels(true), NameOfParameters);

class LowerPrecisionTest : public GoldenTest {};

INSTANTIATE_TEST_SUITE_P(LowerPrecisions, LowerPrecisionTest, OfAllModels(false), NameOfParameters);

INSTANTIATE_TEST_SUITE_P(
    Float8, LowerPrecisionTest,
    ::testing::Combine(::testing::ValuesIn(Float8Cases()),
                       ::testing::Values("llama_tied", "mistral_window", "qwen2", "gemma3"),
                       ::testing::Values(Mode::kEager, Mode::kDecoderGraph, Mode::kLayerGraph)),
    NameOfParameters);

TEST_P(GoldenTest, Float32LogprobsByDecoding) {
  const GoldenRig rig = TheRig();
  ASSERT_NE(rig.executor, nullptr);
  const absl::StatusOr<std::vector<Logits>> logits =
      ForceByDecoding(*rig.executor, golden_.prompts);
  ASSERT_TRUE(logits.ok()) << logits.status();
  for (size_t i = 0; i < golden_.prompts.size(); ++i) {
    ExpectPromptLogprobs(golden_, i, (*logits)[i]);
  }
}

TEST_P(GoldenTest, Float32LogprobsByPrefill) {
  const GoldenRig rig = TheRig();
  ASSERT_NE(rig.executor, nullptr);
  for (size_t i = 0; i < golden_.prompts.size(); ++i) {
    const absl::StatusOr<Logits> logits = ForceByPrefill(*rig.executor, golden_.prompts[i]);
    ASSERT_TRUE(logits.ok()) << logits.status();
    ExpectPromptLogprobs(golden_, i, *logits);
  }
}

TEST_P(GoldenTest, Float32PromptScores) {
  const GoldenRig rig = TheRig();
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
  const GoldenRig rig = TheRig();
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
  const GoldenRig reference_rig(CreateCpuDevice(2), GoldenPath(Name()), Mode::kEager,
                                DType::kFloat32);
  ASSERT_NE(reference_rig.executor, nullptr);
  const absl::StatusOr<std::vector<Logits>> reference =
      ForceByDecoding(*reference_rig.executor, sequences);
  ASSERT_TRUE(reference.ok()) << reference.status();

  const GoldenRig rig = TheRig(reference_rig.Choices());
  ASSERT_NE(rig.executor, nullptr);
  const Tolerance tolerance =
      TheCase().kv == DType::kFloat8
          ? kFloat8KvTolerance
          : ToleranceOf(TheCase().dtype, rig.executor->options().activation_dtype);
  const absl::StatusOr<std::vector<Logits>> decoded = ForceByDecoding(*rig.executor, sequences);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  std::vector<double> errors;
  const bool with_ids = tolerance.margin > 0;
  int compared = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (size_t p = 0; p < sequences[i].size(); ++p) {
      const std::span<const float> expected = p < golden_.prompts[i].size()
                                                  ? PromptLogits(golden_, i, p)
                                                  : std::span<const float>((*reference)[i][p]);
      const std::vector<float>& given = (*decoded)[i][p];
      errors.push_back(RelativeError(given, expected));
      if (!with_ids || Margin(expected) < tolerance.margin) continue;
      EXPECT_EQ(Best(given), Best(expected)) << "prompt " << i << " position " << p;
      ++compared;
    }
  }
  if (with_ids) {
    EXPECT_GT(compared, 20);
  }
  std::sort(errors.begin(), errors.end());
  EXPECT_LT(errors[errors.size() / 2], tolerance.median);
  EXPECT_LT(errors.back(), tolerance.largest);
  EXPECT_GT(errors.back(), 0);  // the lower precision was really on
}

}  // namespace
}  // namespace sirocco
