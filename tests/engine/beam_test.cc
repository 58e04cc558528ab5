// Beam searches of a whole engine over the fake model, beside other requests: every answer is the
// simulation's, every KV slot that is read holds its own beam's tokens (FakeExecutor).
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/beam_simulation.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/fake_model.h"

namespace sirocco {
namespace {

class BeamTest : public EngineFixture {
 protected:
  void SetUp() override {
    EngineFixture::SetUp();
    h_.executor = FakeOptions(/*max_batch_size=*/8, /*max_length=*/64, /*blocks=*/128);
  }

  static Request Search(int32_t prompt, int32_t max_new_tokens, BeamOptions beam, int32_t n = 1,
                        int32_t salt = 0) {
    Request request = PromptOf(prompt, max_new_tokens, salt);
    request.beam = beam;
    request.n = n;
    return request;
  }

  void ExpectAnswers(Client& client, const Request& request) const {
    if (!request.beam) return h_.ExpectAnswer(client, request);
    ASSERT_TRUE(client.Wait());
    const Client::Output output = client.output();
    ASSERT_TRUE(output.end.status.ok()) << output.end.status;
    EXPECT_EQ(output.ends, 1);
    EXPECT_FALSE(output.after_end);
    const std::vector<Answer> answers = SimulateBeams(request, h_.options.end_token_ids);
    ASSERT_EQ(output.sequences.size(), answers.size());
    int32_t tokens = 0;
    for (const auto& [index, sequence] : output.sequences) {
      const Answer& answer = answers[index];
      EXPECT_EQ(sequence.token_ids, answer.token_ids);
      EXPECT_EQ(sequence.finish_reason, answer.finish_reason);
      EXPECT_EQ(sequence.stop_reason, answer.stop_reason);
      EXPECT_NEAR(sequence.cumulative_logprob, answer.cumulative_logprob, 1e-4);
      EXPECT_EQ(sequence.logprobs.size(), request.logprobs ? answer.token_ids.size() : 0);
      tokens += static_cast<int32_t>(answer.token_ids.size());
    }
    EXPECT_EQ(output.end.usage.completion_tokens, tokens);
  }

  // Searches of every kind, and others among them.
  static std::vector<Request> RandomRequests(int count, int32_t longest_prompt,
                                             int32_t most_new_tokens, int32_t most_beams) {
    std::mt19937 random(11);
    const auto roll = [&](int32_t low, int32_t high) {
      return std::uniform_int_distribution<int32_t>(low, high)(random);
    };
    std::vector<Request> requests;
    for (int i = 0; i < count; ++i) {
      Request request =
          PromptOf(roll(1, longest_prompt), roll(1, most_new_tokens), roll(0, 3) == 0 ? 0 : i);
      if (roll(0, 3) > 0) {
        request.beam = BeamOptions{.num_beams = roll(2, most_beams),
                                   .length_penalty = static_cast<float>(roll(-2, 4)) / 2,
                                   .early_stopping = roll(0, 1) == 0};
        request.n = roll(1, request.beam->num_beams);
      }
      if (roll(0, 2) == 0) request.logprobs = LogprobOptions{.top = roll(0, 3)};
      if (roll(0, 2) == 0) request.stop.ignore_eos = true;
      if (roll(0, 2) == 0) request.stop.token_ids = {roll(3, 40), roll(41, 63)};
      if (roll(0, 2) == 0) request.sampling.min_new_tokens = request.max_new_tokens / 2;
      requests.push_back(std::move(request));
    }
    return requests;
  }

