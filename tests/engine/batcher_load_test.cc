// The batcher where there is too little of something: lanes, blocks, time.
#include <algorithm>
#include <chrono>
#include <variant>

#include "tests/engine/batcher_fixture.h"

namespace sirocco {
namespace {

// --- fair shares ---

TEST_F(BatcherTest, ClientsAreServedInTurnByTokens) {
  Make(1, 30);
  const auto request = [](const char* client, int32_t prompt) {
    Request made;
    made.prompt.assign(prompt, 5);
    made.max_new_tokens = 1;
    made.client = client;
    return made;
  };
  for (int i = 0; i < 4; ++i) Enqueue(request("flood", 8));  // 1 to 4
  Step();
  for (int i = 0; i < 4; ++i) Enqueue(request("other", 4));  // 5 to 8
  Ids order = admitted_;
  while (!batcher_->empty()) {
    Step();
    order.insert(order.end(), admitted_.begin(), admitted_.end());
  }
  // The flood has had 8. The other begins a step's tokens, 8, before that: at 0; 4; 8, and then,
  // the one that came first, the flood to 16; the other to 12 and 16.
  EXPECT_EQ(order, (Ids{{1, 0}, {5, 0}, {6, 0}, {2, 0}, {7, 0}, {8, 0}, {3, 0}, {4, 0}}));
  ExpectEmpty();
}

// The prompt of a client that has nothing running gets whole steps, though the other's prompts were
// there before: its first token comes as many steps later as its prompt alone needs beside others.
TEST_F(BatcherTest, APromptBesideAnothersFloodTakesNoMoreStepsThanItsOwn) {
  seconds_a_prompt_token_ = 0.01;  // so that a step has little more than the least
  seconds_a_decode_ = 0.01;
  for (const int32_t prompt : {5, 16, 40, 64}) {
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 4, .prefill_chunk_size = 64, .block_size = 4, .kv_blocks = {400}});
    const auto request = [](const char* client, int32_t length, int32_t max_new_tokens) {
      Request made;
      made.prompt.assign(length, 5);
      made.max_new_tokens = max_new_tokens;
      made.client = client;
      return made;
    };
    for (int i = 0; i < 64; ++i) Enqueue(request("flood", 60, 30));
    for (int i = 0; i < 26; ++i) Step();
    for (int round = 0; round < 5; ++round) {
      const uint64_t number = Enqueue(request("quiet", prompt, 2))->number;
      int steps = 0;  // with prompts
      do {
        const int32_t tokens = Step().first;
        EXPECT_LE(tokens, StepCost::kLeast + 1);
        steps += tokens > 0 ? 1 : 0;
      } while (Tokens().count({number, 0}) == 0 && steps < 100);
      EXPECT_EQ(steps, (prompt + StepCost::kLeast - 1) / StepCost::kLeast) << prompt;
      for (int i = 0; i < 40; ++i) Step();
    }
  }
}

TEST_F(BatcherTest, ALaneIsTakenBackForAClientThatHasFewer) {
  Make(4, 100);
  const auto enqueue = [&](const char* client) {
    Request made;
    made.prompt.assign(2, 5);
    made.max_new_tokens = 50;
    made.client = client;
    Enqueue(std::move(made));
  };
  for (int i = 0; i < 6; ++i) enqueue("flood");
  Step();
  EXPECT_EQ(admitted_.size(), 4u);
  enqueue("other");  // 7 to 9
  Step();
  EXPECT_EQ(admitted_, (Ids{{7, 0}}));
  EXPECT_EQ(batcher_->TakePreemptions(), 1);
  EXPECT_EQ(Tokens().count({4, 0}), 0u);
  enqueue("other");
  enqueue("other");
  Step();
  EXPECT_EQ(admitted_, (Ids{{8, 0}}));  // two and two: no more
  Step();
  EXPECT_TRUE(admitted_.empty());
  batcher_->EndSequence(7, 0);
  Step();
  EXPECT_EQ(admitted_, (Ids{{9, 0}}));  // before those of the flood, which has more
  batcher_->EndSequence(1, 0);
  batcher_->EndSequence(2, 0);
  Step();
  EXPECT_EQ(admitted_, (Ids{{3, 0}, {4, 0}}));
  while (!batcher_->empty()) Step();
  ExpectEmpty();
}

