#include <chrono>
#include <variant>

#include "tests/engine/batcher_fixture.h"

namespace sirocco {
namespace {

using std::chrono::seconds;

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
  EXPECT_EQ(Step(), (std::pair{0, 2}));  // prompts were last
  EXPECT_EQ(Step(), (std::pair{2, 0}));  // the third joins; the first has left
  EXPECT_EQ(Step(), (std::pair{0, 2}));
  EXPECT_EQ(Step(), (std::pair{0, 2}));
  ExpectEmpty();
}

// Neither waits for more than one step of the other kind.
TEST_F(BatcherTest, PromptsAndTheBatchTakeTurns) {
  Make(4, 60);
  Enqueue(2, 20);
  Step();
  Enqueue(40, 2);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Step(), (std::pair{0, 1}));
    EXPECT_EQ(Step(), (std::pair{8, 0}));
  }
  EXPECT_EQ(Tokens().size(), 1u);  // the prompt's is known before the others' next ones
  EXPECT_EQ(Step(), (std::pair{0, 2}));
  EXPECT_EQ(Step(), (std::pair{0, 1}));
  // Who comes before the batch's turn is over is in the next step.
  Enqueue(3, 1);
  EXPECT_EQ(Step(), (std::pair{3, 0}));
}

TEST_F(BatcherTest, PromptsShareAStepUpToTheChunkSize) {
  Make(3, 30);
  Enqueue(5, 2);
  Enqueue(14, 2);
  EXPECT_EQ(Step(), (std::pair{8, 0}));  // 5 and 3
  EXPECT_EQ(Tokens().size(), 1u);
  Enqueue(2, 2);
  EXPECT_EQ(Step(), (std::pair{0, 1}));
  EXPECT_EQ(Step(), (std::pair{8, 0}));  // 8 of 14; the third waits for its turn
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
  int32_t computed = 0;
  const auto prompt_tokens = [&] {
    EXPECT_EQ(Step(), (std::pair{0, 1}));
    const auto [tokens, rows] = Step();
    EXPECT_EQ(rows, 0);
    computed += tokens;
    return tokens;
  };
  EXPECT_EQ(prompt_tokens(), 16);  // of prompts four tokens are known
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(prompt_tokens(), 40, 1);
  seconds_a_prompt_token_ = 0.01;  // slower than any bound allows
  for (int i = 0; i < 5; ++i) prompt_tokens();
  EXPECT_EQ(prompt_tokens(), 16);
  batcher_->EndSequence(1, 0);
  EXPECT_GT(Step().first, 16);  // nobody's time counts any more
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
  EXPECT_EQ(admitted_, (Ids{{2, 0}}));
  Step();  // what is left of that prompt fits a step: the next may have a lane
  EXPECT_EQ(admitted_, (Ids{{3, 0}}));
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
  EXPECT_EQ(Step(), (std::pair{2, 0}));
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
  batcher_->Enqueue(MakeRequestContext(1, std::move(request), stream, {kEnd}), now_);
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
  EXPECT_EQ(Plan(), (std::pair{0, 1}));
  ASSERT_TRUE(Finish().ok());
  EXPECT_EQ(Plan(), (std::pair{8, 0}));
  for (const auto& context : {decoding, prefilling}) {
    context->stream->Cancel(absl::StatusCode::kCancelled);
  }
  EXPECT_EQ(batcher_->EndCancelled(Clock::now(), /*look=*/true).size(), 2u);
  EXPECT_TRUE(batcher_->empty());
  EXPECT_TRUE(batcher_->TakeFreed().empty());
  EXPECT_GT(batcher_->gauges().kv_blocks_used, 0);
  EXPECT_EQ(batcher_->startable(), 0);
  auto figures = Finish();
  ASSERT_TRUE(figures.ok());
  EXPECT_EQ(Plan(), (std::pair{0, 0}));
  EXPECT_EQ(figures->overrun_rows, 1);
  EXPECT_TRUE(events_.empty());
  EXPECT_EQ(batcher_->TakeFreed(), std::vector{decoding->stream->cancel_time()});
  figures = Finish();
  ASSERT_TRUE(figures.ok());
  EXPECT_EQ(figures->prefill_tokens, 8);
  EXPECT_TRUE(events_.empty());
  EXPECT_EQ(batcher_->TakeFreed(), std::vector{prefilling->stream->cancel_time()});
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
