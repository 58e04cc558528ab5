// How many calls have not ended: a shutdown waits for them, and no longer. Any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "engine/request.h"

namespace sirocco {

class OpenCalls {
 public:
  // A call, as long as this lives.
  class Call {
   public:
    explicit Call(OpenCalls& calls) : calls_(calls) { calls_.Add(1); }
    ~Call() { calls_.Add(-1); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    OpenCalls& calls_;
  };

  // False: some had not ended at `until`.
  bool WaitUntilNone(Clock::time_point until) {
    std::unique_lock lock(mutex_);
    return none_.wait_until(lock, until, [this] { return count_ == 0; });
  }

 private:
  void Add(int64_t calls) {
    const std::lock_guard lock(mutex_);
    count_ += calls;
    if (count_ == 0) none_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable none_;
  int64_t count_ = 0;
};

}  // namespace sirocco
