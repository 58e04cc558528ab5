#include "engine/batcher.h"

#include <gtest/gtest.h>

#include <chrono>
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
    const Batcher::Plan plan = batcher_->PlanStep();
    TokenScore score = {};
    score.token_id = token;
    size_t samples = 0;
    size_t scores = 0;
    for (const PrefillChunk& chunk : plan.prefill.chunks) {
      samples += chunk.sample ? 1 : 0;
      scores += chunk.score_count;
    }
    const std::vector<TokenScore> sampled(samples, score), scored(scores, score);
    const std::vector<TokenScore> decoded(plan.decode.lanes.size(), score);
    const std::pair result(plan.prefill_tokens, static_cast<int32_t>(plan.decode.lanes.size()));
    events_.clear();
    const PrefillResult prefill = {.sampled = sampled, .scored = scored};
    EXPECT_TRUE(batcher_->FinishPrefill(prefill, Clock::now(), &events_).ok());
    EXPECT_TRUE(batcher_->FinishDecode({.sampled = decoded}, Clock::now(), &events_).ok());
    return result;
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

  void Make(int32_t lanes, int32_t blocks) {
    batcher_ = std::make_unique<Batcher>(BatcherOptions{
        .max_batch_size = lanes, .prefill_chunk_size = 8, .block_size = 4, .kv_blocks = {blocks}});
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
  uint64_t next_number_ = 1;
  std::unique_ptr<Batcher> batcher_;
  Ids admitted_;
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
  EXPECT_EQ(ended[0].stage, RequestStage::kDecode);
  EXPECT_EQ(ended[0].lanes, 1);
  EXPECT_EQ(ended[0].reason, absl::StatusCode::kCancelled);
  EXPECT_EQ(ended[0].since, decoding->stream->cancel_time());
  EXPECT_EQ(ended[1].context, prefilling);
  EXPECT_EQ(ended[1].stage, RequestStage::kPrefill);
  EXPECT_EQ(ended[2].context, waiting);
  EXPECT_EQ(ended[2].stage, RequestStage::kQueue);
  EXPECT_EQ(ended[2].lanes, 0);
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
  EXPECT_EQ(ended[0].stage, RequestStage::kQueue);
  EXPECT_EQ(ended[0].since, now + seconds(10));
  ended = batcher_->EndCancelled(now + seconds(21), false);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].stage, RequestStage::kDecode);
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
  Enqueue(3, 5);
  batcher_->Admit();
  batcher_->PlanStep();
  EXPECT_EQ(batcher_->FinishPrefill({}, Clock::now(), &events_).code(),
            absl::StatusCode::kInternal);
  const std::vector<TokenScore> one(1, TokenScore{});
  EXPECT_EQ(batcher_->FinishDecode({.sampled = one}, Clock::now(), &events_).code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace sirocco
