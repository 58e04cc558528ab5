// The way into the engine thread: what comes from outside waits here until the next step begins.
// Its mutex is the only one that the engine thread shares with callers; it is held to move
// pointers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/delivery.h"
#include "engine/sequence.h"

namespace sirocco {

struct InboxLimits {
  int32_t max_queue_size = 1024;  // requests that wait
  int64_t max_queue_tokens = 0;   // prompt tokens that wait; 0: no bound
  int64_t max_open = 0;           // requests whose end is not delivered yet
};

class Inbox {
 public:
  explicit Inbox(const InboxLimits& limits) : limits_(limits) {}

  struct Refusal {
    absl::Status status;
    std::string_view reason;  // of sirocco_rejected_total; empty: not counted there
  };
  // None: accepted, and opened at `delivery`. Any thread.
  std::optional<Refusal> Push(std::shared_ptr<const RequestContext> context, Delivery& delivery);
  // A sequence whose end was found in its text; each at most once. Delivery threads.
  void PushEnd(uint64_t request, int32_t index);

  // From now on Push refuses with this; the first call counts. Any thread.
  void Close(absl::Status status, std::string_view reason);
  // The engine is to end all that it has, or to stop. Any thread.
  void EndAll();
  void Stop();
  absl::Status closed() const;

  struct Contents {
    std::vector<std::shared_ptr<const RequestContext>> requests;
    std::vector<std::pair<uint64_t, int32_t>> ends;
    bool end_all = false;  // of what was there before these requests came, and of them
  };
  // Empties the inbox; with `wait` (the engine is idle) when something has come. False: stop.
  // Engine thread.
  bool Take(bool wait, Contents* contents);
  // What waits in the batcher, and how many requests could start at once. Engine thread.
  void SetWaiting(int32_t requests, int64_t tokens, int32_t startable);

  // The engine has, or will soon have, something to do; and since when.
  bool busy() const { return busy_.load(std::memory_order_acquire); }
  Clock::time_point busy_since() const {
    return Clock::time_point(Clock::duration(busy_since_.load(std::memory_order_acquire)));
  }

 private:
  std::optional<Refusal> RefusalOf(const RequestContext& context, const Delivery& delivery) const;
  void WakeLocked();

  const InboxLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Contents contents_;
  int64_t arrived_tokens_ = 0;  // prompt tokens of contents_.requests
  bool stop_ = false;
  absl::Status closed_;
  std::string_view closed_reason_;
  // Also written without the mutex, by the engine thread.
  std::atomic<int32_t> waiting_requests_{0};
  std::atomic<int64_t> waiting_tokens_{0};
  std::atomic<int32_t> startable_{0};
  std::atomic<bool> busy_{false};
  std::atomic<Clock::rep> busy_since_{0};
};

}  // namespace sirocco
