// Long random schedules: requests of every kind join, end, are cancelled or run out of time while
// others run, read at their own pace. Every answer must be what one sequence alone gives, every
// count what the clients saw, and in the end nothing may be held.
#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "engine/sequence_blocks.h"
#include "tests/engine/engine_fixture.h"

namespace sirocco {
namespace {

class Dice {
 public:
  explicit Dice(uint32_t seed) : engine_(seed) {}
  int32_t Roll(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(engine_);
  }
  bool OneIn(int32_t chances) { return Roll(1, chances) == 1; }

 private:
  std::mt19937 engine_;
};

Request RandomRequest(Dice& dice, const ExecutorOptions& limits) {
  const int32_t most = limits.max_length;
  const int32_t prompt = dice.OneIn(4) ? dice.Roll(1, most - 1) : dice.Roll(1, 12);
  Request request = PromptOf(prompt, dice.Roll(1, most - prompt), dice.Roll(0, 1 << 20));
  request.client = std::string(1, static_cast<char>('a' + dice.Roll(0, 2)));
  request.priority = dice.OneIn(4) ? dice.Roll(-1, 1) : 0;
  request.n = dice.OneIn(5) ? dice.Roll(2, limits.max_batch_size) : 1;
  request.sampling.min_new_tokens = dice.OneIn(3) ? dice.Roll(0, request.max_new_tokens) : 0;
  request.stop.ignore_eos = dice.OneIn(3);
  request.stop.include_stop_in_output = dice.OneIn(2);
  const std::vector<std::string> strings = {
      "a", "ab", "aba", "b b", "xyz", "the", "\xef\xbf\xbd", "\xc3\xa9", "ba", "e.", "q"};
  if (dice.OneIn(2)) {
    for (int32_t i = dice.Roll(1, 3); i > 0; --i) {
      request.stop.strings.push_back(strings[dice.Roll(0, static_cast<int>(strings.size()) - 1)]);
    }
  }
  if (dice.OneIn(4)) request.stop.token_ids = {dice.Roll(0, 63), dice.Roll(0, 63)};
  if (dice.OneIn(3)) {
    request.logprobs = LogprobOptions{.top = dice.Roll(0, 5), .prompt = dice.OneIn(2)};
    if (request.logprobs->prompt && dice.OneIn(3)) {
      request.max_new_tokens = 0;
      request.sampling.min_new_tokens = 0;
    }
  }
  if (dice.OneIn(12)) {
    request.deadline = Clock::now() + std::chrono::microseconds(dice.Roll(0, 20000));
  }
  return request;
}

struct Seen {
  int64_t tokens = 0, sequences = 0, ok = 0, deadline = 0, cancelled = 0;
  int64_t finished[3] = {};  // by FinishReason; kNone: sequences whose request ended before
};

class ScheduleTest : public EngineFixture {
 protected:
  struct Running {
    Request request;
    std::unique_ptr<Client> client;
    bool cancelled = false;
  };

  void Run(uint32_t seed, int32_t requests) {
    Dice dice(seed);
    h_.Start();
    std::deque<Running> running;
    for (int32_t i = 0; i < requests && !HasFailure(); ++i) {
      Running next;
      next.request = RandomRequest(dice, h_.executor);
      next.client = h_.Submit(
          next.request, dice.OneIn(4) ? Client::Reading::kInTheEnd : Client::Reading::kAtOnce);
      ASSERT_NE(next.client, nullptr);
      running.push_back(std::move(next));
      if (dice.OneIn(6)) {
        Running& victim = running[dice.Roll(0, static_cast<int>(running.size()) - 1)];
        victim.client->stream().Cancel(absl::StatusCode::kCancelled);
        victim.cancelled = true;
      }
      while (running.size() > static_cast<size_t>(dice.Roll(1, 40))) {
        Check(running.front());
        running.pop_front();
      }
    }
    for (Running& rest : running) Check(rest);
    CheckNothingIsLeft();
  }

