// The engine over a device each of whose calls fails in turn, from loading to the last answer, in
// each mode, on a device that works at once and on one that works late: nothing hangs, what was
// asked ends with a status, nothing is held, and from then on all is refused. (AddressSanitizer
// says of each object whether it leaks; here the sum is looked at.)
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/engine.h"
#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/engine/client.h"
#include "tests/engine/counting_observer.h"
#include "tests/faults/failing_device.h"
#include "tests/faults/schedule.h"
#include "tests/graphs/deferring_device.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kMaxLength = 48;
// After so many engines with a fault no more memory is held than then, or little.
constexpr int64_t kWarm = 20;
constexpr int64_t kMostGrowth = 16 << 20;
#ifdef __SANITIZE_ADDRESS__
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif

// For each mode and device. What does not fit is left out, evenly.
std::chrono::duration<double> Budget() {
  const char* const seconds = std::getenv("SIROCCO_TEST_FAULT_SECONDS");
  return std::chrono::duration<double>(seconds == nullptr ? 2 : std::atof(seconds));
}

int64_t ResidentBytes() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

// 1 ... count, so ordered that any beginning of it is spread evenly: by the bits of a number from
// its least one on.
std::vector<int64_t> Spread(int64_t count) {
  int bits = 0;
  while ((int64_t{1} << bits) < count) ++bits;
  std::vector<int64_t> order;
  for (int64_t i = 0; i < int64_t{1} << bits; ++i) {
    int64_t reversed = 0;
    for (int bit = 0; bit < bits; ++bit) reversed |= (i >> bit & 1) << (bits - 1 - bit);
    if (reversed < count) order.push_back(reversed + 1);
  }
  return order;
}

// An engine, and what it stands on.
class Rig {
 public:
  // `fails`: the device's; called from the thread that loads, then from the engine's.
  Rig(Mode mode, bool late, FailingDevice::Fails fails) {
    absl::StatusOr<std::unique_ptr<Device>> device = CreateCpuDevice(1);
    if (device.ok() && late) {
      device = std::make_unique<DeferringDevice>(*std::move(device),
                                                 DeferringDevice::Pace::kWhenWaitedFor, 3);
    }
    status_ = device.status();
    if (!status_.ok()) return;
    device_ = std::make_unique<FailingDevice>(*std::move(device), std::move(fails));
    status_ = Start(mode);
  }

  // Why there is no engine.
  const absl::Status& status() const { return status_; }
  Engine& engine() { return *engine_; }

