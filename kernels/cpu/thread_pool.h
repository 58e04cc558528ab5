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
  void RunShared(uint32_t first, uint32_t tasks, Function function, const void* context);
  void Work(uint64_t ticket, int worker);
  void Loop(int worker);

  // The job at hand, published by ticket_: [epoch : 32][tasks : 16][next task : 16]. A thread
  // takes a task by raising `next` in one compare-and-swap. Success proves that the job of the
  // ticket it had read is unfinished, so that the fields below, read in between, are that job's:
  // Run does not overwrite them before all tasks have ended.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<Function> function_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<uint32_t> first_{0};

  std::atomic<uint32_t> unfinished_{0};
  std::atomic<uint32_t> epoch_{0};  // what idle workers sleep on
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace sirocco::cpu
