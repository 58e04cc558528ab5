#include "engine/request_output.h"

#include <chrono>
#include <utility>

namespace sirocco {
namespace {

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

RequestOutput::RequestOutput(std::shared_ptr<const RequestContext> context,
                             const Tokenizer* tokenizer, EngineObserver* observer)
    : context_(std::move(context)), observer_(observer), sequences_left_(context_->request.n) {
  sequences_.reserve(context_->request.n);
  for (int32_t i = 0; i < context_->request.n; ++i)
    sequences_.emplace_back(*context_, i, tokenizer);
  if (context_->scores_prompt()) prompt_logprobs_.resize(1);  // the first token has none
}

void RequestOutput::On(const PromptScoreEvent& event) {
  prompt_logprobs_.push_back(ToTokenLogprob(event.score));
}

void RequestOutput::On(const ScoredEvent& event) {
  prompt_scored_ = true;
  for (SequenceOutput& sequence : sequences_) {
    sequence.EndScored();
    SequenceEnded(FinishReason::kLength, event.time);
  }
}

bool RequestOutput::On(const TokenEvent& event) {
  SequenceOutput& sequence = sequences_[event.index];
  if (sequence.ended()) return true;
  prompt_scored_ = context_->scores_prompt();
  if (!prompt_done_) prompt_done_ = event.time;
  if (const auto last = sequence.last_token(); last) {
    observer_->OnInterToken(Seconds(event.time - *last));
  } else {
    observer_->OnFirstToken(Seconds(event.time - context_->came));
  }
  ++new_tokens_;
  sequence.Append(event);
  if (sequence.ended()) SequenceEnded(sequence.finish_reason(), event.time);
  return !sequence.ended_by_string();
}

void RequestOutput::On(EndedEvent&& event) {
  for (const SequenceOutput& sequence : sequences_) {
    if (!sequence.ended()) observer_->OnSequenceFinished(FinishReason::kNone);
  }
  Done(std::move(event.status), event.time);
}

void RequestOutput::SequenceEnded(FinishReason reason, Clock::time_point time) {
  observer_->OnSequenceFinished(reason);
  if (--sequences_left_ > 0) return;
  observer_->OnRequestFinished(Seconds(time - context_->came));
  Done(absl::OkStatus(), time);
}

void RequestOutput::Done(absl::Status status, Clock::time_point time) {
  done_ = true;
  update_.done = true;
  update_.status = std::move(status);
  update_.seed = context_->request.sampling.seed;
  update_.timing = TimingAt(time);
  if (started_) update_.stage = prompt_done_ ? RequestStage::kDecode : RequestStage::kPrefill;
  update_.usage.prompt_tokens = context_->prompt_length();
  update_.usage.cached_prompt_tokens = cached_tokens_;
  for (const SequenceOutput& sequence : sequences_) {
    update_.usage.completion_tokens += sequence.tokens();
  }
}

RequestTiming RequestOutput::TimingAt(Clock::time_point end) const {
  const Clock::time_point started = started_.value_or(end);
  const Clock::time_point prompt_done = prompt_done_.value_or(end);
  return {.queue = started - context_->came,
          .prefill = prompt_done - started,
          .decode = end - prompt_done};
}

void RequestOutput::Flush() {
  touched_ = false;
  // Counted before the client can have it: who has seen the end finds exact counters.
  if (new_tokens_ > 0) observer_->OnGeneratedTokens(std::exchange(new_tokens_, 0));
  StreamUpdate update = std::exchange(update_, {});
  if (prompt_scored_) update.prompt_logprobs = std::exchange(prompt_logprobs_, {});
  for (SequenceOutput& sequence : sequences_) {
    if (std::optional<OutputDelta> delta = sequence.TakeDelta(); delta) {
      update.deltas.push_back(*std::move(delta));
    }
  }
  if (!update.empty()) context_->stream->Put(std::move(update));
}

}  // namespace sirocco
