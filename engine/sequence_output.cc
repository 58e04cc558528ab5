#include "engine/sequence_output.h"

#include <string>
#include <utility>

namespace sirocco {

TokenLogprob ToTokenLogprob(const TokenScore& score) {
  TokenLogprob logprob;
  logprob.token_id = score.token_id;
  logprob.logprob = score.logprob;
  logprob.rank = score.rank;
  logprob.alternatives.reserve(score.top_count);
  for (int32_t i = 0; i < score.top_count; ++i) {
    logprob.alternatives.emplace_back(score.top_ids[i], score.top_logprobs[i]);
  }
  return logprob;
}

SequenceOutput::SequenceOutput(const RequestContext& context, int32_t index,
                               const Tokenizer* tokenizer)
    : context_(context),
      stop_matcher_(context.request.stop.strings, context.request.stop.include_stop_in_output) {
  if (tokenizer != nullptr) {
    detokenizer_.emplace(*tokenizer, /*skip_special_tokens=*/true, /*continues=*/true);
  }
  delta_.index = index;
  // What was given may begin a stop string, and ends none. It is shown with what comes first.
  delta_.text = stop_matcher_.Feed(context.request.answer_prefix, /*check=*/false).text;
}

void SequenceOutput::Append(const TokenEvent& token) {
  changed_ = true;
  ++tokens_;
  last_token_ = token.time;
  delta_.token_ids.push_back(token.score.token_id);
  if (context_.request.logprobs) {
    delta_.logprobs.push_back(ToTokenLogprob(token.score));
    cumulative_logprob_ += token.score.logprob;
  }
  if (AppendText(token)) return;
  switch (token.role) {
    case TokenRole::kText:
      return;
    case TokenRole::kEndToken:
      return Finish(FinishReason::kStop, "");
    case TokenRole::kStopToken:
      return Finish(FinishReason::kStop, std::to_string(token.score.token_id));
    case TokenRole::kLast:
      return Finish(FinishReason::kLength, "");
  }
}

bool SequenceOutput::AppendText(const TokenEvent& token) {
  if (!detokenizer_) return false;
  const bool by_token = token.role == TokenRole::kEndToken || token.role == TokenRole::kStopToken;
  const bool shown = !by_token || (token.role == TokenRole::kStopToken &&
                                   context_.request.stop.include_stop_in_output);
  std::string piece;
  if (shown) piece = detokenizer_->Append(token.score.token_id);
  if (token.role != TokenRole::kText) piece += detokenizer_->Finish();
  // Where a token has ended the output, its own text can no longer end it by a string.
  const bool check = !by_token && tokens_ > context_.request.sampling.min_new_tokens;
  StopMatcher::Result result = stop_matcher_.Feed(piece, check);
  delta_.text += result.text;
  if (result.stop) {
    ended_by_string_ = token.role == TokenRole::kText;
    Finish(FinishReason::kStop, context_.request.stop.strings[*result.stop]);
    return true;
  }
  if (token.role != TokenRole::kText) delta_.text += stop_matcher_.Finish();
  return false;
}

void SequenceOutput::EndScored() {
  delta_.text += stop_matcher_.Finish();
  Finish(FinishReason::kLength, "");
}

void SequenceOutput::Finish(FinishReason reason, std::string stop_reason) {
  changed_ = true;
  finish_reason_ = reason;
  delta_.finish_reason = reason;
  delta_.stop_reason = std::move(stop_reason);
  delta_.cumulative_logprob = cumulative_logprob_;
}

std::optional<OutputDelta> SequenceOutput::TakeDelta() {
  if (!std::exchange(changed_, false)) return std::nullopt;
  OutputDelta next;
  next.index = delta_.index;
  return std::exchange(delta_, std::move(next));
}

}  // namespace sirocco
