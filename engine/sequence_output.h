// From a sequence's tokens to what its client sees: text, stop strings, logprobs, the end.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/events.h"
#include "engine/sequence.h"
#include "engine/token_stream.h"
#include "engine/tokenizer/detokenizer.h"
#include "engine/tokenizer/stop_matcher.h"
#include "engine/tokenizer/tokenizer.h"

namespace sirocco {

// Text begins with the request's answer_prefix, as it was given. It shows no special token and no
// end token, and a stop token only with include_stop_in_output, as vLLM's
// include_stop_str_in_output does. One delivery thread.
class SequenceOutput {
 public:
  // Without a tokenizer (null) texts are empty.
  SequenceOutput(const RequestContext& context, int32_t index, const Tokenizer* tokenizer);

  // Takes the next token; not after the end.
  void Append(const TokenEvent& token);
  // Ends without a token, by length.
  void EndScored();

  bool ended() const { return finish_reason_ != FinishReason::kNone; }
  FinishReason finish_reason() const { return finish_reason_; }
  // The end was found here, in the text: the engine does not know it.
  bool ended_by_string() const { return ended_by_string_; }
  int32_t tokens() const { return tokens_; }
  std::optional<Clock::time_point> last_token() const { return last_token_; }

  // What is new since the last call; none if nothing is.
  std::optional<OutputDelta> TakeDelta();

 private:
  // Adds the token's text; true if it completed a stop string.
  bool AppendText(const TokenEvent& token);
  void Finish(FinishReason reason, std::string stop_reason);

  const RequestContext& context_;
  std::optional<Detokenizer> detokenizer_;
  StopMatcher stop_matcher_;
  OutputDelta delta_;
  int32_t tokens_ = 0;
  double cumulative_logprob_ = 0;
  std::optional<Clock::time_point> last_token_;
  bool changed_ = false;
  FinishReason finish_reason_ = FinishReason::kNone;
  bool ended_by_string_ = false;
};

// A score as clients get it; logprob, rank and alternatives as they were asked.
TokenLogprob ToTokenLogprob(const TokenScore& score);

}  // namespace sirocco
