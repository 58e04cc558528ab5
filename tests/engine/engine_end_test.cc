// How an engine ends: drained, destroyed, or with its device.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "tests/engine/engine_fixture.h"

namespace sirocco {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using EngineEndTest = EngineFixture;

INSTANTIATE_TEST_SUITE_P(RunAhead, EngineEndTest, testing::Values(0, 1));

TEST_P(EngineEndTest, DrainingRefusesAndLetsFinish) {
  h_.Start();
  h_.gate.Close();
  auto client = h_.Submit(Long());
  h_.gate.AwaitWaiter();
  bool finished = false;
  std::thread drain([&] { finished = h_.engine->Drain(seconds(60)); });
  // Until the drain has begun.
  while (Refusal(PromptOf(1, 1)).code() != absl::StatusCode::kUnavailable) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_EQ(h_.observer.counts().rejected.at("draining"), 1);
  h_.gate.Open();
  drain.join();
  EXPECT_TRUE(finished);
  h_.ExpectAnswer(*client, Long());
}

TEST_P(EngineEndTest, DrainEndsWhatIsLeftEvenIfTheDeviceHangs) {
  h_.Start();
  h_.gate.Close();
  auto running = h_.Submit(Long(1));
  h_.gate.AwaitWaiter();
  auto arrived = h_.Submit(Long(2));
  EXPECT_FALSE(h_.engine->Drain(milliseconds(10)));
  for (Client* client : {running.get(), arrived.get()}) {
    ASSERT_TRUE(client->Wait());
    EXPECT_EQ(client->output().end.status.code(), absl::StatusCode::kUnavailable);
  }
  h_.gate.Open();
  EXPECT_TRUE(h_.AwaitIdle());
}

TEST_P(EngineEndTest, AFaultEndsEveryStreamAndRefusesFromThenOn) {
  h_.executor = FakeOptions(1, 64, 64);
  h_.Start();
  EXPECT_TRUE(h_.engine->fault().ok());
  auto running = h_.Submit(Long(1));
  ASSERT_TRUE(running->WaitForToken());
  h_.gate.Close();
  auto waiting = h_.Submit(Long(2));
  h_.device->fails = true;
  h_.gate.Open();
  for (Client* client : {running.get(), waiting.get()}) {
    ASSERT_TRUE(client->Wait());
    const absl::Status status = client->output().end.status;
    if (status.ok()) continue;  // it was faster
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(status.message(), "the device has failed: the fake device broke");
  }
  EXPECT_EQ(waiting->output().end.status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(h_.engine->fault().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Refusal(Long()).code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(h_.AwaitIdle());
}

TEST_P(EngineEndTest, AFaultFoundAtTheEndOfAStepEndsAllToo) {
  h_.executor = FakeOptions(2, 64, 64);
  h_.Start();
  // A step is under way when the device breaks.
  h_.gate.Close();
  std::vector<std::unique_ptr<Client>> clients;
  for (int32_t i = 0; i < 3; ++i) clients.push_back(h_.Submit(Long(i)));
  h_.gate.AwaitWaiter();
  h_.device->breaks = true;
  h_.gate.Open();
  for (const auto& client : clients) {
    ASSERT_TRUE(client->Wait());
    const absl::Status status = client->output().end.status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(status.message(), "the device has failed: the fake device broke");
  }
  EXPECT_EQ(h_.engine->fault().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Refusal(Long()).code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(h_.AwaitIdle());
  EXPECT_TRUE(h_.engine->Drain(seconds(60)));
}

TEST_P(EngineEndTest, TheEndOfTheEngineEndsItsStreams) {
  h_.executor = FakeOptions(1, 64, 64);
  h_.Start();
  h_.gate.Close();
  auto running = h_.Submit(Long(1));
  auto waiting = h_.Submit(Long(2));
  h_.gate.AwaitWaiter();
  std::thread stop([&] { h_.engine.reset(); });
  h_.gate.Open();
  stop.join();
  for (Client* client : {running.get(), waiting.get()}) {
    ASSERT_TRUE(client->Wait());
    const absl::Status status = client->output().end.status;
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kUnavailable) << status;
  }
}

}  // namespace
}  // namespace sirocco
