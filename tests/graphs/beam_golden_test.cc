// Beam searches of a whole engine, in every mode and on every device, against what transformers
// answers (tests/goldens/beams): all at once, beside each other and beside greedy requests.
#include "tests/testing/beam_golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/client.h"
#include "tests/engine/counting_observer.h"
#include "tests/graphs/golden_rig.h"
#include "tests/kernels/devices.h"
#include "tests/testing/golden.h"
#include "tests/testing/paths.h"
#include "tests/testing/tolerance.h"

namespace sirocco {
namespace {

using Parameters = std::tuple<TypedCase, const char*, Mode>;

std::vector<TypedCase> Float32Cases() {
  std::vector<TypedCase> cases;
  for (const TypedCase& typed : TypedCases()) {
    if (typed.dtype == DType::kFloat32) cases.push_back(typed);
  }
  return cases;
}

Request ToRequest(const BeamGolden& golden) {
  Request request;
  request.prompt = golden.prompt;
  request.max_new_tokens = golden.max_new_tokens;
  request.n = static_cast<int32_t>(golden.answers.size());
  request.beam = BeamOptions{.num_beams = golden.num_beams,
                             .length_penalty = golden.length_penalty,
                             .early_stopping = golden.early_stopping};
  request.stop.ignore_eos = true;
  request.stop.token_ids = golden.ends;
  request.sampling.min_new_tokens = golden.min_new_tokens;
  request.sampling.repetition_penalty = golden.repetition_penalty;
  request.sampling.no_repeat_ngram_size = golden.no_repeat_ngram_size;
  request.sampling.banned_token_ids = golden.banned;
  return request;
}

class BeamGoldenTest : public ::testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    const auto& [typed, name, mode] = GetParam();
    auto goldens = ReadBeamGoldens(GoldenPath("beams/" + std::string(name) + ".json"));
    ASSERT_TRUE(goldens.ok()) << goldens.status();
    goldens_ = *std::move(goldens);
    ASSERT_GE(goldens_.size(), 8u);
    rig_ = std::make_unique<GoldenRig>(typed.device.create(), GoldenPath(name), mode, typed.dtype);
    ASSERT_NE(rig_->executor, nullptr);
    auto engine =
        Engine::Start(std::move(rig_->executor), /*tokenizer=*/nullptr, &observer_,
                      {.prefill_chunk_size = 64, .groups = rig_->files.descriptor.groups});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  std::unique_ptr<Client> Submit(Request request) {
    auto client = Client::Submit(*engine_, std::move(request));
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }

  static void ExpectAnswers(Client& client, const BeamGolden& golden) {
    ASSERT_TRUE(client.Wait());
    const Client::Output output = client.output();
    ASSERT_TRUE(output.end.status.ok()) << output.end.status;
    ASSERT_EQ(output.sequences.size(), golden.answers.size());
    for (const auto& [index, sequence] : output.sequences) {
      const BeamGolden::Answer& answer = golden.answers[index];
      EXPECT_EQ(sequence.token_ids, answer.ids) << "answer " << index;
      if (sequence.logprobs.empty()) continue;
      const double score =
          sequence.cumulative_logprob / std::pow(sequence.token_ids.size(), golden.length_penalty);
      EXPECT_NEAR(score, answer.score, kLogprobTolerance * std::max(1.0, std::abs(answer.score)));
    }
  }

  std::vector<BeamGolden> goldens_;
  CountingObserver observer_;
  std::unique_ptr<GoldenRig> rig_;  // has what the engine's executor runs on
  std::unique_ptr<Engine> engine_;
};

std::string NameOfParameters(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [typed, name, mode] = info.param;
  return CaseName(typed) + "_" + name + "_" + std::string(NameOf(mode));
}

INSTANTIATE_TEST_SUITE_P(Float32, BeamGoldenTest,
                         ::testing::Combine(::testing::ValuesIn(Float32Cases()),
                                            ::testing::Values("llama_tied", "mistral_window",
                                                              "gemma3", "qwen3"),
                                            ::testing::ValuesIn(kAllModes)),
                         NameOfParameters);

TEST_P(BeamGoldenTest, AnswersAsTransformers) {
  const auto greedy =
      ReadGolden(GoldenPath(std::string(std::get<1>(GetParam())) + "/expected.safetensors"));
  ASSERT_TRUE(greedy.ok()) << greedy.status();
  std::vector<std::unique_ptr<Client>> searches, others;
  for (size_t i = 0; i < goldens_.size(); ++i) {
    Request request = ToRequest(goldens_[i]);
    // What is reported is of raw logits: scores, where no option changes these.
    if (!ChangesLogits(request.sampling)) request.logprobs = LogprobOptions{.top = 2};
    searches.push_back(Submit(std::move(request)));
    Request other;
    other.prompt = greedy->prompts[i % greedy->prompts.size()];
    other.max_new_tokens = static_cast<int32_t>(greedy->greedy[0].size());
    other.stop.ignore_eos = true;
    others.push_back(Submit(std::move(other)));
  }
  for (size_t i = 0; i < goldens_.size(); ++i) {
    SCOPED_TRACE("search " + std::to_string(i));
    ASSERT_NE(searches[i], nullptr);
    ExpectAnswers(*searches[i], goldens_[i]);
  }
  int compared = 0;
  for (size_t i = 0; i < others.size(); ++i) {
    ASSERT_TRUE(others[i] != nullptr && others[i]->Wait());
    const Client::Output output = others[i]->output();
    ASSERT_TRUE(output.end.status.ok()) << output.end.status;
    const std::vector<int32_t>& tokens = output.sequences.at(0).token_ids;
    const size_t golden = i % greedy->prompts.size();
    ASSERT_EQ(tokens.size(), greedy->greedy[golden].size());
    for (size_t t = 0; t < tokens.size() && greedy->margins[golden][t] >= kGreedyMargin; ++t) {
      EXPECT_EQ(tokens[t], greedy->greedy[golden][t]) << "prompt " << golden << " token " << t;
      ++compared;
    }
  }
  EXPECT_GT(compared, 20);
}

}  // namespace
}  // namespace sirocco
