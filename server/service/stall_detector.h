// Tells whether an engine has stopped finishing steps.
#pragma once

#include <algorithm>

#include "engine/request.h"

namespace sirocco {

// Looked at from time to time, by one thread.
class StallDetector {
 public:
  explicit StallDetector(Clock::duration timeout) : timeout_(timeout) {}

  // Stalled: work was there at each look of `timeout`, and no step has ended since the first. An
  // engine that had nothing to do starts anew: its last step may be hours old.
  bool Stalled(bool has_work, Clock::time_point last_step, Clock::time_point now) {
    if (!has_work) idle_ = now;
    return now - std::max(idle_, last_step) > timeout_;
  }

 private:
  const Clock::duration timeout_;
  Clock::time_point idle_ = Clock::now();  // when there was last no work
};

}  // namespace sirocco
