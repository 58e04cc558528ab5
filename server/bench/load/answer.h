// A request of a load, and what came of it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace sirocco {

// Times are seconds on the LoadClock.
struct LoadRequest {
  uint64_t index = 0;   // in its level
  double intended = 0;  // when it is meant to be sent; what comes later, it waited for
  int32_t prompt_length = 0;
  int32_t output_length = 0;  // tokens, exactly
};

struct TokenEvent {
  double time = 0;
  uint32_t tokens = 0;  // at least 1
};

struct Answer {
  LoadRequest request;
  double sent = 0;
  double ended = 0;
  uint64_t events = 0;             // all, those without a token too
  std::vector<TokenEvent> tokens;  // in their order
  absl::Status status;             // the call's; not OK also where the output was too short
};

}  // namespace sirocco
