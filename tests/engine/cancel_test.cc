// Ten thousand cancellations at random moments: before the request is in a step, within one,
// between two, while its end is on its way. Afterwards nothing may be held.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "tests/engine/engine_fixture.h"

namespace sirocco {
namespace {

constexpr int kThreads = 4;
constexpr int kRounds = 100;
constexpr int kAtOnce = 25;
static_assert(kThreads * kRounds * kAtOnce == 10'000);

struct Seen {
  std::atomic<int64_t> ok{0}, cancelled{0}, lanes{0};  // lanes: that cancelled requests held
};

class CancelTest : public EngineFixture {
 protected:
  struct Asked {
    Request request;
    std::unique_ptr<Client> client;
  };

  // Clients of one thread.
  void CancelMany(int thread) {
    std::mt19937 dice(static_cast<uint32_t>(thread));
    const auto roll = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(dice);
    };
    for (int round = 0; round < kRounds && !HasFailure(); ++round) {
      std::vector<Asked> asked;
      for (int i = 0; i < kAtOnce; ++i) {
        const Request request = PromptOf(roll(1, 30), 30, roll(0, 1 << 20));
        asked.push_back({request, h_.Submit(request)});
        if (roll(0, 3) == 0) asked.back().client->stream().Cancel(absl::StatusCode::kCancelled);
      }
      for (const Asked& one : asked) {
        if (roll(0, 3) == 0) std::this_thread::sleep_for(std::chrono::microseconds(roll(0, 150)));
        one.client->stream().Cancel(absl::StatusCode::kCancelled);
      }
      for (const Asked& one : asked) Check(one);
    }
  }

  void Check(const Asked& one) {
    ASSERT_TRUE(one.client->Wait());
    const StreamUpdate end = one.client->output().end;
    if (end.status.ok()) {
      ++seen_.ok;
      return h_.ExpectAnswer(*one.client, one.request);
    }
    ++seen_.cancelled;
    EXPECT_EQ(end.status.code(), absl::StatusCode::kCancelled);
    if (end.stage != RequestStage::kQueue) ++seen_.lanes;
    h_.ExpectBeginning(*one.client, one.request);
  }

  Seen seen_;
};

INSTANTIATE_TEST_SUITE_P(RunAhead, CancelTest, testing::Values(0, 1));

TEST_P(CancelTest, TenThousandLeakNothing) {
  h_.executor = FakeOptions(8, 64, 60);
  h_.Start();
  // Of a stream that all have let go of, nothing is left.
  std::weak_ptr<int> held;
  {
    const auto token = std::make_shared<int>();
    held = token;
    auto stream = h_.engine->Submit(PromptOf(3, 2), [token] {});
    ASSERT_TRUE(stream.ok()) << stream.status();
    (*stream)->Cancel(absl::StatusCode::kCancelled);
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back([this, i] { CancelMany(i); });
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(h_.AwaitIdle());
  EXPECT_EQ(seen_.ok + seen_.cancelled, 10'000);
  EXPECT_GT(seen_.lanes, 100);
  EXPECT_GT(seen_.cancelled - seen_.lanes, 100);
  EXPECT_TRUE(held.expired());

  const Counts counts = h_.observer.counts();
  EXPECT_EQ(counts.rejected.size(), 0u);
  // That first one too, if it had its two tokens before it was cancelled.
  EXPECT_GE(counts.finished_requests, seen_.ok);
  EXPECT_LE(counts.finished_requests, seen_.ok + 1);
  // Each that held a lane was told once, that first one too if it came so far.
  EXPECT_GE(counts.cancelled_lanes, seen_.lanes);
  EXPECT_LE(counts.cancelled_lanes, seen_.lanes + 1);
  EXPECT_EQ(counts.gauges.kv_blocks_free + counts.gauges.kv_blocks_cached, 2 * 60);

  // Every lane can still be had, at once.
  h_.device->largest_batch = 0;
  h_.gate.Close();
  std::vector<Asked> full;
  for (int i = 0; i < 8; ++i) {
    Request request = PromptOf(2, 6, i);
    request.stop.ignore_eos = true;
    full.push_back({request, h_.Submit(request)});
  }
  h_.gate.Open();
  for (const Asked& one : full) h_.ExpectAnswer(*one.client, one.request);
  EXPECT_EQ(h_.device->largest_batch.load(), 8);
  EXPECT_TRUE(h_.engine->Drain(std::chrono::seconds(60)));
}

}  // namespace
}  // namespace sirocco
