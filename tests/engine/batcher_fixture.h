// A batcher whose steps a test plays itself.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "engine/batcher.h"

namespace sirocco {

inline constexpr int32_t kEnd = 2;

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
    refused_ = batcher_->Enqueue(context, now_).has_value();
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
    int32_t prompt_tokens = 0;
    for (const PrefillChunk& chunk : plans_.front().prefill.chunks) {
      samples += chunk.sample ? 1 : 0;
      scores += chunk.score_count;
      prompt_tokens += chunk.count;
    }
    const double prefill_seconds = prompt_tokens == 0 ? 0 : PrefillSeconds(prompt_tokens);
    const std::vector<TokenScore> sampled(samples, score), scored(scores, score);
    const std::vector<TokenScore> decoded(plans_.front().decode.lanes.size(), score);
    const double decode_seconds = decoded.empty() ? 0 : DecodeSeconds(decoded.size());
    took_ = prefill_seconds + decode_seconds;
    plans_.pop_front();
    events_.clear();
    return batcher_->FinishStep({.prefill = {.sampled = sampled, .scored = scored},
                                 .decode = {.sampled = decoded},
                                 .prefill_seconds = prefill_seconds,
                                 .decode_seconds = decode_seconds},
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

  // What steps take.
  virtual double PrefillSeconds(int32_t tokens) const {
    const double seconds = tokens * seconds_a_prompt_token_;
    return seconds > 0 ? seconds + seconds_a_prefill_ : 0;
  }
  virtual double DecodeSeconds(size_t rows) const {
    return seconds_a_decode_ + rows * seconds_a_row_;
  }

  using Ids = std::vector<std::pair<uint64_t, int32_t>>;
  double seconds_a_prefill_ = 0, seconds_a_prompt_token_ = 0;
  double seconds_a_decode_ = 0, seconds_a_row_ = 0;
  double took_ = 0;  // the last step
  uint64_t next_number_ = 1;
  std::unique_ptr<Batcher> batcher_;
  const Clock::time_point now_ = Clock::now();
  bool refused_ = false;  // the last request
  bool came_ = false;     // a token that a test waits for
  Ids admitted_;
  std::deque<sirocco::Step> plans_;  // that have not ended
  std::vector<Event> events_;
};

}  // namespace sirocco
