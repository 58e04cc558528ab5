// A request on the delivery side: puts its sequences' output together and tells the observer what
// the client is given.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/events.h"
#include "engine/observer.h"
#include "engine/sequence_output.h"
#include "engine/token_stream.h"
#include "engine/tokenizer/tokenizer.h"

namespace sirocco {

// One delivery thread. Events of a request that is done are not given to it.
class RequestOutput {
 public:
  RequestOutput(std::shared_ptr<const RequestContext> context, const Tokenizer* tokenizer,
                EngineObserver* observer);

  void On(const StartedEvent& event) { started_ = event.time; }
  void On(const CachedEvent& event) { cached_tokens_ = event.tokens; }
  void On(const PromptScoreEvent& event);
  void On(const SearchingEvent& event) { prompt_done_ = event.time; }
  void On(const ScoredEvent& event);
  // False: the token completed a stop string, which the engine cannot know. Tokens of a sequence
  // that has ended are dropped.
  bool On(const TokenEvent& event);
  void On(EndedEvent&& event);

  // True once between two flushes: this request is to be flushed.
  bool Touch() { return !std::exchange(touched_, true); }
  // Gives what has come since the last call to the stream.
  void Flush();
  bool done() const { return done_; }
  const RequestContext& context() const { return *context_; }

 private:
  void SequenceEnded(FinishReason reason, Clock::time_point time);
  void Done(absl::Status status, Clock::time_point time);
  RequestTiming TimingAt(Clock::time_point end) const;

  std::shared_ptr<const RequestContext> context_;
  EngineObserver* observer_;
  std::vector<SequenceOutput> sequences_;  // by index
  int32_t sequences_left_;
  std::vector<TokenLogprob> prompt_logprobs_;
  bool prompt_scored_ = false;  // complete: goes with the next update
  // The latter: of a search before its tokens, else with the first of them.
  std::optional<Clock::time_point> started_, prompt_done_;
  int32_t cached_tokens_ = 0;  // of the prompt
  int32_t new_tokens_ = 0;     // not told to the observer yet
  StreamUpdate update_;        // the parts that come with the end
  bool touched_ = false;
  bool done_ = false;
};

}  // namespace sirocco
