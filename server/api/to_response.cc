#include "server/api/to_response.h"

#include <algorithm>
#include <chrono>

#include "server/api/utf8.h"

namespace sirocco {
namespace {

// Of an event without text, tokens and logprobs, its request_id excepted.
constexpr size_t kFixedEventBytes = 512;
// At most, on the wire: a token id; a logprob beside its own bytes.
constexpr size_t kTokenIdBytes = 5;
constexpr size_t kElementBytes = 8;

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kNone:
      break;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

// A prompt's first token has no logprob (rank 0): its message is empty.
v1::TokenLogprob ToProto(const TokenLogprob& logprob, const Tokenizer* tokenizer) {
  v1::TokenLogprob out;
  if (logprob.rank == 0) return out;
  const auto token = [&](int32_t id) {
    return tokenizer == nullptr ? std::string() : std::string(tokenizer->TokenBytes(id));
  };
  out.set_token_id(logprob.token_id);
  out.set_logprob(logprob.logprob);
  out.set_rank(logprob.rank);
  out.set_token(token(logprob.token_id));
  for (const auto& [id, value] : logprob.alternatives) {
    auto* candidate = out.add_top();
    candidate->set_token_id(id);
    candidate->set_logprob(value);
    candidate->set_token(token(id));
  }
  return out;
}

void SetDuration(Clock::duration value, google::protobuf::Duration& out) {
  const int64_t nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(value).count();
  out.set_seconds(nanos / 1'000'000'000);
  out.set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

// What a response and a stream's last event have alike.
template <typename Message>
void SetEnd(const StreamUpdate& update, Message& out) {
  v1::Usage& usage = *out.mutable_usage();
  usage.set_prompt_tokens(update.usage.prompt_tokens);
  usage.set_cached_prompt_tokens(update.usage.cached_prompt_tokens);
  usage.set_completion_tokens(update.usage.completion_tokens);
  v1::Timing& timing = *out.mutable_timing();
  SetDuration(update.timing.queue, *timing.mutable_queue());
  SetDuration(update.timing.prefill, *timing.mutable_prefill());
  SetDuration(update.timing.decode, *timing.mutable_decode());
  out.set_seed(update.seed);
}

template <typename Message>
void SetFinish(const OutputDelta& delta, Message& out) {
  out.set_finish_reason(ToProto(delta.finish_reason));
  out.set_stop_reason(delta.stop_reason);
  out.set_cumulative_logprob(delta.cumulative_logprob);
}

}  // namespace

v1::GenerateEvent EventMaker::NewEvent(int32_t index) const {
  v1::GenerateEvent event;
  event.set_request_id(request_id_);
  event.set_index(index);
  return event;
}

void EventMaker::AddPromptLogprobs(const std::vector<TokenLogprob>& logprobs,
                                   std::deque<v1::GenerateEvent>& events) const {
  size_t bytes = kMaxEventBytes;
  for (const TokenLogprob& logprob : logprobs) {
    v1::TokenLogprob message = ToProto(logprob, tokenizer_);
    const size_t size = message.ByteSizeLong() + kElementBytes;
    if (bytes + size > kMaxEventBytes) {
      events.push_back(NewEvent(0));
      bytes = kFixedEventBytes + request_id_.size();
    }
    *events.back().add_prompt_logprobs() = std::move(message);
    bytes += size;
  }
}

void EventMaker::AddDelta(const OutputDelta& delta, std::deque<v1::GenerateEvent>& events) {
  const bool finished = delta.finish_reason != FinishReason::kNone;
  std::string_view text = delta.text;
  const size_t tokens = std::max(delta.token_ids.size(), delta.logprobs.size());
  size_t next = 0;
  if (text.empty() && tokens == 0 && !finished) return;

  v1::GenerateEvent event;
  for (;;) {
    event = NewEvent(delta.index);
    size_t bytes = kFixedEventBytes + request_id_.size() + delta.stop_reason.size();
    const size_t length = Utf8PrefixLength(text, kMaxEventBytes - bytes);
    event.set_text(std::string(text.substr(0, length)));
    text.remove_prefix(length);
    bytes += length;
    const size_t first = next;
    for (; next < tokens; ++next) {
      v1::TokenLogprob logprob;
      size_t size = kTokenIdBytes;
      if (next < delta.logprobs.size()) {
        logprob = ToProto(delta.logprobs[next], tokenizer_);
        size += logprob.ByteSizeLong() + kElementBytes;
      }
      // An event takes at least something, so this ends.
      if (bytes + size > kMaxEventBytes && (next > first || length > 0)) break;
      if (next < delta.token_ids.size()) event.add_token_ids(delta.token_ids[next]);
      if (next < delta.logprobs.size()) *event.add_logprobs() = std::move(logprob);
      bytes += size;
    }
    if (text.empty() && next == tokens) break;
    events.push_back(std::move(event));
  }
  if (finished) {
    SetFinish(delta, event);
    if (--open_ <= 0) {
      held_ = std::move(event);
      return;
    }
  }
  events.push_back(std::move(event));
}

void EventMaker::Add(StreamUpdate update, std::deque<v1::GenerateEvent>& events) {
  AddPromptLogprobs(update.prompt_logprobs, events);
  for (const OutputDelta& delta : update.deltas) AddDelta(delta, events);
  if (!update.done) return;
  if (update.status.ok()) {
    if (!held_.has_value()) held_ = NewEvent(0);
    SetEnd(update, *held_);
  }
  if (held_.has_value()) events.push_back(*std::exchange(held_, std::nullopt));
}

ResponseMaker::ResponseMaker(std::string request_id, const Tokenizer* tokenizer, int32_t n)
    : tokenizer_(tokenizer) {
  response_.set_request_id(std::move(request_id));
  for (int32_t i = 0; i < n; ++i) response_.add_completions()->set_index(i);
}

void ResponseMaker::Add(StreamUpdate update) {
  for (const TokenLogprob& logprob : update.prompt_logprobs) {
    *response_.add_prompt_logprobs() = ToProto(logprob, tokenizer_);
  }
  for (const OutputDelta& delta : update.deltas) {
    if (delta.index < 0 || delta.index >= response_.completions_size()) continue;
    v1::Completion& out = *response_.mutable_completions(delta.index);
    out.mutable_text()->append(delta.text);
    out.mutable_token_ids()->Add(delta.token_ids.begin(), delta.token_ids.end());
    for (const TokenLogprob& logprob : delta.logprobs) {
      *out.add_logprobs() = ToProto(logprob, tokenizer_);
    }
    if (delta.finish_reason != FinishReason::kNone) SetFinish(delta, out);
  }
  if (update.done && update.status.ok()) SetEnd(update, response_);
}

}  // namespace sirocco
