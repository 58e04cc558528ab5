#include "engine/batcher.h"

#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <map>
#include <variant>

namespace sirocco {
namespace {

using std::chrono::seconds;

constexpr int32_t kEnd = 2;

class BatcherTest : public testing::Test {
 protected:
  std::shared_ptr<const RequestContext> Enqueue(int32_t prompt, int32_t max_new_tokens,
                                                int32_t n = 1) {
    Request request;
    request.prompt.assign(prompt, 5);
    request.max_new_tokens = max_new_tokens;
    request.n = n;
    return Enqueue(std::move(request));
  }
  std::shared_ptr<const RequestContext> Enqueue(Request request) {
    auto context = MakeRequestContext(next_number_++, std::move(request),
                                      std::make_shared<TokenStream>(nullptr), {kEnd});
    batcher_->Enqueue(context);
    return context;
  }

  // One turn of the engine in which every row samples `token`; (prompt tokens, decode rows).
  std::pair<int32_t, int32_t> Step(int32_t token = 7) {
    admitted_.clear();
    for (const Sequence* sequence : batcher_->Admit()) {
      admitted_.emplace_back(sequence->context().number, sequence->index());
    }
    const std::pair planned = Plan();
    if (planned != std::pair(0, 0)) {
      EXPECT_TRUE(Finish(token).ok());
    }
    return planned;
  }

  // The halves of a turn: (prompt tokens, decode rows) of the step planned; the oldest step ends.
  std::pair<int32_t, int32_t> Plan() {
    const sirocco::Step plan = batcher_->PlanStep();
    std::pair<int32_t, int32_t> planned(0, static_cast<int32_t>(plan.decode.lanes.size()));
    for (const PrefillChunk& chunk : plan.prefill.chunks) planned.first += chunk.count;
    if (!plan.empty()) plans_.push_back(plan);
    return planned;
  }
  absl::StatusOr<Batcher::StepFigures> Finish(int32_t token = 7) {
    TokenScore score = {};
    score.token_id = token;
    size_t samples = 0;
    size_t scores = 0;
    double prefill_seconds = 0;
    for (const PrefillChunk& chunk : plans_.front().prefill.chunks) {
      samples += chunk.sample ? 1 : 0;
      scores += chunk.score_count;
      prefill_seconds += chunk.count * seconds_a_prompt_token_;
    }
    const std::vector<TokenScore> sampled(samples, score), scored(scores, score);
    const std::vector<TokenScore> decoded(plans_.front().decode.lanes.size(), score);
    plans_.pop_front();
    events_.clear();
    return batcher_->FinishStep({.prefill = {.sampled = sampled, .scored = scored},
                                 .decode = {.sampled = decoded},
                                 .prefill_seconds = prefill_seconds,
                                 .decode_seconds = decoded.empty() ? 0 : seconds_a_decode_},
                                Clock::now(), &events_);
  }

  // Tokens of the last step, by (request, index).
  std::map<std::pair<uint64_t, int32_t>, TokenRole> Tokens() const {
    std::map<std::pair<uint64_t, int32_t>, TokenRole> tokens;
    for (const Event& event : events_) {
      const auto* token = std::get_if<TokenEvent>(&event.what);
      if (token != nullptr) tokens[{event.request, token->index}] = token->role;
    }
    return tokens;
  }

  void Make(int32_t lanes, int32_t blocks, int32_t run_ahead = 0) {
    batcher_ = std::make_unique<Batcher>(BatcherOptions{.max_batch_size = lanes,
                                                        .prefill_chunk_size = 8,
                                                        .block_size = 4,
                                                        .kv_blocks = {blocks},
                                                        .run_ahead = run_ahead});
  }
  void ExpectEmpty() const {
    const EngineGauges gauges = batcher_->gauges();
    EXPECT_TRUE(batcher_->empty());
    EXPECT_EQ(gauges.requests_running, 0);
    EXPECT_EQ(gauges.requests_waiting, 0);
    EXPECT_EQ(gauges.queue_tokens, 0);
    EXPECT_EQ(gauges.kv_blocks_used, 0);
  }

