// How many calls have not ended: a shutdown waits for them, and no longer. Any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "engine/request.h"

namespace sirocco {

class OpenCalls {
  struct State;

 public:
  // A call, as long as this lives: after the server too, where the engine was just telling it news.
  class Call {
   public:
    explicit Call(OpenCalls& calls) : calls_(calls.state_) { calls_->Add(1); }
    ~Call() { calls_->Add(-1); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    const std::shared_ptr<State> calls_;
  };

  // False: some had not ended at `until`.
  bool WaitUntilNone(Clock::time_point until) {
    std::unique_lock lock(state_->mutex);
    return state_->none.wait_until(lock, until, [this] { return state_->count == 0; });
  }

 private:
  struct State {
    void Add(int64_t calls) {
      const std::lock_guard lock(mutex);
      count += calls;
      if (count == 0) none.notify_all();
    }

    std::mutex mutex;
    std::condition_variable none;
    int64_t count = 0;
  };

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace sirocco
