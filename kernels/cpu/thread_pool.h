// Threads that share the tasks of one operation at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace sirocco::cpu {

class ThreadPool {
 public:
  // Runs task `task` on thread `worker` (0: the thread that called Run).
  using Function = void (*)(const void* context, int32_t task, int worker);

  // `threads` >= 1 compute, the calling one included. Throws std::system_error where the system
  // has no more threads.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Returns when all tasks have ended. One caller at a time. What a task wrote is visible to the
  // caller, and what the caller wrote before is visible to the tasks.
  void Run(int32_t tasks, Function function, const void* context);

 private:
  // The tasks of the job at hand that one thread begins with, neighbours, so that it reads memory
  // from end to end: [epoch : 32][next task : 16][end : 16]. It takes the next one, and others,
  // once they have none left, the last one, in one compare-and-swap. Success proves that the job of
  // the ticket that had been read is unfinished, so that the fields below, read in between, are
  // that job's: Run does not overwrite them before all tasks have ended.
  struct alignas(64) Share {
    std::atomic<uint64_t> ticket{0};
  };

  void RunShared(uint32_t first, uint32_t tasks, Function function, const void* context);
  // Takes tasks of a share as long as there are any; how many it took.
  uint32_t WorkOn(Share& share, bool own, int worker);
  void Work(int worker);
  void Loop(int worker);

  std::vector<Share> shares_;  // [threads]
  std::atomic<Function> function_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<uint32_t> first_{0};

  std::atomic<uint32_t> unfinished_{0};
  std::atomic<uint32_t> epoch_{0};  // what idle workers sleep on
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace sirocco::cpu
