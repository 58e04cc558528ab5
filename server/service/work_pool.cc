#include "server/service/work_pool.h"

#include <utility>

namespace sirocco {

WorkPool::WorkPool(const Limits& limits) : limits_(limits) {
  for (int i = 0; i < limits_.threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkPool::~WorkPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool WorkPool::Post(size_t bytes, std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    const bool room =
        jobs_.size() < limits_.max_jobs &&
        (jobs_.empty() || (bytes_ <= limits_.max_bytes && bytes <= limits_.max_bytes - bytes_));
    if (!room) return false;
    jobs_.push_back({bytes, std::move(job)});
    bytes_ += bytes;
  }
  wake_.notify_one();
  return true;
}

void WorkPool::Run() {
  for (;;) {
    std::function<void()> run;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      run = std::move(jobs_.front().run);
      bytes_ -= jobs_.front().bytes;
      jobs_.pop_front();
    }
    run();
  }
}

}  // namespace sirocco