  void Check(Running& one) {
    ASSERT_TRUE(one.client->Wait());
    const Client::Output output = one.client->output();
    const absl::Status& status = output.end.status;
    if (status.ok()) {
      h_.ExpectAnswer(*one.client, one.request);
      ++seen_.ok;
    } else {
      h_.ExpectBeginning(*one.client, one.request);
      const bool late = status.code() == absl::StatusCode::kDeadlineExceeded;
      EXPECT_TRUE(late ? one.request.deadline.has_value() : one.cancelled) << status;
      ++(late ? seen_.deadline : seen_.cancelled);
    }
    int64_t unfinished = one.request.n;
    for (const auto& [index, sequence] : output.sequences) {
      seen_.tokens += static_cast<int64_t>(sequence.token_ids.size());
      seen_.sequences += sequence.token_ids.empty() ? 0 : 1;
      if (sequence.finish_reason == FinishReason::kNone) continue;
      ++seen_.finished[static_cast<size_t>(sequence.finish_reason)];
      --unfinished;
    }
    seen_.finished[0] += unfinished;
  }

  void CheckNothingIsLeft() {
    ASSERT_TRUE(h_.AwaitIdle());
    const Counts counts = h_.observer.counts();
    EXPECT_EQ(counts.generated_tokens, seen_.tokens);
    EXPECT_EQ(counts.first_tokens, seen_.sequences);
    EXPECT_EQ(counts.inter_tokens, seen_.tokens - seen_.sequences);
    for (size_t reason : {0, 1, 2}) EXPECT_EQ(counts.finished[reason], seen_.finished[reason]);
    EXPECT_EQ(counts.finished_requests, seen_.ok);
    EXPECT_EQ(counts.prefill_tokens, h_.device->prefill_tokens.load());
    EXPECT_EQ(counts.decode_rows, h_.device->decode_rows.load());
    EXPECT_EQ(h_.device->most_in_flight.load(), 1 + GetParam());
    EXPECT_EQ(counts.overrun_rows > 0, GetParam() > 0);
    // What was decoded and is no overrun was a token; text cut at a stop string has fewer. After a
    // preemption one token comes out of a prefill.
    EXPECT_GE(counts.decode_rows - counts.overrun_rows + counts.preemptions,
              seen_.tokens - seen_.sequences);
    // Every kind has been met.
    EXPECT_GT(seen_.ok, 0);
    EXPECT_GT(seen_.cancelled, 0);
    EXPECT_GT(seen_.deadline, 0);
  }

  Seen seen_;
};

INSTANTIATE_TEST_SUITE_P(RunAhead, ScheduleTest, testing::Values(0, 1));

TEST_P(ScheduleTest, PlentyOfBlocks) {
  h_.executor = FakeOptions(8, 64, 128);
  Run(1, 2000);
}

TEST_P(ScheduleTest, BlocksForLittleMoreThanOneSequence) {
  h_.executor = FakeOptions(8, 64, 20);
  h_.options.delivery_threads = 1;
  Run(2, 1000);
  EXPECT_GT(h_.observer.counts().preemptions, 20);
}

TEST_P(ScheduleTest, TwoLanes) {
  h_.executor = FakeOptions(2, 48, 12);
  Run(3, 800);
}

TEST_P(ScheduleTest, SmallChunks) {
  h_.executor = FakeOptions(16, 100, 300);
  h_.options.prefill_chunk_size = 3;
  h_.options.delivery_threads = 3;
  Run(4, 1000);
}

// Sequences go on in the blocks that a window has passed.
TEST_P(ScheduleTest, Windows) {
  h_.executor = FakeOptions(6, 100, 6 * 25);
  h_.options.groups = {{.window = 0}, {.window = 7}};
  h_.options.prefill_chunk_size = 6;
  h_.executor.kv_blocks[1] = 6 * SequenceBlocks({.window = 7}, 100, 4, 6);
  ASSERT_EQ(h_.executor.kv_blocks[1], 6 * 4);
  Run(6, 1000);
}

}  // namespace
}  // namespace sirocco
