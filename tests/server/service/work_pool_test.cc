#include "server/service/work_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace sirocco {
namespace {

// Keeps a pool's only thread busy until Open; declared before the pool that uses it.
class Gate {
 public:
  void Close(WorkPool& pool) {
    EXPECT_TRUE(pool.Post(0, [this] {
      entered_.set_value();
      opened_.get_future().wait();
    }));
    entered_.get_future().wait();
  }
  void Open() { opened_.set_value(); }

 private:
  std::promise<void> entered_, opened_;
};

TEST(WorkPool, RunsWhatIsPostedInOrder) {
  std::vector<int> ran;
  {
    WorkPool pool({.threads = 1, .max_jobs = 10, .max_bytes = 10});
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(pool.Post(1, [&ran, i] { ran.push_back(i); }));
  }
  EXPECT_EQ(ran, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST(WorkPool, RefusesBeyondItsJobs) {
  Gate gate;
  std::atomic<int> ran = 0;
  std::promise<void> last;
  WorkPool pool({.threads = 1, .max_jobs = 2, .max_bytes = 100});
  gate.Close(pool);
  EXPECT_TRUE(pool.Post(0, [&] { ++ran; }));
  EXPECT_TRUE(pool.Post(0, [&] { ++ran; }));
  EXPECT_FALSE(pool.Post(0, [&] { ran += 100; }));
  gate.Open();
  while (!pool.Post(0, [&] { last.set_value(); })) {
  }
  last.get_future().wait();
  EXPECT_EQ(ran, 2);
}

TEST(WorkPool, RefusesBeyondItsBytes) {
  Gate gate;
  WorkPool pool({.threads = 1, .max_jobs = 10, .max_bytes = 100});
  gate.Close(pool);
  EXPECT_TRUE(pool.Post(60, [] {}));
  EXPECT_FALSE(pool.Post(41, [] {}));
  EXPECT_TRUE(pool.Post(40, [] {}));
  EXPECT_FALSE(pool.Post(1, [] {}));
  gate.Open();
}

TEST(WorkPool, OneJobAloneMayBeLarger) {
  Gate gate;
  WorkPool pool({.threads = 1, .max_jobs = 10, .max_bytes = 100});
  gate.Close(pool);
  EXPECT_TRUE(pool.Post(1000, [] {}));
  EXPECT_FALSE(pool.Post(1, [] {}));
  gate.Open();
}

TEST(WorkPool, ThreadsRunAtOnce) {
  std::promise<void> first, second, done;
  WorkPool pool({.threads = 2, .max_jobs = 10, .max_bytes = 100});
  EXPECT_TRUE(pool.Post(0, [&] {
    first.set_value();
    second.get_future().wait();
  }));
  EXPECT_TRUE(pool.Post(0, [&] {
    first.get_future().wait();
    second.set_value();
    done.set_value();
  }));
  done.get_future().wait();
}

}  // namespace
}  // namespace sirocco
