// The engine over a real executor on a device that does its work late: what clients get is what
// they get of a device that does it at once, whatever joins, ends and is cancelled meanwhile.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/engine/client.h"
#include "tests/engine/counting_observer.h"
#include "tests/graphs/deferring_device.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

constexpr int32_t kVocabulary = 131;
constexpr int32_t kMaxLength = 64;

struct Rig {
  explicit Rig(std::unique_ptr<Device> made) : device(std::move(made)) {
    absl::StatusOr<RandomModel> random = MakeRandomModel(*device, DType::kFloat32, 5);
    EXPECT_TRUE(random.ok()) << random.status();
    if (!random.ok()) return;
    model = *std::move(random);
    ExecutorOptions options;
    options.mode = Mode::kDecoderGraph;
    options.max_batch_size = 4;
    options.max_length = kMaxLength;
    options.prefill_chunk_size = 12;
    options.block_size = 4;
    // For little more than two of the longest; where there is a window, the longest wraps around.
    options.kv_blocks = {40, 25};
    auto executor = Executor::Create(*device, model.descriptor, model.weights, options);
    EXPECT_TRUE(executor.ok()) << executor.status();
    if (!executor.ok()) return;
    auto started = Engine::Start(*std::move(executor), /*tokenizer=*/nullptr, &observer,
                                 {.prefill_chunk_size = 12,
                                  .groups = model.descriptor.groups,
                                  .end_token_ids = {1, 2, 3, 4}});
    EXPECT_TRUE(started.ok()) << started.status();
    if (started.ok()) engine = *std::move(started);
  }

