// A few threads and a bounded queue: for work too long for gRPC's threads (parsing, templates,
// tokenising).
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace sirocco {

class WorkPool {
 public:
  struct Limits {
    int threads = 2;
    size_t max_jobs = 4096;         // that wait
    size_t max_bytes = 256u << 20;  // of the requests that wait; one alone may be larger
  };

  explicit WorkPool(const Limits& limits);
  // Runs all that waits, then joins.
  ~WorkPool();

  // False: the queue is full, and `job` will not run. `bytes`: what the job keeps in memory while
  // it waits. Any thread; never waits for a job.
  bool Post(size_t bytes, std::function<void()> job);

 private:
  struct Job {
    size_t bytes;
    std::function<void()> run;
  };
  void Run();

  const Limits limits_;
  std::mutex mutex_;  // jobs_, bytes_, stopping_
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  size_t bytes_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace sirocco