// A flood of one client, and another that asks for one thing after the other: until its first token
// it takes no more than twice as long as alone. Time is what a device would take.
TEST_F(BatcherTest, AFloodLeavesAnothersTimeToFirstTokenWithinTwice) {
  seconds_a_prompt_token_ = 0.0001;
  seconds_a_decode_ = 0.01;
  const auto request = [](const char* client) {
    Request made;
    made.prompt.assign(400, 5);
    made.max_new_tokens = 100;
    made.client = client;
    return made;
  };
  const auto slowest = [&](bool flood) {
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 8, .prefill_chunk_size = 512, .block_size = 16, .kv_blocks = {1000}});
    // Somebody generates at any time, so that steps are as long as they may be.
    for (int i = 0; i < (flood ? 200 : 1); ++i) Enqueue(request("flood"));
    for (int i = 0; i < 80; ++i) Step();
    double worst = 0;
    for (int round = 0; round < 8; ++round) {
      if (!flood) Enqueue(request("flood"));
      const uint64_t number = Enqueue(request("other"))->number;
      double seconds = 0;
      do {
        const auto [tokens, rows] = Step();
        seconds += tokens * seconds_a_prompt_token_ + (rows > 0 ? seconds_a_decode_ : 0);
      } while (Tokens().count({number, 0}) == 0);
      worst = std::max(worst, seconds);
      for (int i = 0; i < 20; ++i) Step();
      batcher_->EndSequence(number, 0);
    }
    return worst;
  };
  const double alone = slowest(false);
  EXPECT_LE(slowest(true), 2 * alone);
}

// The same as a client's clock tells it, with what a small model's steps take on two cores, with
// prompts of two lengths, and with nobody else at all for comparison: at most twice as long on
// average, and hardly more wherever in a step the request comes.
TEST_F(BatcherTest, AFloodLeavesWhoAsksNowAndThenTwiceItsTimeAlone) {
  seconds_a_prefill_ = 0.003;
  seconds_a_prompt_token_ = 0.00105;
  seconds_a_decode_ = 0.006;
  seconds_a_row_ = 0.0016;
  const auto request = [](const char* client, int32_t prompt) {
    Request made;
    made.prompt.assign(prompt, 5);
    made.max_new_tokens = 16;
    made.client = client;
    return made;
  };
  for (const int32_t prompt : {100, 300}) {
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 4, .prefill_chunk_size = 512, .block_size = 16, .kv_blocks = {400}});
    double now = 0;
    const auto step = [&](bool flood) {
      while (flood && batcher_->gauges().requests_waiting < 28) Enqueue(request("flood", 100));
      Step();
      now += took_;
    };
    const auto first_token = [&](bool flood, double came) {
      const uint64_t number = Enqueue(request("quiet", prompt))->number;
      do step(flood);
      while (Tokens().count({number, 0}) == 0);
      const double taken = now - came;
      for (const double until = now + 1.2; flood && now < until;) step(flood);
      while (!flood && !batcher_->empty()) step(flood);
      return taken;
    };
    const double alone = first_token(false, now);
    for (int i = 0; i < 200; ++i) step(true);
    double sum = 0, worst = 0;
    for (int round = 0; round < 20; ++round) {
      const double begin = now;
      step(true);
      const double taken = first_token(true, begin + (now - begin) * round / 20);
      sum += taken;
      worst = std::max(worst, taken);
    }
    EXPECT_LE(sum / 20, 2 * alone) << prompt;
    EXPECT_LE(worst, 2.1 * alone) << prompt;
    while (!batcher_->empty()) step(false);
  }
}

// The end of a prompt is not held up by the much that other clients have; what takes hardly longer
// joins it, and so does its own client's.
TEST_F(BatcherTest, AnotherClientsPromptsHoldUpAFirstTokenByLittle) {
  seconds_a_prompt_token_ = 0.0001;
  const auto tokens_beside = [&](const char* client, double seconds_a_prefill) {
    seconds_a_prefill_ = seconds_a_prefill;
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = 4, .prefill_chunk_size = 512, .block_size = 16, .kv_blocks = {400}});
    next_number_ = 1;
    for (const int32_t learned : {200, 20}) {
      Enqueue(learned, 1);
      Step();
    }
    Request request;
    request.max_new_tokens = 1;
    request.prompt.assign(40, 5);
    request.client = "first";
    Enqueue(request);
    request.prompt.assign(400, 5);
    request.client = client;
    Enqueue(request);
    const int32_t tokens = Step().first;
    EXPECT_EQ(Tokens().count({3, 0}), 1u);
    while (!batcher_->empty()) Step();
    return tokens - 40;
  };
  EXPECT_EQ(tokens_beside("first", 0), 400);
  EXPECT_NEAR(tokens_beside("other", 0), 10, 1);
  EXPECT_NEAR(tokens_beside("other", 0.04), 110, 15);
}

