#include "engine/engine.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "tests/engine/engine_fixture.h"
#include "tests/engine/simulation.h"

namespace sirocco {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using EngineTest = EngineFixture;

INSTANTIATE_TEST_SUITE_P(RunAhead, EngineTest, testing::Values(0, 1));

TEST_P(EngineTest, AnswersAsOneSequenceAloneWould) {
  h_.Start();
  std::vector<std::pair<Request, std::unique_ptr<Client>>> all;
  for (int32_t i = 0; i < 20; ++i) {
    const Request request = PromptOf(1 + i * 3 % 50, 1 + i % 13, i);
    all.emplace_back(request, h_.Submit(request));
  }
  for (auto& [request, client] : all) h_.ExpectAnswer(*client, request);
  EXPECT_TRUE(h_.AwaitIdle());
  EXPECT_EQ(h_.device->largest_batch.load(), 4);
  EXPECT_LE(h_.device->largest_prefill.load(), 32);
}

TEST_P(EngineTest, EverySequenceOfARequestHasItsOwnDraws) {
  h_.Start();
  Request request = PromptOf(10, 12, 3);
  request.n = 4;
  request.logprobs = LogprobOptions{.top = 2};
  auto client = h_.Submit(request);
  h_.ExpectAnswer(*client, request);
  const Client::Output output = client->output();
  EXPECT_NE(output.sequences.at(0).token_ids, output.sequences.at(1).token_ids);
  EXPECT_EQ(h_.observer.counts().prompt_tokens, 10);
  EXPECT_EQ(h_.observer.counts().started, 1);
}

TEST_P(EngineTest, MoreSequencesThanKvCanHoldAtOnce) {
  h_.executor = FakeOptions(4, 64, /*blocks=*/10);
  h_.Start();
  Request request = PromptOf(20, 10, 3);  // 8 blocks a sequence
  request.n = 4;
  auto client = h_.Submit(request);
  h_.ExpectAnswer(*client, request);
  EXPECT_GT(h_.observer.counts().preemptions, 0);
}

// Blocks for 1.3 of the longest sequences, and always another that wants them: the device goes on
// generating, and computes little twice.
TEST_P(EngineTest, ThereIsSteadyProgressWithFewBlocks) {
  for (const bool prefix_cache : {true, false}) {
    h_.executor = FakeOptions(8, 256, /*blocks=*/83);  // 64 blocks a sequence
    h_.options.prefix_cache = prefix_cache;
    h_.device->prefill_tokens = 0;
    h_.Start();
    const int64_t before = h_.observer.counts().preemptions;
    std::vector<std::pair<Request, std::unique_ptr<Client>>> all;
    for (int32_t i = 0; i < 12; ++i) {
      Request request = PromptOf(40, 216, i);
      request.stop.ignore_eos = true;
      all.emplace_back(request, h_.Submit(request));
    }
    for (auto& [request, client] : all) h_.ExpectAnswer(*client, request);
    ASSERT_TRUE(h_.AwaitIdle());
    const int64_t preemptions = h_.observer.counts().preemptions - before;
    EXPECT_GT(preemptions, 0);
    // Each doubles the room that the next needs: from 4 slots to 256.
    EXPECT_LE(preemptions, 12 * 7);
    EXPECT_LE(h_.device->prefill_tokens.load(), 3 * 12 * 256);
    h_.engine.reset();
  }
}

TEST_P(EngineTest, PromptLogprobsComeOnceAndAcrossChunks) {
  h_.executor = FakeOptions(4, 128, 128);
  h_.Start();
  for (int32_t length : {1, 2, 32, 33, 100}) {
    Request request = PromptOf(length, 3, length);
    request.logprobs = LogprobOptions{.top = 3, .prompt = true};
    request.n = 3;
    auto client = h_.Submit(request);
    h_.ExpectAnswer(*client, request);
  }
}

TEST_P(EngineTest, OnlyScoringMayFillMaxLength) {
  h_.Start();
  Request request = PromptOf(64, 0, 5);
  request.logprobs = LogprobOptions{.top = 1, .prompt = true};
  request.n = 2;
  auto client = h_.Submit(request);
  h_.ExpectAnswer(*client, request);
  EXPECT_EQ(client->output().sequences.at(1).finish_reason, FinishReason::kLength);
  const Counts counts = h_.observer.counts();
  EXPECT_EQ(counts.decode_steps, 0);
  EXPECT_EQ(counts.prefill_tokens, 64);  // once for both
  EXPECT_EQ(counts.generated_tokens, 0);
  EXPECT_EQ(counts.finished[static_cast<size_t>(FinishReason::kLength)], 2);
  EXPECT_EQ(counts.finished_requests, 1);
}

TEST_P(EngineTest, WithoutATokenizerTextIsEmptyAndStopStringsAreRefused) {
  h_.with_tokenizer = false;
  h_.Start();
  Request request = PromptOf(5, 9, 2);
  auto client = h_.Submit(request);
  h_.ExpectAnswer(*client, request);
  request.stop.strings = {"x"};
  EXPECT_EQ(Refusal(request).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(EngineTest, AStopStringFreesTheSequenceAndLateTokensAreNotCounted) {
  h_.Start();
  Request request = Long();
  const Answer whole = Simulate(request, 0, {kFakeEnd}, &h_.tokenizer);
  request.stop.strings = {whole.text.substr(whole.text.size() / 2, 2)};
  h_.gate.CloseAfter(45);
  auto client = h_.Submit(request);
  h_.ExpectAnswer(*client, request);
  // The engine may have gone on meanwhile; it hears of the end with its next step.
  h_.gate.Open();
  const Client::Output output = client->output();
  EXPECT_EQ(output.sequences.at(0).finish_reason, FinishReason::kStop);
  const auto tokens = static_cast<int64_t>(output.sequences.at(0).token_ids.size());
  EXPECT_LT(tokens, 45);
  EXPECT_TRUE(h_.AwaitIdle());
  EXPECT_LE(h_.device->decode_rows.load(), 45);
  const Counts counts = h_.observer.counts();
  EXPECT_EQ(counts.generated_tokens, tokens);
  EXPECT_EQ(counts.first_tokens, 1);
  EXPECT_EQ(counts.inter_tokens, tokens - 1);
  EXPECT_EQ(counts.finished[static_cast<size_t>(FinishReason::kStop)], 1);
}

TEST_P(EngineTest, RefusesWhatCannotRun) {
  h_.executor = FakeOptions(4, 64, /*blocks=*/4);
  h_.Start();
  EXPECT_EQ(Refusal(PromptOf(0, 1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Refusal(PromptOf(60, 5)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(h_.observer.counts().rejected.size(), 0u);
  // 18 slots are more than 4 blocks of 4 will ever be; 16 are not.
  EXPECT_EQ(Refusal(PromptOf(10, 9)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(h_.observer.counts().rejected.at("kv"), 1);
  const Request fits = PromptOf(10, 7);
  h_.ExpectAnswer(*h_.Submit(fits), fits);
}

TEST_P(EngineTest, StartRefusesOptionsOutOfRange) {
  const auto start = [&](auto change) {
    EngineOptions options = h_.options;
    change(options);
    return Engine::Start(std::make_unique<FakeExecutor>(h_.executor, h_.options.groups,
                                                        h_.run_ahead, h_.device),
                         nullptr, &h_.observer, options)
        .status();
  };
  EXPECT_EQ(start([](auto& o) { o.prefill_chunk_size = 33; }).message(),
            "prefill_chunk_size: 33 is not in 1 ... 32, what the executor was made for");
  EXPECT_EQ(start([](auto& o) { o.prefill_chunk_size = 0; }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(start([](auto& o) { o.max_queue_size = 0; }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(start([](auto& o) { o.max_queue_tokens = -1; }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(start([](auto& o) { o.delivery_threads = 0; }).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(EngineTest, TheQueueIsBoundedInRequests) {
  h_.executor = FakeOptions(1, 64, 64);
  h_.options.max_queue_size = 2;
  h_.gate.Close();
  h_.Start();
  // One runs and two wait, even if they come before the engine has looked.
  std::vector<std::unique_ptr<Client>> clients;
  for (int32_t i = 0; i < 3; ++i) clients.push_back(h_.Submit(Long(i)));
  EXPECT_EQ(Refusal(Long()).code(), absl::StatusCode::kResourceExhausted);
  h_.gate.AwaitWaiter();
  EXPECT_EQ(Refusal(Long()).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(h_.observer.counts().rejected.at("queue_full"), 2);
  h_.gate.Open();
  for (int32_t i = 0; i < 3; ++i) h_.ExpectAnswer(*clients[i], Long(i));
  h_.ExpectAnswer(*h_.Submit(Long(7)), Long(7));
}

TEST_P(EngineTest, TheQueueIsBoundedInTokens) {
  h_.executor = FakeOptions(1, 64, 64);
  h_.options.max_queue_tokens = 20;
  h_.gate.Close();
  h_.Start();
  // What starts at once waits for nothing, however long it is.
  auto running = h_.Submit(PromptOf(30, 4));
  h_.gate.AwaitWaiter();
  auto waiting = h_.Submit(PromptOf(15, 4));
  EXPECT_EQ(Refusal(PromptOf(6, 4)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(h_.observer.counts().rejected.at("queue_tokens"), 1);
  auto last = h_.Submit(PromptOf(5, 4));
  h_.gate.Open();
  h_.ExpectAnswer(*running, PromptOf(30, 4));
  h_.ExpectAnswer(*waiting, PromptOf(15, 4));
  h_.ExpectAnswer(*last, PromptOf(5, 4));
}

TEST_P(EngineTest, CancellingFreesLanesAndBlocks) {
  h_.executor = FakeOptions(1, 64, 64);
  h_.Start();
  h_.gate.Close();
  auto running = h_.Submit(Long(1));
  auto waiting = h_.Submit(Long(2));
  h_.gate.AwaitWaiter();
  waiting->stream().Cancel(absl::StatusCode::kCancelled);
  running->stream().Cancel(absl::StatusCode::kCancelled);
  running->stream().Cancel(absl::StatusCode::kUnavailable);
  h_.gate.Open();
  h_.ExpectBeginning(*running, Long(1));
  h_.ExpectBeginning(*waiting, Long(2));
  EXPECT_EQ(running->output().end.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->output().end.status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(h_.AwaitIdle());
  const Counts counts = h_.observer.counts();
  EXPECT_EQ(counts.cancelled_lanes, 1);  // the other held none
  EXPECT_EQ(counts.finished_requests, 0);
  EXPECT_EQ(counts.finished, (std::array<int64_t, 3>{2, 0, 0}));
}

TEST_P(EngineTest, DeadlinesEndWhatWaitsAndWhatRuns) {
  h_.executor = FakeOptions(1, 64, 64);
  h_.Start();
  Request request = Long();
  h_.gate.Close();
  request.deadline = Clock::now() + milliseconds(20);
  auto running = h_.Submit(request);
  auto waiting = h_.Submit(request);
  h_.gate.AwaitWaiter();
  std::this_thread::sleep_until(*request.deadline);
  h_.gate.Open();
  for (Client* client : {running.get(), waiting.get()}) {
    h_.ExpectBeginning(*client, request);
    EXPECT_EQ(client->output().end.status.code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_TRUE(h_.AwaitIdle());
  const Counts counts = h_.observer.counts();
  EXPECT_EQ(counts.finished, (std::array<int64_t, 3>{2, 0, 0}));
  EXPECT_EQ(waiting->output().end.stage, RequestStage::kQueue);
  EXPECT_EQ(running->output().end.stage,
            running->output().sequences.empty() ? RequestStage::kPrefill : RequestStage::kDecode);
  EXPECT_EQ(counts.cancelled_lanes, 1);
}

TEST_P(EngineTest, AReaderThatTakesNothingSlowsNobody) {
  h_.Start();
  auto slow = h_.Submit(Long(1), Client::Reading::kInTheEnd);
  for (int32_t i = 0; i < 20; ++i)
    h_.ExpectAnswer(*h_.Submit(PromptOf(5, 6, i)), PromptOf(5, 6, i));
  EXPECT_TRUE(h_.AwaitIdle());
  h_.ExpectAnswer(*slow, Long(1));
  EXPECT_EQ(slow->output().updates, 1);  // all of it merged
}

TEST_P(EngineTest, TimesAddUp) {
  h_.Start();
  const Clock::time_point before = Clock::now();
  auto client = h_.Submit(Long());
  ASSERT_TRUE(client->Wait());
  const RequestTiming timing = client->output().end.timing;
  EXPECT_GE(timing.queue, Clock::duration::zero());
  EXPECT_GT(timing.prefill, Clock::duration::zero());
  EXPECT_GT(timing.decode, Clock::duration::zero());
  EXPECT_LE(timing.queue + timing.prefill + timing.decode, Clock::now() - before);
}

TEST_P(EngineTest, AnEndByLengthComputesNothingInVain) {
  h_.executor = FakeOptions(4, 64, 64);
  h_.Start();
  std::vector<std::pair<Request, std::unique_ptr<Client>>> all;
  int64_t decoded = 0;
  for (int32_t i = 0; i < 12; ++i) {
    Request request = PromptOf(3 + i, 1 + i % 5, i);
    request.stop.ignore_eos = true;
    decoded += request.max_new_tokens - 1;
    all.emplace_back(request, h_.Submit(request));
  }
  for (auto& [request, client] : all) h_.ExpectAnswer(*client, request);
  EXPECT_TRUE(h_.AwaitIdle());
  const Counts counts = h_.observer.counts();
  EXPECT_EQ(counts.overrun_rows, 0);
  EXPECT_EQ(counts.decode_rows, decoded);
  EXPECT_EQ(h_.device->most_in_flight.load(), 1 + GetParam());
}

// An end token among a sequence's tokens: one overrun row where the executor runs ahead, which
// nobody sees.
TEST_P(EngineTest, AnEndByATokenHasOneOverrunRow) {
  h_.Start();
  int64_t sequences = 0, tokens = 0;
  for (int32_t i = 0; i < 40; ++i) {
    const Request request = PromptOf(5, 59, i);
    const Answer answer = Simulate(request, 0, {kFakeEnd}, &h_.tokenizer);
    const auto length = static_cast<int32_t>(answer.token_ids.size());
    if (length == request.max_new_tokens) continue;
    h_.ExpectAnswer(*h_.Submit(request), request);
    ++sequences;
    tokens += length;
  }
  ASSERT_GT(sequences, 5);
  EXPECT_TRUE(h_.AwaitIdle());
  const Counts counts = h_.observer.counts();
  EXPECT_EQ(counts.overrun_rows, GetParam() * sequences);
  EXPECT_EQ(counts.decode_rows, tokens - sequences + counts.overrun_rows);
  EXPECT_EQ(counts.generated_tokens, tokens);
  EXPECT_EQ(counts.inter_tokens, tokens - sequences);
}

TEST_P(EngineTest, HealthSeesWorkAndSteps) {
  h_.Start();
  EXPECT_FALSE(h_.engine->has_work());
  std::this_thread::sleep_for(milliseconds(20));
  h_.gate.Close();
  const Clock::time_point before = Clock::now();
  auto client = h_.Submit(Long());
  EXPECT_TRUE(h_.engine->has_work());
  // The engine was idle, not stuck, until the request came.
  EXPECT_GE(h_.engine->last_step(), before);
  h_.gate.AwaitWaiter();
  const Clock::time_point stuck = h_.engine->last_step();
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(h_.engine->last_step(), stuck);
  h_.gate.Open();
  ASSERT_TRUE(client->Wait());
  EXPECT_TRUE(h_.AwaitIdle());
  EXPECT_GT(h_.engine->last_step(), stuck);
}

}  // namespace
}  // namespace sirocco
