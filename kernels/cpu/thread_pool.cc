#include "kernels/cpu/thread_pool.h"

#include <algorithm>

#include "hwy/cache_control.h"

namespace sirocco::cpu {
namespace {

constexpr uint32_t kMaxTasks = 0xffff;

// About 50 microseconds: longer than the gap between two operations of a step, far shorter than
// the gap between two requests.
constexpr int kSpins = 2000;

uint64_t TicketOf(uint64_t epoch, uint64_t next, uint64_t end) {
  return epoch << 32 | next << 16 | end;
}
uint32_t EpochOf(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 32); }
uint32_t NextOf(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 16) & kMaxTasks; }
uint32_t EndOf(uint64_t ticket) { return static_cast<uint32_t>(ticket) & kMaxTasks; }

// Waits until `value` is not `old`: awake for a while, then asleep.
uint32_t WaitForChange(std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    hwy::Pause();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(static_cast<size_t>(std::max(threads, 1))) {
  workers_.reserve(static_cast<size_t>(std::max(threads - 1, 0)));
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Loop(i); });
  } catch (...) {
    // The destructor does not run for a constructor that throws.
    stop_.store(true, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int32_t tasks, Function function, const void* context) {
  if (tasks <= 1 || workers_.empty()) {
    for (int32_t task = 0; task < tasks; ++task) function(context, task, 0);
    return;
  }
  const uint32_t all = static_cast<uint32_t>(tasks);
  for (uint32_t first = 0; first < all; first += kMaxTasks) {
    RunShared(first, std::min(all - first, kMaxTasks), function, context);
  }
}

void ThreadPool::RunShared(uint32_t first, uint32_t tasks, Function function, const void* context) {
  function_.store(function, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  first_.store(first, std::memory_order_relaxed);
  unfinished_.store(tasks, std::memory_order_relaxed);
  const uint64_t epoch = EpochOf(shares_[0].ticket.load(std::memory_order_relaxed)) + uint64_t{1};
  const uint64_t threads = shares_.size();
  for (uint64_t i = 0; i < threads; ++i) {
    shares_[i].ticket.store(TicketOf(epoch, tasks * i / threads, tasks * (i + 1) / threads),
                            std::memory_order_release);
  }
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();

  Work(0);
  for (uint32_t left = unfinished_.load(std::memory_order_acquire); left != 0;) {
    left = WaitForChange(unfinished_, left);
  }
}

uint32_t ThreadPool::WorkOn(Share& share, bool own, int worker) {
  uint32_t done = 0;
  uint64_t ticket = share.ticket.load(std::memory_order_acquire);
  while (NextOf(ticket) < EndOf(ticket)) {
    const Function function = function_.load(std::memory_order_relaxed);
    const void* context = context_.load(std::memory_order_relaxed);
    const uint32_t first = first_.load(std::memory_order_relaxed);
    const uint64_t epoch = EpochOf(ticket);
    const uint32_t next = NextOf(ticket);
    const uint32_t end = EndOf(ticket);
    const uint64_t rest =
        own ? TicketOf(epoch, next + 1, end) : TicketOf(epoch, next, end - uint64_t{1});
    if (!share.ticket.compare_exchange_weak(ticket, rest, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
      continue;
    }
    function(context, static_cast<int32_t>(first + (own ? next : end - 1)), worker);
    ++done;
    ticket = share.ticket.load(std::memory_order_acquire);
  }
  return done;
}

void ThreadPool::Work(int worker) {
  const size_t threads = shares_.size();
  const size_t self = static_cast<size_t>(worker);
  uint32_t done = 0;
  for (size_t i = 0; i < threads; ++i) {
    done += WorkOn(shares_[(self + i) % threads], i == 0, worker);
  }
  if (done > 0 && unfinished_.fetch_sub(done, std::memory_order_acq_rel) == done) {
    unfinished_.notify_one();
  }
}

void ThreadPool::Loop(int worker) {
  uint32_t seen = 0;
  while (true) {
    seen = WaitForChange(epoch_, seen);
    if (stop_.load(std::memory_order_relaxed)) return;
    Work(worker);
  }
}

}  // namespace sirocco::cpu
