// The batcher where there is too little of something: blocks, time.
#include <chrono>
#include <utility>
#include <variant>

#include "tests/engine/batcher_fixture.h"

namespace sirocco {
namespace {

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