  // Waits until nothing is held.
  bool AwaitIdle() {
    for (int i = 0; i < 20000; ++i) {
      if (!engine->has_work() && observer.counts().gauges.kv_blocks_used == 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  std::unique_ptr<Device> device;
  RandomModel model;
  CountingObserver observer;
  std::unique_ptr<Engine> engine;
};

std::unique_ptr<Device> Cpu() {
  absl::StatusOr<std::unique_ptr<Device>> device = CreateCpuDevice(1);
  EXPECT_TRUE(device.ok()) << device.status();
  return device.ok() ? *std::move(device) : nullptr;
}

std::vector<Request> RandomRequests(int count) {
  std::mt19937 random(9);
  const auto roll = [&](int low, int high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random);
  };
  std::vector<Request> requests(count);
  for (Request& request : requests) {
    request.prompt.resize(roll(1, 40));
    for (int32_t& id : request.prompt) id = roll(0, kVocabulary - 1);
    request.max_new_tokens = roll(1, 24);
    request.n = roll(1, 5) == 1 ? 2 : 1;
    request.sampling.seed = roll(0, 1 << 20);
    request.sampling.temperature = roll(0, 2) == 0 ? 0 : 1.3f;
    if (roll(1, 4) == 1) request.sampling.repetition_penalty = 1.2f;
    if (roll(1, 4) == 1) request.sampling.banned_token_ids = {5, 6, 7};
    if (roll(1, 3) == 1) request.stop.token_ids = {roll(8, 60), roll(8, 60), roll(8, 60)};
    if (roll(1, 3) == 1) request.logprobs = LogprobOptions{.top = 2, .prompt = roll(0, 1) == 1};
  }
  return requests;
}

class LateDeviceTest : public ::testing::TestWithParam<DeferringDevice::Pace> {
 protected:
  LateDeviceTest()
      : at_once_(Cpu()), late_(std::make_unique<DeferringDevice>(Cpu(), GetParam(), 4)) {}
  void SetUp() override {
    ASSERT_NE(at_once_.engine, nullptr);
    ASSERT_NE(late_.engine, nullptr);
  }

  Rig at_once_, late_;
};

INSTANTIATE_TEST_SUITE_P(Paces, LateDeviceTest,
                         ::testing::Values(DeferringDevice::Pace::kWhenWaitedFor,
                                           DeferringDevice::Pace::kAnyTime));

TEST_P(LateDeviceTest, AnswersAreTheSame) {
  const std::vector<Request> requests = RandomRequests(60);
  std::vector<std::unique_ptr<Client>> expected, given, cancelled;
  for (size_t i = 0; i < requests.size(); ++i) {
    for (auto [rig, clients] : {std::pair(&at_once_, &expected), std::pair(&late_, &given)}) {
      auto client = Client::Submit(*rig->engine, requests[i]);
      ASSERT_TRUE(client.ok()) << client.status();
      clients->push_back(*std::move(client));
    }
    if (i % 3 != 0) continue;
    // One more that goes away somewhere.
    auto client = Client::Submit(*late_.engine, requests[i]);
    ASSERT_TRUE(client.ok()) << client.status();
    std::this_thread::sleep_for(std::chrono::milliseconds(i % 4));
    (*client)->stream().Cancel(absl::StatusCode::kCancelled);
    cancelled.push_back(*std::move(client));
  }
  int64_t tokens = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(expected[i]->Wait());
    ASSERT_TRUE(given[i]->Wait());
    const Client::Output a = expected[i]->output(), b = given[i]->output();
    ASSERT_TRUE(a.end.status.ok()) << a.end.status;
    ASSERT_TRUE(b.end.status.ok()) << b.end.status;
    ASSERT_EQ(b.sequences.size(), static_cast<size_t>(requests[i].n));
    for (const auto& [index, sequence] : a.sequences) {
      const auto& other = b.sequences.at(index);
      EXPECT_EQ(other.token_ids, sequence.token_ids) << "request " << i;
      EXPECT_EQ(other.finish_reason, sequence.finish_reason);
      EXPECT_EQ(other.cumulative_logprob, sequence.cumulative_logprob);
      tokens += static_cast<int64_t>(sequence.token_ids.size());
    }
    ASSERT_EQ(b.prompt_logprobs.size(), a.prompt_logprobs.size());
    for (size_t p = 0; p < a.prompt_logprobs.size(); ++p) {
      EXPECT_EQ(b.prompt_logprobs[p].logprob, a.prompt_logprobs[p].logprob);
    }
  }
  for (const auto& client : cancelled) ASSERT_TRUE(client->Wait());
  ASSERT_TRUE(late_.AwaitIdle());
  ASSERT_TRUE(at_once_.AwaitIdle());
  EXPECT_GT(tokens, 200);
  EXPECT_EQ(at_once_.observer.counts().generated_tokens, tokens);
  EXPECT_EQ(at_once_.observer.counts().overrun_rows, 0);
  EXPECT_GT(late_.observer.counts().overrun_rows, 0);
  EXPECT_FALSE(late_.observer.counts().negative_time);
  EXPECT_EQ(late_.engine->executor().stats().decode_allocations, 0u);
}

TEST_P(LateDeviceTest, AFaultWithStepsInFlightEndsEveryStream) {
  // Less than the first client alone takes: a prompt, and a launch a token.
  static_cast<DeferringDevice&>(*late_.device).BreakAfter(100);
  const std::string broken = "the device has failed: the deferring device broke";
  std::vector<std::unique_ptr<Client>> clients;
  for (int32_t i = 0; i < 6; ++i) {
    Request request;
    request.prompt = {7, 8, 9};
    request.max_new_tokens = kMaxLength - 3;
    request.stop.ignore_eos = true;
    auto client = Client::Submit(*late_.engine, request);
    if (!client.ok()) {  // it came too late
      EXPECT_EQ(client.status(), absl::InternalError(broken));
      break;
    }
    clients.push_back(*std::move(client));
  }
  ASSERT_FALSE(clients.empty());
  for (const auto& client : clients) {
    ASSERT_TRUE(client->Wait());
    EXPECT_EQ(client->output().end.status, absl::InternalError(broken));
  }
  EXPECT_EQ(late_.engine->fault().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(late_.AwaitIdle());
  late_.engine.reset();
}

}  // namespace
}  // namespace sirocco