  // Waits until nothing is held.
  bool AwaitIdle() const {
    for (int i = 0; i < 20000; ++i) {
      if (!engine_->has_work() && observer_.counts().gauges.kv_blocks_used == 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

 private:
  absl::Status Start(Mode mode) {
    absl::StatusOr<RandomModel> model = MakeRandomModel(*device_, DType::kFloat32, 5);
    if (!model.ok()) return model.status();
    model_ = *std::move(model);
    ExecutorOptions options;
    options.mode = mode;
    options.max_batch_size = 3;
    options.max_length = kMaxLength;
    options.prefill_chunk_size = 8;
    options.block_size = 4;
    options.kv_blocks = {20, 16};  // little: sequences wait for each other's
    auto executor = Executor::Create(*device_, model_.descriptor, model_.weights, options);
    if (!executor.ok()) return executor.status();
    auto engine = Engine::Start(*std::move(executor), /*tokenizer=*/nullptr, &observer_,
                                {.prefill_chunk_size = 8, .groups = model_.descriptor.groups});
    if (!engine.ok()) return engine.status();
    engine_ = *std::move(engine);
    return absl::OkStatus();
  }

  std::unique_ptr<Device> device_;
  RandomModel model_;
  CountingObserver observer_;
  std::unique_ptr<Engine> engine_;
  absl::Status status_;
};

// Prompts longer than a chunk, choices between ids, scores, two sequences of one prompt, and beams,
// whose blocks are copied on the device.
std::vector<Request> Requests() {
  std::vector<Request> requests(5);
  for (int32_t i = 0; i < 5; ++i) {
    Request& request = requests[i];
    for (int32_t at = 0; at < 5 + 6 * i; ++at) request.prompt.push_back((7 * at + i) % 131);
    request.max_new_tokens = 6;
    request.stop.ignore_eos = true;
    request.sampling.temperature = i % 2 == 0 ? 0 : 1.2f;
    request.sampling.seed = 7;
  }
  requests[1].n = 2;
  requests[2].logprobs = LogprobOptions{.top = 2, .prompt = true};
  requests[3].sampling.repetition_penalty = 1.3f;
  requests[4].beam = BeamOptions{.num_beams = 2};
  requests[4].max_new_tokens = 3;
  return requests;
}

// Asks all; each that is taken ends. Whether all were answered.
bool AskAll(Engine& engine) {
  std::vector<std::unique_ptr<Client>> clients;
  bool answered = true;
  const auto take = [&answered](const absl::Status& status) {
    if (status.ok()) return;
    answered = false;
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("injected: device:"));
  };
  for (const Request& request : Requests()) {
    auto client = Client::Submit(engine, request);
    take(client.status());  // it may come too late
    if (client.ok()) clients.push_back(*std::move(client));
  }
  for (const auto& client : clients) {
    const bool ended = client->Wait();
    EXPECT_TRUE(ended) << "a call hangs";
    if (!ended) return false;
    EXPECT_EQ(client->output().ends, 1);
    EXPECT_FALSE(client->output().after_end);
    take(client->output().end.status);
  }
  return answered;
}

struct Swept {
  Mode mode;
  bool late;
};

class DeviceSweepTest : public testing::TestWithParam<Swept> {
 protected:
  // How many calls there are where none fails: until there is an engine, and in all.
  std::pair<int64_t, int64_t> Count() const {
    std::atomic<int64_t> calls = 0;
    Rig rig(GetParam().mode, GetParam().late, [&calls](std::string_view) {
      ++calls;
      return false;
    });
    EXPECT_TRUE(rig.status().ok()) << rig.status();
    if (!rig.status().ok()) return {0, 0};
    const int64_t loading = calls;
    EXPECT_TRUE(AskAll(rig.engine()));
    EXPECT_TRUE(rig.AwaitIdle());
    return {loading, calls};
  }

  // With a call that fails. False: there are fewer.
  bool Fail(const std::string& rule) const {
    SCOPED_TRACE(rule);
    faults::Schedule schedule(rule);
    EXPECT_TRUE(schedule.good());
    Rig rig(GetParam().mode, GetParam().late,
            [&schedule](std::string_view call) { return schedule.Fails("device", call); });
    if (!rig.status().ok()) {
      EXPECT_THAT(std::string(rig.status().message()), HasSubstr("injected: device:"));
      EXPECT_GT(schedule.fired(), 0);
      return true;
    }
    EXPECT_EQ(schedule.fired(), 0) << "loading went on past a failed call";
    const bool answered = AskAll(rig.engine());
    EXPECT_TRUE(rig.AwaitIdle());
    const bool fired = schedule.fired() > 0;
    EXPECT_EQ(rig.engine().fault().ok(), !fired);
    EXPECT_TRUE(answered || fired);
    if (fired) {
      EXPECT_FALSE(AskAll(rig.engine())) << "the engine of a lost device takes calls";
    }
    return fired;
  }
};

TEST_P(DeviceSweepTest, EachCallMayFail) {
  const auto [loading, all] = Count();
  ASSERT_GT(loading, 0);
  ASSERT_GT(all, loading);
  const auto end = std::chrono::steady_clock::now() + Budget();
  int64_t tried = 0, fired = 0, before = 0;
  for (const int64_t call : Spread(all)) {
    if (std::chrono::steady_clock::now() >= end || HasFailure()) break;
    // A fault that passes, and one that stays.
    fired += Fail(absl::StrCat("device@", call, tried % 2 == 0 ? "+" : "")) ? 1 : 0;
    if (++tried == kWarm) before = ResidentBytes();
  }
  std::printf("%lld of %lld calls (%lld while loading), %lld failed\n",
              static_cast<long long>(tried), static_cast<long long>(all),
              static_cast<long long>(loading), static_cast<long long>(fired));
  // Batches differ from run to run, and so does the number of calls.
  EXPECT_GE(fired, tried * 3 / 4);
  // AddressSanitizer keeps what was freed for a while, and finds leaks itself.
  if (tried > kWarm && !kAddressSanitizer) {
    EXPECT_LT(ResidentBytes() - before, kMostGrowth);
  }
}

// Of each kind of call the first, and the first of an engine that serves.
TEST_P(DeviceSweepTest, EachKindOfCallMayFail) {
  for (const std::string kind :
       {"allocate", "copy", "move", "launch", "prepare", "record", "wait"}) {
    int64_t loading = 0;
    std::atomic<int64_t> calls = 0;
    {
      Rig rig(GetParam().mode, GetParam().late, [&](std::string_view call) {
        calls += call == kind ? 1 : 0;
        return false;
      });
      ASSERT_TRUE(rig.status().ok()) << rig.status();
      loading = calls;
      ASSERT_TRUE(AskAll(rig.engine()));
      ASSERT_TRUE(rig.AwaitIdle());
    }
    EXPECT_TRUE(calls > 0 || (kind == "record" && !UsesGraphs(GetParam().mode))) << kind;
    if (calls > 0) {
      EXPECT_TRUE(Fail(absl::StrCat("device:", kind, "@1")));
    }
    if (calls > loading) {
      EXPECT_TRUE(Fail(absl::StrCat("device:", kind, "@", loading + 1)));
    }
  }
}

std::vector<Swept> AllSwept() {
  std::vector<Swept> all;
  for (const Mode mode : kAllModes) {
    for (const bool late : {false, true}) all.push_back({mode, late});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Modes, DeviceSweepTest, testing::ValuesIn(AllSwept()),
                         [](const testing::TestParamInfo<Swept>& info) {
                           return absl::StrCat(std::string(NameOf(info.param.mode)),
                                               info.param.late ? "_late" : "");
                         });

}  // namespace
}  // namespace sirocco
