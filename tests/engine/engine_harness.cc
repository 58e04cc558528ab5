#include "tests/engine/engine_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "tests/engine/fake_model.h"
#include "tests/engine/simulation.h"

namespace sirocco {

Request PromptOf(int32_t length, int32_t max_new_tokens, int32_t salt) {
  Request request;
  for (int32_t i = 0; i < length; ++i) request.prompt.push_back((i * 7 + salt) % kFakeVocabulary);
  request.max_new_tokens = max_new_tokens;
  request.sampling.seed = static_cast<uint64_t>(salt);
  return request;
}

void EngineHarness::Start() {
  device->before_step = [this] { gate.Pass(); };
  auto started =
      Engine::Start(std::make_unique<FakeExecutor>(executor, options.groups, run_ahead, device),
                    tokenizer_or_null(), &observer, options);
  ASSERT_TRUE(started.ok()) << started.status();
  engine = *std::move(started);
}

std::unique_ptr<Client> EngineHarness::Submit(Request request, Client::Reading reading) {
  auto client = Client::Submit(*engine, std::move(request), reading);
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

bool EngineHarness::AwaitIdle() {
  for (int i = 0; i < 20000; ++i) {
    const EngineGauges gauges = observer.counts().gauges;
    if (!engine->has_work() && gauges.requests_running == 0 && gauges.requests_waiting == 0 &&
        gauges.queue_tokens == 0 && gauges.kv_blocks_used == 0) {
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

void EngineHarness::ExpectAnswer(Client& client, const Request& request) const {
  ASSERT_TRUE(client.Wait());
  const Client::Output output = client.output();
  ASSERT_TRUE(output.end.status.ok()) << output.end.status;
  EXPECT_EQ(output.ends, 1);
  EXPECT_FALSE(output.after_end);
  EXPECT_FALSE(output.late_prompt);
  EXPECT_TRUE(output.whole_text);
  ASSERT_EQ(output.sequences.size(), static_cast<size_t>(request.n));
  int32_t tokens = 0;
  for (const auto& [index, sequence] : output.sequences) {
    const Answer answer = Simulate(request, index, options.end_token_ids, tokenizer_or_null());
    EXPECT_EQ(sequence.token_ids, answer.token_ids);
    EXPECT_EQ(sequence.text, answer.text);
    EXPECT_EQ(sequence.finish_reason, answer.finish_reason);
    EXPECT_EQ(sequence.stop_reason, answer.stop_reason);
    EXPECT_EQ(sequence.cumulative_logprob, answer.cumulative_logprob);
    EXPECT_EQ(sequence.logprobs.size(), request.logprobs ? answer.token_ids.size() : 0);
    tokens += static_cast<int32_t>(answer.token_ids.size());
  }
  EXPECT_EQ(output.end.seed, request.sampling.seed);
  EXPECT_EQ(output.end.usage.prompt_tokens, static_cast<int32_t>(request.prompt.size()));
  EXPECT_EQ(output.end.usage.completion_tokens, tokens);
  const bool scored = request.logprobs && request.logprobs->prompt;
  EXPECT_EQ(output.prompt_updates, scored ? 1 : 0);
  ASSERT_EQ(output.prompt_logprobs.size(), scored ? request.prompt.size() : 0);
  const std::span<const int32_t> prompt(request.prompt);
  for (size_t i = 0; i < output.prompt_logprobs.size(); ++i) {
    const TokenLogprob& logprob = output.prompt_logprobs[i];
    const TokenScore score =
        i == 0 ? TokenScore{} : FakeScore(request.logprobs->top, prompt.first(i), prompt[i]);
    EXPECT_EQ(logprob.token_id, score.token_id);
    EXPECT_EQ(logprob.logprob, score.logprob);
    EXPECT_EQ(logprob.rank, score.rank);
    ASSERT_EQ(logprob.alternatives.size(), static_cast<size_t>(score.top_count));
    for (int32_t k = 0; k < score.top_count; ++k) {
      EXPECT_EQ(logprob.alternatives[k], std::pair(score.top_ids[k], score.top_logprobs[k]));
    }
  }
}

void EngineHarness::ExpectBeginning(Client& client, const Request& request) const {
  ASSERT_TRUE(client.Wait());
  const Client::Output output = client.output();
  EXPECT_FALSE(output.end.status.ok());
  EXPECT_EQ(output.ends, 1);
  EXPECT_FALSE(output.after_end);
  int32_t tokens = 0;
  for (const auto& [index, sequence] : output.sequences) {
    const Answer answer = Simulate(request, index, options.end_token_ids, tokenizer_or_null());
    ASSERT_LE(sequence.token_ids.size(), answer.token_ids.size());
    EXPECT_TRUE(
        std::equal(sequence.token_ids.begin(), sequence.token_ids.end(), answer.token_ids.begin()));
    EXPECT_EQ(sequence.text, answer.text.substr(0, sequence.text.size()));
    tokens += static_cast<int32_t>(sequence.token_ids.size());
  }
  EXPECT_EQ(output.end.usage.completion_tokens, tokens);
}

}  // namespace sirocco