  void ExpectAllAnswers(const std::vector<Request>& requests) {
    std::vector<std::unique_ptr<Client>> clients;
    for (const Request& request : requests) clients.push_back(h_.Submit(request));
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_NE(clients[i], nullptr);
      SCOPED_TRACE("request " + std::to_string(i));
      ExpectAnswers(*clients[i], requests[i]);
    }
    EXPECT_TRUE(h_.AwaitIdle());
  }
};

INSTANTIATE_TEST_SUITE_P(RunAhead, BeamTest, ::testing::Values(0, 1));

TEST_P(BeamTest, OneSearchAlone) {
  h_.Start();
  ExpectAllAnswers({Search(6, 20, {.num_beams = 4}, /*n=*/4)});
  EXPECT_GT(h_.device->forks.load(), 10);
  EXPECT_GT(h_.device->block_copies.load(), 10);
  EXPECT_EQ(h_.device->largest_batch.load(), 4);
  EXPECT_EQ(h_.device->most_in_flight.load(), 1);  // nothing can be launched ahead
  // The prompt was computed once.
  EXPECT_EQ(h_.device->prefill_tokens.load(), 6);
}

TEST_P(BeamTest, NothingIsSentBeforeTheEnd) {
  h_.Start();
  const Request request = Search(6, 20, {.num_beams = 3}, /*n=*/2);
  const std::unique_ptr<Client> client = h_.Submit(request);
  ASSERT_NE(client, nullptr);
  ExpectAnswers(*client, request);
  EXPECT_EQ(client->output().updates, 1);
}

TEST_P(BeamTest, ManyAtOnceBesideOthers) {
  for (const bool prefix_cache : {false, true}) {
    SetUp();
    h_.options.prefix_cache = prefix_cache;
    h_.Start();
    ExpectAllAnswers(RandomRequests(80, /*longest_prompt=*/40, /*most_new_tokens=*/24, 5));
    EXPECT_EQ(h_.device->violation(), "");
    EXPECT_EQ(h_.observer.counts().preemptions, 0);
    h_.engine.reset();
  }
}

// Blocks for little more than the longest search, so that groups are preempted and begin anew.
TEST_P(BeamTest, WhereBlocksAreShort) {
  for (const bool prefix_cache : {false, true}) {
    SetUp();
    h_.executor.kv_blocks = {33, 33};
    h_.options.prefix_cache = prefix_cache;
    h_.Start();
    std::vector<Request> requests = RandomRequests(80, /*longest_prompt=*/8, 36, 3);
    for (Request& request : requests) {
      request.stop.ignore_eos = true;  // so that they become long
      request.stop.token_ids.clear();
    }
    const int64_t before = h_.observer.counts().preemptions;
    ExpectAllAnswers(requests);
    EXPECT_GT(h_.observer.counts().preemptions - before, 5);
    h_.engine.reset();
  }
}

TEST_P(BeamTest, WithWindows) {
  h_.options.groups = {{.window = 0}, {.window = 7}};
  h_.Start();
  ExpectAllAnswers(RandomRequests(60, /*longest_prompt=*/30, /*most_new_tokens=*/30, 4));
}

TEST_P(BeamTest, ACancelledSearchGivesBackAll) {
  h_.gate.CloseAfter(5);
  h_.Start();
  const std::unique_ptr<Client> client = h_.Submit(Search(6, 40, {.num_beams = 4}));
  const Request other = PromptOf(5, 10, 3);
  const std::unique_ptr<Client> beside = h_.Submit(other);
  ASSERT_TRUE(client != nullptr && beside != nullptr);
  h_.gate.AwaitWaiter();
  client->stream().Cancel(absl::StatusCode::kCancelled);
  h_.gate.Open();
  ASSERT_TRUE(client->Wait());
  EXPECT_EQ(client->output().end.status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(client->output().sequences.empty());
  EXPECT_EQ(client->output().end.stage, RequestStage::kDecode);
  ExpectAnswers(*beside, other);
  EXPECT_TRUE(h_.AwaitIdle());
}

TEST_P(BeamTest, RefusesWhatASearchCannotDo) {
  h_.Start();
  const auto refusal = [&](const auto& change) {
    Request request = Search(4, 8, {.num_beams = 4});
    change(request);
    const absl::Status status = Refusal(std::move(request));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_EQ(refusal([](Request& r) { r.beam->num_beams = 9; }), "num_beams: 9 is not in 2 ... 8");
  EXPECT_EQ(refusal([](Request& r) { r.beam->num_beams = 1; }), "num_beams: 1 is not in 2 ... 8");
  EXPECT_EQ(refusal([](Request& r) { r.n = 5; }), "n: 5 is not in 1 ... 4");
  EXPECT_EQ(refusal([](Request& r) { r.beam->length_penalty = 11; }),
            "length_penalty: 11 is not in -10 ... 10");
  EXPECT_EQ(refusal([](Request& r) { r.sampling.temperature = 1; }),
            "temperature: cannot be combined with a beam search");
  EXPECT_EQ(refusal([](Request& r) { r.stop.strings = {"x"}; }),
            "stop.strings: cannot be combined with a beam search");
  EXPECT_EQ(refusal([](Request& r) {
              for (int32_t id = 10; id < 30; ++id) r.stop.token_ids.push_back(id);
            }),
            "num_beams: 4 beams with 21 end and stop tokens; together they may be at most 20");
}

TEST_P(BeamTest, RefusesWhatCanNeverHaveItsBlocks) {
  h_.executor.kv_blocks = {32, 32};
  h_.Start();
  // 4 beams of 32 slots in blocks of 4 just fit.
  ExpectAllAnswers({Search(4, 29, {.num_beams = 4})});
  const absl::Status status = Refusal(Search(4, 30, {.num_beams = 4}));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_NE(status.message().find("for each of 4 beams"), std::string::npos) << status;
}

}  // namespace
}  // namespace sirocco
