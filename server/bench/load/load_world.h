// What a load runs in: time, and a server. Tests make both up.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "server/bench/load/answer.h"

namespace sirocco {

// Seconds since some beginning; never backwards. Any thread.
class LoadClock {
 public:
  virtual ~LoadClock() = default;
  virtual double Now() = 0;
  // Until `time`, or a Wake since the last return, or somewhat earlier. One thread at a time.
  virtual void SleepUntil(double time) = 0;
  virtual void Wake() = 0;
};

class SteadyClock final : public LoadClock {
 public:
  double Now() override;
  void SleepUntil(double time) override;
  void Wake() override;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
};

// Called for each request: any thread, one call at a time.
class AnswerListener {
 public:
  virtual ~AnswerListener() = default;
  virtual void OnTokens(uint32_t count) = 0;
  // Once, the last.
  virtual void OnEnd(const Answer& answer) = 0;
};

class LoadTarget {
 public:
  virtual ~LoadTarget() = default;
  // Returns at once. `listener` stays until OnEnd has returned. Any thread.
  virtual void Send(const LoadRequest& request, AnswerListener& listener) = 0;
};

}  // namespace sirocco
