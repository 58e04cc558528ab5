// What the serving thread waits for: signals, and events of other threads.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"

namespace sirocco {

// Construct before any thread starts: SIGINT and SIGTERM are blocked from then on, in threads that
// start later too, and come out of Wait instead.
class Wakeups {
 public:
  enum Event : uint32_t { kSignal = 1, kLoaded = 2, kFault = 4, kDrained = 8, kDeaf = 16 };

  Wakeups();
  ~Wakeups();
  Wakeups(const Wakeups&) = delete;
  Wakeups& operator=(const Wakeups&) = delete;

  // RESOURCE_EXHAUSTED: there were no descriptors for it, and it must not be used.
  const absl::Status& status() const { return status_; }

  // Any thread; kSignal comes of itself.
  void Post(Event event);
  // The events since the last call: at least one.
  uint32_t Wait();

 private:
  int signals_;  // signalfd
  int posts_;    // eventfd
  absl::Status status_;
  std::atomic<uint32_t> pending_{0};
};

}  // namespace sirocco
