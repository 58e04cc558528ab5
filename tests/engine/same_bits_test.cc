// On a batch-invariant device (the CPU, and CUDA with `batch_invariant`) an answer is the same, bit
// for bit, whatever runs beside it, whatever of it was found in the prefix cache, and however often
// it was preempted and computed anew: over real executors of every mode, and a model with a window.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "graphs/executor.h"
#include "tests/engine/client.h"
#include "tests/engine/counting_observer.h"
#include "tests/graphs/deferring_device.h"
#include "tests/kernels/devices.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

constexpr int32_t kVocabulary = 131;
constexpr int32_t kMaxLength = 96;

struct RigOptions {
  TypedCase typed;
  Mode mode = Mode::kDecoderGraph;
  std::vector<int32_t> kv_blocks;  // of each layer group
  bool prefix_cache = true;
  bool late = false;  // the device does its work late, so that steps are launched ahead
};

bool OnCpu(const TypedCase& typed) { return typed.device.name.rfind("cpu", 0) == 0; }

class Rig {
 public:
  explicit Rig(const RigOptions& rig) {
    absl::StatusOr<std::unique_ptr<Device>> made = rig.typed.device.create();
    EXPECT_TRUE(made.ok()) << made.status();
    if (!made.ok()) return;
    device_ = *std::move(made);
    if (rig.late) {
      device_ = std::make_unique<DeferringDevice>(std::move(device_),
                                                  DeferringDevice::Pace::kWhenWaitedFor, 4);
    }
    absl::StatusOr<RandomModel> random = MakeRandomModel(
        *device_, rig.typed.dtype, 5, OnCpu(rig.typed) ? RandomNorms::kFew : RandomNorms::kWide);
    EXPECT_TRUE(random.ok()) << random.status();
    if (!random.ok()) return;
    model_ = *std::move(random);
    ExecutorOptions options;
    options.mode = rig.mode;
    options.max_batch_size = 4;
    options.max_length = kMaxLength;
    options.prefill_chunk_size = 24;
    options.block_size = 4;
    options.kv_blocks = rig.kv_blocks;
    options.kv_dtype = rig.typed.kv;
    options.activation_dtype = device_->ActivationDType(rig.typed.dtype);
    options.prefill_as_decode = device_->prefill_as_decode();
    options.fill_prefill = true;
    auto executor = Executor::Create(*device_, model_.descriptor, model_.weights, options);
    EXPECT_TRUE(executor.ok()) << executor.status();
    if (!executor.ok()) return;
    auto started = Engine::Start(*std::move(executor), /*tokenizer=*/nullptr, &observer_,
                                 {.prefill_chunk_size = 24,
                                  .groups = model_.descriptor.groups,
                                  .end_token_ids = {1, 2},
                                  .prefix_cache = rig.prefix_cache});
    EXPECT_TRUE(started.ok()) << started.status();
    if (started.ok()) engine_ = *std::move(started);
  }

  // All at once.
  std::vector<Client::Output> Answers(const std::vector<Request>& requests) {
    std::vector<std::unique_ptr<Client>> clients;
    for (const Request& request : requests) {
      auto client = Client::Submit(*engine_, request);
      EXPECT_TRUE(client.ok()) << client.status();
      if (client.ok()) clients.push_back(*std::move(client));
    }
    std::vector<Client::Output> outputs;
    for (const auto& client : clients) {
      EXPECT_TRUE(client->Wait());
      outputs.push_back(client->output());
      EXPECT_TRUE(outputs.back().end.status.ok()) << outputs.back().end.status;
    }
    return outputs;
  }
  Counts counts() const { return observer_.counts(); }

 private:
  std::unique_ptr<Device> device_;
  RandomModel model_;
  CountingObserver observer_;
  std::unique_ptr<Engine> engine_;
};

