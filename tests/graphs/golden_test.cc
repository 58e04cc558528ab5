// The modes against the reference answers of tests/goldens, by the tolerances of its README.
#include "tests/testing/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "engine/model/model_files.h"
#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/graphs/schedule.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

constexpr float kLogprobTolerance = 2e-3f;
constexpr float kGreedyMargin = 5e-3f;
constexpr double kBFloat16Median = 1.2e-2;
constexpr double kBFloat16Largest = 4e-2;
constexpr float kBFloat16Margin = 0.15f;

using Tokens = std::vector<int32_t>;
using Logits = std::vector<std::vector<float>>;  // [position][vocab]

// A golden's model on the CPU, in one mode and type.
struct Rig {
  Rig(const std::string& name, Mode mode, DType dtype) {
    absl::StatusOr<std::unique_ptr<Device>> made = CreateCpuDevice(2);
    EXPECT_TRUE(made.ok()) << made.status();
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

std::vector<double> Logprobs(std::span<const float> logits) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  std::vector<double> logprobs;
  for (const float logit : logits) logprobs.push_back(logit - highest - std::log(sum));
  return logprobs;
}

std::span<const float> PromptLogits(const Golden& golden, size_t i, size_t position) {
  return std::span<const float>(golden.logits[i])
      .subspan(position * golden.vocab_size, golden.vocab_size);
}

double LargestLogprobError(std::span<const float> given, std::span<const float> reference) {
  const std::vector<double> a = Logprobs(given);
  const std::vector<double> b = Logprobs(reference);
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
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

class GoldenTest : public ::testing::TestWithParam<std::tuple<const char*, Mode>> {
 protected:
  void SetUp() override {
    absl::StatusOr<Golden> golden =
        ReadGolden(GoldenPath(std::string(Name()) + "/expected.safetensors"));
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
    ASSERT_FALSE(golden_.prompts.empty());
  }

  std::string Name() const { return std::get<0>(GetParam()); }
  static Mode TheMode() { return std::get<1>(GetParam()); }

  Golden golden_;
};

INSTANTIATE_TEST_SUITE_P(
    Goldens, GoldenTest,
    ::testing::Combine(::testing::Values("llama_tied", "llama3_rope", "qwen2", "qwen3", "gemma3"),
                       ::testing::Values(Mode::kEager, Mode::kDecoderGraph, Mode::kDecoder,
                                         Mode::kLayerGraph, Mode::kLayer)),
    [](const auto& info) {
      return std::string(std::get<0>(info.param)) + "_" +
             std::string(NameOf(std::get<1>(info.param)));
    });

TEST_P(GoldenTest, Float32LogprobsByDecoding) {
  const Rig rig(Name(), TheMode(), DType::kFloat32);
  ASSERT_NE(rig.executor, nullptr);
  const absl::StatusOr<std::vector<Logits>> logits =
      ForceByDecoding(*rig.executor, golden_.prompts);
  ASSERT_TRUE(logits.ok()) << logits.status();
  for (size_t i = 0; i < golden_.prompts.size(); ++i) {
    ExpectPromptLogprobs(golden_, i, (*logits)[i]);
  }
}

TEST_P(GoldenTest, Float32LogprobsByPrefill) {
  const Rig rig(Name(), TheMode(), DType::kFloat32);
  ASSERT_NE(rig.executor, nullptr);
  for (size_t i = 0; i < golden_.prompts.size(); ++i) {
    const absl::StatusOr<Logits> logits = ForceByPrefill(*rig.executor, golden_.prompts[i]);
    ASSERT_TRUE(logits.ok()) << logits.status();
    ExpectPromptLogprobs(golden_, i, *logits);
  }
}

TEST_P(GoldenTest, Float32PromptScores) {
  const Rig rig(Name(), TheMode(), DType::kFloat32);
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
  const Rig rig(Name(), TheMode(), DType::kFloat32);
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

double RelativeError(std::span<const float> given, std::span<const float> reference) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < given.size(); ++i) {
    error += std::pow(static_cast<double>(given[i]) - reference[i], 2);
    norm += std::pow(static_cast<double>(reference[i]), 2);
  }
  return std::sqrt(error / norm);
}

float Margin(std::span<const float> logits) {
  std::vector<float> sorted(logits.begin(), logits.end());
  std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
  return sorted[0] - sorted[1];
}

size_t Best(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

TEST_P(GoldenTest, BFloat16ByTeacherForcing) {
  const std::vector<Tokens> sequences = FullSequences(golden_);
  // The reference past the prompts: the CPU backend in float32.
  const Rig reference_rig(Name(), Mode::kEager, DType::kFloat32);
  ASSERT_NE(reference_rig.executor, nullptr);
  const absl::StatusOr<std::vector<Logits>> reference =
      ForceByDecoding(*reference_rig.executor, sequences);
  ASSERT_TRUE(reference.ok()) << reference.status();

  const Rig rig(Name(), TheMode(), DType::kBFloat16);
  ASSERT_NE(rig.executor, nullptr);
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
      if (Margin(expected) < kBFloat16Margin) continue;
      EXPECT_EQ(Best(given), Best(expected)) << "prompt " << i << " position " << p;
      ++compared;
    }
  }
  EXPECT_GT(compared, 20);
  std::sort(errors.begin(), errors.end());
  EXPECT_LT(errors[errors.size() / 2], kBFloat16Median);
  EXPECT_LT(errors.back(), kBFloat16Largest);
  EXPECT_GT(errors.back(), 0);  // bfloat16 was really on
}

}  // namespace
}  // namespace sirocco