  using Ids = std::vector<std::pair<uint64_t, int32_t>>;
  double seconds_a_prompt_token_ = 0, seconds_a_decode_ = 0;
  uint64_t next_number_ = 1;
  std::unique_ptr<Batcher> batcher_;
  Ids admitted_;
  std::deque<sirocco::Step> plans_;  // that have not ended
  std::vector<Event> events_;
};

TEST_F(BatcherTest, ASequenceIsPrefilledThenDecodedToItsLength) {
  Make(2, 8);
  Enqueue(5, 3);
  EXPECT_EQ(Step(), (std::pair{5, 0}));
  EXPECT_EQ(Tokens(),
            (std::map<std::pair<uint64_t, int32_t>, TokenRole>{{{1, 0}, TokenRole::kText}}));
  EXPECT_EQ(batcher_->gauges().kv_blocks_used, 2);
  EXPECT_EQ(Step(), (std::pair{0, 1}));
  EXPECT_EQ(Step(), (std::pair{0, 1}));
  EXPECT_EQ(Tokens().at({1, 0}), TokenRole::kLast);
  ExpectEmpty();
}

TEST_F(BatcherTest, TheDecodeBatchGrowsAndShrinksWithItsSequences) {
  Make(3, 30);
  Enqueue(2, 2);
  Enqueue(2, 4);
  EXPECT_EQ(Step(), (std::pair{4, 0}));
  Enqueue(2, 3);
  EXPECT_EQ(Step(), (std::pair{2, 2}));  // the third joins while the others decode
  EXPECT_EQ(Step(), (std::pair{0, 2}));  // the first has left
  EXPECT_EQ(Step(), (std::pair{0, 2}));
  ExpectEmpty();
}

TEST_F(BatcherTest, PromptsShareAStepUpToTheChunkSize) {
  Make(3, 30);
  Enqueue(5, 2);
  Enqueue(14, 2);
  EXPECT_EQ(Step(), (std::pair{8, 0}));  // 5 and 3
  EXPECT_EQ(Tokens().size(), 1u);
  Enqueue(2, 2);
  EXPECT_EQ(Step(), (std::pair{8, 1}));  // 8 of 14; the third waits for its turn
  EXPECT_EQ(Step(), (std::pair{5, 0}));  // 3 and 2
  EXPECT_EQ(Tokens().size(), 2u);
}

TEST_F(BatcherTest, WhileOthersDecodeAStepTakesAsManyPromptTokensAsTheirTimeAllows) {
  batcher_ = std::make_unique<Batcher>(BatcherOptions{.max_batch_size = 3,
                                                      .prefill_chunk_size = 100,
                                                      .itl_factor = 3,
                                                      .block_size = 4,
                                                      .kv_blocks = {300}});
  seconds_a_prompt_token_ = 0.001;
  seconds_a_decode_ = 0.02;  // with which 40 prompt tokens make three of it
  Enqueue(4, 20);
  EXPECT_EQ(Step(), (std::pair{4, 0}));
  Enqueue(300, 20);
  EXPECT_EQ(Step(), (std::pair{16, 1}));  // nothing is known of a decode step yet
  EXPECT_EQ(Step(), (std::pair{32, 1}));
  EXPECT_EQ(Step(), (std::pair{40, 1}));
  EXPECT_EQ(Step(), (std::pair{40, 1}));
  seconds_a_prompt_token_ = 0.01;  // slower than any bound allows
  for (int i = 0; i < 5; ++i) Step();
  EXPECT_EQ(Step(), (std::pair{16, 1}));
  batcher_->EndSequence(1, 0);
  // Alone all that is left.
  EXPECT_EQ(Step().first, 300 - 16 - 32 - 3 * 40 - 4 * 16 - 16);
}

TEST_F(BatcherTest, TheQueueIsServedInOrderAndNobodyOvertakes) {
  Make(4, /*blocks=*/6);
  Enqueue(8, 5);   // 3 blocks
  Enqueue(12, 5);  // 4 blocks: must wait
  Enqueue(2, 2);   // would fit
  Step();
  EXPECT_EQ(admitted_, (Ids{{1, 0}}));
  EXPECT_EQ(batcher_->gauges().requests_waiting, 2);
  EXPECT_EQ(batcher_->gauges().queue_tokens, 14);
  EXPECT_EQ(batcher_->startable(), 0);
  Step(kEnd);  // ends the first
  Step();
  EXPECT_EQ(admitted_, (Ids{{2, 0}, {3, 0}}));
  EXPECT_EQ(batcher_->gauges().requests_waiting, 0);
  EXPECT_EQ(batcher_->startable(), 2);
}

TEST_F(BatcherTest, ARequestStartsWithItsFirstSequence) {
  Make(2, 30);
  Enqueue(2, 3, /*n=*/3);
  Step();
  EXPECT_EQ(admitted_, (Ids{{1, 0}, {1, 1}}));
  EXPECT_EQ(batcher_->gauges().requests_running, 1);
  EXPECT_EQ(batcher_->gauges().requests_waiting, 0);
  EXPECT_EQ(batcher_->startable(), 0);
  batcher_->EndSequence(1, 0);
  Step();
  EXPECT_EQ(admitted_, (Ids{{1, 2}}));
  Step();
  EXPECT_EQ(Tokens().at({1, 1}), TokenRole::kLast);
  EXPECT_FALSE(batcher_->empty());
  Step();
  EXPECT_EQ(Tokens().at({1, 2}), TokenRole::kLast);
  ExpectEmpty();
}

TEST_F(BatcherTest, AnEndFoundInTheTextFreesTheSequence) {
  Make(2, 8);
  Enqueue(5, 9);
  Step();
  batcher_->EndSequence(1, 0);
  ExpectEmpty();
  batcher_->EndSequence(1, 0);  // it may have ended meanwhile
  ExpectEmpty();
}

TEST_F(BatcherTest, OnlyScoringTakesOneSequenceAndSamplesNothing) {
  Make(4, 8);
  Request request;
  request.prompt.assign(12, 5);
  request.logprobs = LogprobOptions{.top = 1, .prompt = true};
  request.n = 3;
  Enqueue(std::move(request));
  EXPECT_EQ(Step(), (std::pair{8, 0}));
  EXPECT_EQ(events_.size(), 8u);
  EXPECT_EQ(admitted_.size(), 1u);
  EXPECT_EQ(Step(), (std::pair{4, 0}));
  ASSERT_EQ(events_.size(), 4u);  // 3 scores, and ready
  EXPECT_TRUE(std::holds_alternative<ScoredEvent>(events_[3].what));
  ExpectEmpty();
}

TEST_F(BatcherTest, CancelledRequestsLeaveWhereverTheyAre) {
  Make(2, 30);
  const auto decoding = Enqueue(2, 9);
  const auto prefilling = Enqueue(20, 9);
  const auto waiting = Enqueue(3, 9);
  const auto stays = Enqueue(4, 2);
  Step();
  for (const auto& context : {decoding, prefilling, waiting}) {
    context->stream->Cancel(absl::StatusCode::kCancelled);
  }
  EXPECT_TRUE(batcher_->EndCancelled(Clock::now(), /*look=*/false).empty());
  const std::vector<Batcher::Ended> ended = batcher_->EndCancelled(Clock::now(), /*look=*/true);
  ASSERT_EQ(ended.size(), 3u);
  EXPECT_EQ(ended[0].context, decoding);
  EXPECT_EQ(ended[0].reason, absl::StatusCode::kCancelled);
  EXPECT_EQ(ended[1].context, prefilling);
  EXPECT_EQ(ended[2].context, waiting);
  // The third held nothing.
  EXPECT_EQ(batcher_->TakeFreed(),
            (std::vector{decoding->stream->cancel_time(), prefilling->stream->cancel_time()}));
  EXPECT_TRUE(batcher_->TakeFreed().empty());
  EXPECT_EQ(batcher_->gauges().kv_blocks_used, 0);
  EXPECT_EQ(batcher_->gauges().queue_tokens, 4);
  Step();
  EXPECT_EQ(admitted_, (Ids{{stays->number, 0}}));
  Step();
  ExpectEmpty();
}

TEST_F(BatcherTest, ACancellationBeforeTheRequestCameIsSeen) {
  Make(2, 8);
  Request request;
  request.prompt = {5};
  request.max_new_tokens = 1;
  auto stream = std::make_shared<TokenStream>(nullptr);
  stream->Cancel(absl::StatusCode::kUnavailable);
  batcher_->Enqueue(MakeRequestContext(1, std::move(request), stream, {kEnd}));
  const auto ended = batcher_->EndCancelled(Clock::now(), /*look=*/false);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].reason, absl::StatusCode::kUnavailable);
  ExpectEmpty();
}

