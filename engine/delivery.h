// The delivery threads: they turn the engine's events into stream updates, so that no text is made
// on the engine thread. A stream belongs to one thread, which keeps its order.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "engine/events.h"
#include "engine/observer.h"
#include "engine/request_output.h"
#include "engine/tokenizer/tokenizer.h"

namespace sirocco {

class Delivery {
 public:
  // A stop string ended the sequence of this request and index. From a delivery thread.
  using StringStop = std::function<void(uint64_t request, int32_t index)>;

  // `tokenizer` may be null; it and `observer` outlive the delivery. Start() starts the threads.
  Delivery(const Tokenizer* tokenizer, EngineObserver* observer, int threads,
           StringStop string_stop);
  // What was posted is delivered first.
  ~Delivery();
  void Start();

  // The request's first event. Any thread, before the engine can have it.
  void Open(std::shared_ptr<const RequestContext> context);
  // Takes the events and leaves an empty vector. Those of a request that is done are dropped.
  // Engine thread.
  void Post(std::vector<Event>* events);
  // Ends all requests that are open, after what was posted for them. Any thread.
  void EndAll(const absl::Status& status);

  // Requests opened and not done.
  int64_t open() const { return open_.load(std::memory_order_acquire); }
  // False: some were still open at `until`. Without it waits for all.
  bool WaitUntilAllDone(std::optional<Clock::time_point> until);

 private:
  struct Worker {
    std::mutex mutex;  // events, end_all, stop
    std::condition_variable wake;
    std::vector<Event> events;
    absl::Status end_all;  // not OK: after the events, end what is open
    bool stop = false;
    std::thread thread;
    // The thread's own.
    std::unordered_map<uint64_t, RequestOutput> requests;
    std::vector<RequestOutput*> touched;  // have something to flush
  };

  Worker& WorkerOf(uint64_t request) { return *workers_[request % workers_.size()]; }
  void Run(Worker& worker);
  void Process(Worker& worker, std::vector<Event>& events);
  void Flush(Worker& worker, RequestOutput& output);

  const Tokenizer* tokenizer_;
  EngineObserver* observer_;
  const StringStop string_stop_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<int64_t> open_{0};
  std::mutex done_mutex_;  // open_ falling to 0
  std::condition_variable all_done_;
};

}  // namespace sirocco
