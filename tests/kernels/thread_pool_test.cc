#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <thread>
#include <vector>

namespace sirocco::cpu {
namespace {

struct Tally {
  std::vector<std::atomic<int>> runs;
  std::atomic<int> bad_worker{0};
  int threads;
};

void Count(const void* context, int32_t task, int worker) {
  Tally& tally = *const_cast<Tally*>(static_cast<const Tally*>(context));
  tally.runs[task].fetch_add(1);
  if (worker < 0 || worker >= tally.threads) tally.bad_worker.store(1);
}

class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEachTaskOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (const int32_t tasks : {0, 1, 2, 3, 100, 70000}) {
    Tally tally{std::vector<std::atomic<int>>(tasks + 1), {}, GetParam()};
    pool.Run(tasks, Count, &tally);
    for (int32_t i = 0; i < tasks; ++i) ASSERT_EQ(tally.runs[i].load(), 1) << i;
    EXPECT_EQ(tally.runs[tasks].load(), 0);
    EXPECT_EQ(tally.bad_worker.load(), 0);
  }
}

// Jobs that follow one another at once, each with plain memory that the next one reuses: a thread
// that were late for one would be seen here, or by ThreadSanitizer.
TEST_P(ThreadPoolTest, JobsDoNotMix) {
  ThreadPool pool(GetParam());
  struct Job {
    std::vector<int64_t>* out;
    int64_t number;
  };
  std::vector<int64_t> out(7);
  for (int64_t number = 1; number <= 3000; ++number) {
    const int32_t tasks = static_cast<int32_t>(2 + number % 6);
    const Job job{&out, number};
    pool.Run(
        tasks,
        [](const void* context, int32_t task, int) {
          const Job& at_hand = *static_cast<const Job*>(context);
          (*at_hand.out)[task] += at_hand.number;
        },
        &job);
  }
  int64_t expected[7] = {};
  for (int64_t number = 1; number <= 3000; ++number) {
    for (int64_t task = 0; task < 2 + number % 6; ++task) expected[task] += number;
  }
  EXPECT_EQ(out, std::vector<int64_t>(expected, expected + 7));
}

// Whose share they are in, or which end of it.
TEST_P(ThreadPoolTest, TasksBesideOneThatWaitsAreTakenByOthers) {
  if (GetParam() == 1) GTEST_SKIP() << "there are no others";
  constexpr int32_t kTasks = 64;
  struct Waiting {
    int32_t task;
    std::atomic<int> others{0};
  };
  ThreadPool pool(GetParam());
  for (const int32_t task : {0, 1, kTasks / 2, kTasks - 1}) {
    Waiting waiting{task};
    pool.Run(
        kTasks,
        [](const void* context, int32_t at_hand, int) {
          Waiting& all = *const_cast<Waiting*>(static_cast<const Waiting*>(context));
          if (at_hand != all.task) {
            all.others.fetch_add(1);
            return;
          }
          while (all.others.load() < kTasks - 1) std::this_thread::yield();
        },
        &waiting);
    EXPECT_EQ(waiting.others.load(), kTasks - 1);
  }
}

TEST_P(ThreadPoolTest, IdleWorkersSleep) {
  ThreadPool pool(GetParam());
  Tally tally{std::vector<std::atomic<int>>(64), {}, GetParam()};
  pool.Run(64, Count, &tally);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const double seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(seconds, 0.1);
  pool.Run(64, Count, &tally);  // and wake again
  for (const std::atomic<int>& runs : tally.runs) EXPECT_EQ(runs.load(), 2);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 3, 7));

}  // namespace
}  // namespace sirocco::cpu