TEST_F(BatcherTest, DeadlinesAreWatchedWithoutASignal) {
  Make(1, 8);
  const Clock::time_point now = Clock::now();
  Request request;
  request.prompt = {5};
  request.max_new_tokens = 9;
  request.deadline = now + seconds(20);
  Enqueue(request);
  request.deadline = now + seconds(10);
  const auto waits = Enqueue(request);
  Step();
  EXPECT_TRUE(batcher_->EndCancelled(now + seconds(9), false).empty());
  auto ended = batcher_->EndCancelled(now + seconds(10), false);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].context, waits);
  EXPECT_EQ(ended[0].reason, absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(batcher_->TakeFreed().empty());
  ended = batcher_->EndCancelled(now + seconds(21), false);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(batcher_->TakeFreed(), std::vector{now + seconds(20)});
  ExpectEmpty();
}

TEST_F(BatcherTest, EndAllLeavesNothing) {
  Make(2, 30);
  for (int i = 0; i < 4; ++i) Enqueue(3, 5, /*n=*/2);
  Step();
  batcher_->EndAll();
  ExpectEmpty();
  EXPECT_EQ(batcher_->startable(), 2);
}

TEST_F(BatcherTest, AResultThatDoesNotFitThePlanIsAnError) {
  Make(2, 8);
  const auto finish = [&](const StepResult& result) {
    return batcher_->FinishStep(result, Clock::now(), &events_).status().code();
  };
  const std::vector<TokenScore> one(1, TokenScore{});
  EXPECT_EQ(finish({}), absl::StatusCode::kInternal);  // nothing was planned
  Enqueue(3, 5);
  batcher_->Admit();
  batcher_->PlanStep();
  EXPECT_EQ(finish({}), absl::StatusCode::kInternal);
  StepResult result;
  result.prefill.sampled = one;
  result.decode.sampled = one;
  EXPECT_EQ(finish(result), absl::StatusCode::kInternal);
  result.decode.sampled = {};
  EXPECT_EQ(finish(result), absl::StatusCode::kOk);
}