// Prompts that begin like one of three, as far as it happens, with every kind of sampling.
std::vector<Request> RandomRequests(int count, int longest_beginning, int most_new_tokens) {
  std::mt19937 random(9);
  const auto roll = [&](int low, int high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random);
  };
  std::vector<std::vector<int32_t>> beginnings(3);
  for (std::vector<int32_t>& beginning : beginnings) {
    for (int i = 0; i < longest_beginning; ++i) beginning.push_back(roll(3, kVocabulary - 1));
  }
  std::vector<Request> requests(count);
  for (Request& request : requests) {
    request.prompt = beginnings[roll(0, 2)];
    request.prompt.resize(roll(1, longest_beginning));
    for (int i = roll(0, 8); i > 0; --i) request.prompt.push_back(roll(3, kVocabulary - 1));
    request.max_new_tokens = roll(1, most_new_tokens);
    request.n = roll(1, 5) == 1 ? 3 : 1;
    request.sampling.seed = roll(0, 1 << 20);
    request.sampling.temperature = roll(0, 2) == 0 ? 0 : 1.3f;
    if (roll(1, 4) == 1) request.sampling.repetition_penalty = 1.2f;
    if (roll(1, 4) == 1) request.sampling.frequency_penalty = 0.7f;
    if (roll(1, 4) == 1) request.sampling.no_repeat_ngram_size = 2;
    if (roll(1, 4) == 1) request.sampling.min_new_tokens = request.max_new_tokens / 2;
    if (roll(1, 3) == 1) request.stop.token_ids = {roll(8, 60), roll(8, 60), roll(8, 60)};
    if (roll(1, 2) == 1) request.logprobs = LogprobOptions{.top = 2, .prompt = roll(0, 3) == 0};
  }
  return requests;
}

void ExpectSame(const std::vector<TokenLogprob>& given, const std::vector<TokenLogprob>& expected) {
  ASSERT_EQ(given.size(), expected.size());
  for (size_t i = 0; i < given.size(); ++i) {
    EXPECT_EQ(given[i].token_id, expected[i].token_id);
    EXPECT_EQ(given[i].logprob, expected[i].logprob);
    EXPECT_EQ(given[i].rank, expected[i].rank);
    EXPECT_EQ(given[i].alternatives, expected[i].alternatives);
  }
}

void ExpectSame(const std::vector<Client::Output>& given,
                const std::vector<Client::Output>& expected) {
  ASSERT_EQ(given.size(), expected.size());
  for (size_t i = 0; i < given.size(); ++i) {
    ASSERT_EQ(given[i].sequences.size(), expected[i].sequences.size());
    ExpectSame(given[i].prompt_logprobs, expected[i].prompt_logprobs);
    for (const auto& [index, sequence] : expected[i].sequences) {
      const OutputDelta& other = given[i].sequences.at(index);
      EXPECT_EQ(other.token_ids, sequence.token_ids) << "request " << i;
      EXPECT_EQ(other.finish_reason, sequence.finish_reason);
      EXPECT_EQ(other.cumulative_logprob, sequence.cumulative_logprob);
      ExpectSame(other.logprobs, sequence.logprobs);
    }
  }
}

const std::vector<int32_t> kPlenty = {400, 400};

class SameBitsTest : public ::testing::TestWithParam<std::tuple<TypedCase, Mode>> {
 protected:
  RigOptions With(RigOptions rig) {
    std::tie(rig.typed, rig.mode) = GetParam();
    return rig;
  }
  // Whether a device that is made late stands before this one: CUDA is late by itself.
  std::vector<bool> Late() const {
    return OnCpu(std::get<0>(GetParam())) ? std::vector<bool>{false, true}
                                          : std::vector<bool>{false};
  }
};

// Of the CPU one is enough here: tests/kernels and tests/graphs have its threads and types.
std::vector<TypedCase> Cases(bool on_cpu) {
  std::vector<TypedCase> cases;
  for (const TypedCase& typed : BatchInvariantCases()) {
    const bool is_one = typed.device.name == "cpu_1_thread" && typed.dtype == DType::kFloat32;
    if (on_cpu ? is_one : !OnCpu(typed)) cases.push_back(typed);
  }
  return cases;
}

