// What the engine thread tells the delivery threads of a request, in the order in which it
// happened.
#pragma once

#include <cstdint>
#include <memory>
#include <variant>

#include "absl/status/status.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "kernels/lanes.h"

namespace sirocco {

// The request was accepted: the first of its events.
struct OpenedEvent {
  std::shared_ptr<const RequestContext> context;
};
// Its first sequence has taken a lane.
struct StartedEvent {
  Clock::time_point time;
};
// The first sequence found so many tokens of its prompt in the cache.
struct CachedEvent {
  int32_t tokens = 0;
};
// The score of the next prompt token, from the second on; all come before the first token.
struct PromptScoreEvent {
  TokenScore score = {};
};
// The prompt of a beam search is done: tokens come in the end, all at once.
struct SearchingEvent {
  Clock::time_point time;
};
// A request that only scores is ready.
struct ScoredEvent {
  Clock::time_point time;
};
// A sequence has a new token; `time`: when the step ended.
struct TokenEvent {
  int32_t index = 0;
  TokenRole role = TokenRole::kText;
  Clock::time_point time;
  TokenScore score = {};
};
// The request was ended before its sequences were. Never OK.
struct EndedEvent {
  absl::Status status;
  Clock::time_point time;
};

struct Event {
  uint64_t request = 0;  // RequestContext::number
  std::variant<OpenedEvent, StartedEvent, CachedEvent, PromptScoreEvent, SearchingEvent,
               ScoredEvent, TokenEvent, EndedEvent>
      what;
};

}  // namespace sirocco