// --- preemption ---

TEST_F(BatcherTest, TheNewestIsPreemptedWhenBlocksAreShortAndGoesOnLater) {
  Make(3, /*blocks=*/6);
  Enqueue(8, 9);  // 2 blocks, of 4 in the end
  Enqueue(7, 7);  // 2 blocks, of 4
  EXPECT_EQ(Step(), (std::pair{8, 0}));
  EXPECT_EQ(Step(), (std::pair{7, 1}));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Step(), (std::pair{0, 2}));
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
  // Its prompt and the four tokens it had are computed again; the fifth is sampled.
  admitted_.clear();
  EXPECT_EQ(Step(), (std::pair{8, 0}));
  EXPECT_EQ(admitted_, (Ids{{2, 0}}));
  EXPECT_TRUE(Tokens().empty());
  EXPECT_EQ(Step(), (std::pair{3, 0}));
  EXPECT_EQ(Tokens().at({2, 0}), TokenRole::kText);
  EXPECT_EQ(Step(), (std::pair{0, 1}));
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
    Enqueue(8, 9);
    const auto second = Enqueue(7, 9);
    while (batcher_->TakePreemptions() == 0) Step();
    if (cancel) {
      second->stream->Cancel(absl::StatusCode::kCancelled);
      EXPECT_EQ(batcher_->EndCancelled(Clock::now(), /*look=*/true).size(), 1u);
    } else {
      batcher_->EndSequence(second->number, 0);
    }
    EXPECT_TRUE(batcher_->TakeFreed().empty());  // it held nothing
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

// --- steps planned before the tokens of the step before are known ---

TEST_F(BatcherTest, ASequenceDecodesBeforeItsFirstTokenIsKnownAndLeavesAtItsLength) {
  Make(2, 8, /*run_ahead=*/1);
  Enqueue(5, 3);
  batcher_->Admit();
  EXPECT_EQ(Plan(), (std::pair{5, 0}));
  EXPECT_EQ(Plan(), (std::pair{0, 1}));
  ASSERT_TRUE(Finish().ok());
  EXPECT_EQ(Tokens().at({1, 0}), TokenRole::kText);
  EXPECT_EQ(Plan(), (std::pair{0, 1}));
  ASSERT_TRUE(Finish().ok());
  // Its third token is on its way: it is in no further step, and has all it had until then.
  EXPECT_EQ(Plan(), (std::pair{0, 0}));
  EXPECT_EQ(batcher_->in_flight(), 1);
  EXPECT_EQ(batcher_->gauges().kv_blocks_used, 2);
  EXPECT_EQ(batcher_->gauges().requests_running, 1);
  const auto figures = Finish();
  ASSERT_TRUE(figures.ok());
  EXPECT_EQ(figures->decode_rows, 1);
  EXPECT_EQ(figures->overrun_rows, 0);
  EXPECT_EQ(Tokens().at({1, 0}), TokenRole::kLast);
  EXPECT_EQ(batcher_->startable(), 2);
  ExpectEmpty();
}