std::string NameOfCase(const testing::TestParamInfo<SameBitsTest::ParamType>& info) {
  return CaseName(std::get<0>(info.param)) + "_" + std::string(NameOf(std::get<1>(info.param)));
}

INSTANTIATE_TEST_SUITE_P(Cpu, SameBitsTest,
                         ::testing::Combine(::testing::ValuesIn(Cases(/*on_cpu=*/true)),
                                            ::testing::Values(Mode::kEager, Mode::kDecoderGraph,
                                                              Mode::kLayerGraph)),
                         NameOfCase);
INSTANTIATE_TEST_SUITE_P(Cuda, SameBitsTest,
                         ::testing::Combine(::testing::ValuesIn(Cases(/*on_cpu=*/false)),
                                            ::testing::ValuesIn(kAllModes)),
                         NameOfCase);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SameBitsTest);

TEST_P(SameBitsTest, WithAPrefixCacheAndWithout) {
  const std::vector<Request> requests = RandomRequests(60, 60, 24);
  Rig without(With({.kv_blocks = kPlenty, .prefix_cache = false}));
  const std::vector<Client::Output> expected = without.Answers(requests);
  EXPECT_EQ(without.counts().prefix_hits, 0);
  for (const bool late : Late()) {
    // Where there is little room, blocks are forgotten and computed again.
    for (const std::vector<int32_t>& kv_blocks : {kPlenty, {60, 40}}) {
      Rig with(With({.kv_blocks = kv_blocks, .late = late}));
      // Twice, so that the second time answers are found as well.
      for (int round = 0; round < 2; ++round) ExpectSame(with.Answers(requests), expected);
      EXPECT_GT(with.counts().prefix_hits, 500);
    }
  }
}

TEST_P(SameBitsTest, PreemptedAndNot) {
  const std::vector<Request> requests = RandomRequests(60, 12, 70);
  Rig plenty(With({.kv_blocks = kPlenty}));
  const std::vector<Client::Output> expected = plenty.Answers(requests);
  EXPECT_EQ(plenty.counts().preemptions, 0);
  for (const bool late : Late()) {
    for (const bool prefix_cache : {false, true}) {
      // For 1.3 of the longest.
      Rig tight(With({.kv_blocks = {31, 20}, .prefix_cache = prefix_cache, .late = late}));
      ExpectSame(tight.Answers(requests), expected);
      EXPECT_GT(tight.counts().preemptions, 5);
    }
  }
}

// Searches between the others, with all that may be asked of them.
std::vector<Request> WithSearches() {
  std::vector<Request> requests;
  const std::vector<Request> others = RandomRequests(30, 12, 70);
  std::vector<Request> searches = RandomRequests(30, 12, 18);
  for (size_t i = 0; i < searches.size(); ++i) {
    Request& search = searches[i];
    search.beam = BeamOptions{.num_beams = 2 + static_cast<int32_t>(i % 2),
                              .length_penalty = static_cast<float>(i % 3),
                              .early_stopping = i % 5 == 0};
    search.n = std::min(search.n, search.beam->num_beams);
    search.sampling.temperature = 0;
    if (ChangesLogits(search.sampling)) search.logprobs.reset();
    requests.push_back(search);
    requests.push_back(others[i]);
  }
  return requests;
}

TEST_P(SameBitsTest, SearchesToo) {
  const std::vector<Request> requests = WithSearches();
  Rig plenty(With({.kv_blocks = kPlenty, .prefix_cache = false}));
  const std::vector<Client::Output> expected = plenty.Answers(requests);
  EXPECT_EQ(plenty.counts().preemptions, 0);
  for (const bool late : Late()) {
    for (const bool prefix_cache : {false, true}) {
      // For one search of the longest.
      Rig tight(With({.kv_blocks = {25, 25}, .prefix_cache = prefix_cache, .late = late}));
      ExpectSame(tight.Answers(requests), expected);
      EXPECT_GE(tight.counts().preemptions, 2);  // more where a step is not one ahead
    }
  }
}

}  // namespace
}  // namespace sirocco