// --- deadlines ---

TEST_F(BatcherTest, ADeadlineThatTheRateCannotMeetIsRefused) {
  Make(4, 100);
  seconds_a_prompt_token_ = 0.5;
  Request request;
  request.prompt.assign(40, 5);
  request.max_new_tokens = 1;
  request.deadline = now_ + std::chrono::seconds(15);
  Enqueue(request);
  EXPECT_FALSE(refused_);  // nothing is known yet
  Step();                  // 8 tokens in 4 s; 32 are left
  request.prompt.assign(8, 5);
  request.deadline = now_ + std::chrono::milliseconds(20'100);
  Enqueue(request);
  EXPECT_FALSE(refused_);
  request.deadline = now_ + std::chrono::milliseconds(23'900);
  Enqueue(request);  // behind 32 and 8
  EXPECT_TRUE(refused_);
  EXPECT_EQ(batcher_->gauges().requests_waiting, 1);
  // Not behind those of a lower priority, and hardly behind those of another client.
  request.priority = 1;
  request.deadline = now_ + std::chrono::milliseconds(20'100);
  Enqueue(request);
  EXPECT_FALSE(refused_);
  while (!batcher_->empty()) Step();
  ExpectEmpty();
}

TEST_F(BatcherTest, RefusalsAloneDoNotKeepARateUp) {
  Make(4, 100);
  seconds_a_prompt_token_ = 100;
  Enqueue(8, 1);
  Step();
  ASSERT_TRUE(batcher_->empty());
  Request request;
  request.prompt.assign(8, 5);
  request.max_new_tokens = 1;
  request.deadline = now_ + std::chrono::seconds(1);
  int refusals = 0;
  for (Enqueue(request); refused_; Enqueue(request)) ++refusals;
  EXPECT_GT(refusals, 10);
  EXPECT_LT(refusals, 100);
}

// --- preemption ---

TEST_F(BatcherTest, TheNewestIsPreemptedWhenBlocksAreShortAndGoesOnLater) {
  Make(3, /*blocks=*/6);
  Enqueue(7, 10);  // 2 blocks, of 4 in the end
  Enqueue(7, 7);   // 2 blocks, of 4
  EXPECT_EQ(Step(), (std::pair{8, 0}));
  EXPECT_EQ(Step(), (std::pair{0, 1}));
  EXPECT_EQ(Step(), (std::pair{6, 0}));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Step(), (std::pair{0, 2}));
  EXPECT_EQ(batcher_->gauges().kv_blocks_used, 6);
  EXPECT_EQ(batcher_->TakePreemptions(), 0);
  // The first wants a fourth block, and gets one of those that the second had.
  EXPECT_EQ(Step(), (std::pair{0, 1}));
  EXPECT_EQ(batcher_->TakePreemptions(), 1);
  EXPECT_EQ(Tokens().count({1, 0}), 1u);
  EXPECT_EQ(batcher_->gauges().kv_blocks_used, 4);
  EXPECT_EQ(batcher_->gauges().requests_running, 2);
  EXPECT_EQ(batcher_->gauges().requests_waiting, 0);
  EXPECT_EQ(batcher_->startable(), 0);  // who comes now is behind it
  while (batcher_->gauges().requests_running == 2) Step();
  // Its prompt and the five tokens it had are computed again; the sixth is sampled.
  admitted_.clear();
  EXPECT_EQ(Step(), (std::pair{8, 0}));
  EXPECT_EQ(admitted_, (Ids{{2, 0}}));
  EXPECT_TRUE(Tokens().empty());
  EXPECT_EQ(Step(), (std::pair{4, 0}));
  EXPECT_EQ(Tokens().at({2, 0}), TokenRole::kText);
  EXPECT_EQ(Step(), (std::pair{0, 1}));
  EXPECT_EQ(Tokens().at({2, 0}), TokenRole::kLast);
  EXPECT_EQ(batcher_->TakePreemptions(), 0);
  ExpectEmpty();
}

TEST_F(BatcherTest, AHigherPriorityIsServedFirstAndPreemptedLast) {
  Make(3, /*blocks=*/6);
  const auto request = [](int32_t prompt, int32_t max_new_tokens, int32_t priority) {
    Request made;
    made.prompt.assign(prompt, 5);
    made.max_new_tokens = max_new_tokens;
    made.priority = priority;
    return made;
  };
  Enqueue(request(7, 9, -1));
  Enqueue(request(20, 2, 0));  // does not fit beside another
  Enqueue(request(8, 9, 5));
  EXPECT_EQ(Step(), (std::pair{8, 0}));
  EXPECT_EQ(admitted_, (Ids{{3, 0}}));
  // Nobody overtakes, not even where it would fit.
  Step();
  EXPECT_TRUE(admitted_.empty());
  batcher_->EndSequence(3, 0);
  Step();
  EXPECT_EQ(admitted_, (Ids{{2, 0}}));
  batcher_->EndSequence(2, 0);
  Step();
  EXPECT_EQ(admitted_, (Ids{{1, 0}}));
  Enqueue(request(7, 9, 0));
  Step();
  EXPECT_EQ(admitted_, (Ids{{4, 0}}));
  while (batcher_->TakePreemptions() == 0) Step();
  // The older one of the lower priority.
  EXPECT_EQ(Tokens().count({1, 0}), 0u);
  EXPECT_EQ(Tokens().count({4, 0}), 1u);
}

TEST_F(BatcherTest, APreemptedSequenceMayEndWhileItWaits) {
  for (const bool cancel : {false, true}) {
    Make(3, /*blocks=*/6);
    Enqueue(7, 10);
    const auto second = Enqueue(7, 9);
    while (batcher_->TakePreemptions() == 0) Step();
    if (cancel) {
      second->stream->Cancel(absl::StatusCode::kCancelled);
      EXPECT_EQ(batcher_->EndCancelled(Clock::now(), /*look=*/true).size(), 1u);
    } else {
      batcher_->EndSequence(second->number, 0);
    }
    EXPECT_EQ(batcher_->TakeFreed().size(), cancel ? 1u : 0u);
    EXPECT_EQ(batcher_->gauges().requests_running, 1);
    while (!batcher_->empty()) Step();
    ExpectEmpty();
  }
}

TEST_F(BatcherTest, AScoredPromptIsScoredOnceThoughItIsPreempted) {
  Make(2, /*blocks=*/8);
  Enqueue(8, 9);
  Step();
  Request request;
  request.prompt.assign(12, 5);
  request.max_new_tokens = 9;
  request.logprobs = LogprobOptions{.top = 1, .prompt = true};
  Enqueue(std::move(request));
  int scores = 0;
  while (!batcher_->empty()) {
    Step();
    for (const Event& event : events_)
      scores += std::holds_alternative<PromptScoreEvent>(event.what);
  }
  EXPECT_GT(batcher_->TakePreemptions(), 0);
  EXPECT_EQ(scores, 11);
  ExpectEmpty();
}

TEST_F(BatcherTest, APreemptedSequenceKeepsTheTokenThatIsOnItsWay) {
  Make(2, /*blocks=*/6, /*run_ahead=*/1);
  Enqueue(7, 10);
  Enqueue(7, 9);
  batcher_->Admit();
  EXPECT_EQ(Plan(), (std::pair{8, 0}));
  EXPECT_EQ(Plan(), (std::pair{0, 1}));
  ASSERT_TRUE(Finish().ok());
  EXPECT_EQ(Plan(), (std::pair{6, 0}));
  int64_t tokens = 0;
  std::pair<int32_t, int32_t> planned;
  do {
    ASSERT_TRUE(Finish().ok());
    tokens += Tokens().count({2, 0});
    planned = Plan();
  } while (planned == std::pair(0, 2));
  // The first must wait too: what the second has is still in a step.
  EXPECT_EQ(planned, (std::pair{0, 0}));
  EXPECT_EQ(batcher_->TakePreemptions(), 0);
  EXPECT_EQ(batcher_->gauges().kv_blocks_used, 6);
  ASSERT_TRUE(Finish().ok());
  tokens += Tokens().count({2, 0});
  EXPECT_EQ(batcher_->TakePreemptions(), 1);
  EXPECT_EQ(batcher_->gauges().kv_blocks_used, 3);
  EXPECT_TRUE(batcher_->Admit().empty());
  EXPECT_EQ(Plan(), (std::pair{0, 1}));
  while (batcher_->gauges().requests_running == 2) {
    ASSERT_TRUE(Finish().ok());
    Plan();
  }
  ASSERT_EQ(batcher_->Admit().size(), 1u);
  std::pair<int32_t, int32_t> computed(0, 0);
  while (!batcher_->empty()) {
    const auto next = Plan();
    computed.first += next.first;
    ASSERT_TRUE(Finish().ok());
    tokens += Tokens().count({2, 0});
  }
  EXPECT_EQ(computed.first, 7 + 5);
  EXPECT_EQ(tokens, 9);
  ExpectEmpty();
}

}  // namespace
}  // namespace sirocco