TEST_F(BatcherTest, AnEndThatATokenTellsLeavesOneOverrunRow) {
  Make(1, 8, /*run_ahead=*/1);
  Enqueue(5, 9);
  Enqueue(2, 2);
  batcher_->Admit();
  Plan();
  Plan();
  ASSERT_TRUE(Finish(kEnd).ok());
  EXPECT_EQ(Tokens().at({1, 0}), TokenRole::kEndToken);
  // The request is over; its lane and blocks are in the step that was launched meanwhile.
  EXPECT_EQ(batcher_->gauges().requests_running, 0);
  EXPECT_EQ(batcher_->gauges().kv_blocks_used, 2);
  EXPECT_TRUE(batcher_->Admit().empty());
  EXPECT_EQ(Plan(), (std::pair{0, 0}));
  const auto figures = Finish();
  ASSERT_TRUE(figures.ok());
  EXPECT_EQ(figures->decode_rows, 1);
  EXPECT_EQ(figures->overrun_rows, 1);
  EXPECT_TRUE(Tokens().empty());
  EXPECT_EQ(batcher_->gauges().kv_blocks_used, 0);
  EXPECT_EQ(batcher_->Admit().size(), 1u);
}

TEST_F(BatcherTest, CancelledSequencesAreFreeWhenTheirLastStepHasEnded) {
  Make(2, 16, /*run_ahead=*/1);
  const auto decoding = Enqueue(2, 9);
  const auto prefilling = Enqueue(20, 9);
  batcher_->Admit();
  EXPECT_EQ(Plan(), (std::pair{8, 0}));
  EXPECT_EQ(Plan(), (std::pair{8, 1}));
  ASSERT_TRUE(Finish().ok());
  for (const auto& context : {decoding, prefilling}) {
    context->stream->Cancel(absl::StatusCode::kCancelled);
  }
  EXPECT_EQ(batcher_->EndCancelled(Clock::now(), /*look=*/true).size(), 2u);
  EXPECT_TRUE(batcher_->empty());
  EXPECT_TRUE(batcher_->TakeFreed().empty());
  EXPECT_GT(batcher_->gauges().kv_blocks_used, 0);
  EXPECT_EQ(batcher_->startable(), 0);
  EXPECT_EQ(Plan(), (std::pair{0, 0}));
  const auto figures = Finish();
  ASSERT_TRUE(figures.ok());
  EXPECT_EQ(figures->prefill_tokens, 8);
  EXPECT_EQ(figures->overrun_rows, 1);
  EXPECT_TRUE(events_.empty());
  EXPECT_EQ(batcher_->TakeFreed().size(), 2u);
  EXPECT_EQ(batcher_->startable(), 2);
  ExpectEmpty();
}

TEST_F(BatcherTest, AnEndFoundInTheTextLeavesAnOverrunRowToo) {
  Make(2, 8, /*run_ahead=*/1);
  Enqueue(5, 9);
  batcher_->Admit();
  Plan();
  Plan();
  ASSERT_TRUE(Finish().ok());
  batcher_->EndSequence(1, 0);
  batcher_->EndSequence(1, 0);
  EXPECT_TRUE(batcher_->empty());
  EXPECT_EQ(batcher_->in_flight(), 1);
  EXPECT_EQ(Finish()->overrun_rows, 1);
  EXPECT_TRUE(batcher_->TakeFreed().empty());  // nobody cancelled it
  ExpectEmpty();
}

TEST_F(BatcherTest, APreemptedSequenceKeepsTheTokenThatIsOnItsWay) {
  Make(2, /*blocks=*/6, /*run_ahead=*/1);
  Enqueue(8, 9);
  Enqueue(7, 9);
  batcher_->Admit();
  EXPECT_EQ(Plan(), (std::pair{8, 0}));
  EXPECT_EQ(Plan(), (std::pair{7, 1}));
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
  EXPECT_EQ(computed.first, 7 + 4);
  EXPECT_EQ(tokens, 9);
  ExpectEmpty();
}

TEST_F(BatcherTest, AbandonedStepsLeaveNothing) {
  Make(2, 30, /*run_ahead=*/1);
  for (int i = 0; i < 4; ++i) Enqueue(3, 5, /*n=*/2);
  batcher_->Admit();
  Plan();
  Plan();
  batcher_->EndAll();
  EXPECT_GT(batcher_->gauges().kv_blocks_used, 0);
  batcher_->AbandonSteps();
  EXPECT_EQ(batcher_->in_flight(), 0);
  EXPECT_EQ(batcher_->startable(), 2);
  ExpectEmpty();
}

}  // namespace
}  // namespace sirocco
