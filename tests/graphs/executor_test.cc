// What the executor makes when it is created, its checks, and its decode steps: order of work and
// counts, on a device that computes nothing.
#include "graphs/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "tests/graphs/executor_fixture.h"
#include "tests/graphs/fake_device.h"
#include "tests/testing/random_model.h"

namespace {
std::atomic<uint64_t> host_allocations{0};
}  // namespace

// Counted, so that a test can see that a decode step makes none.
void* operator new(size_t bytes) {
  ++host_allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace sirocco {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

INSTANTIATE_TEST_SUITE_P(Modes, ExecutorTest, ::testing::ValuesIn(kAllModes),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

int IndexOf(const std::vector<std::string>& events, std::string_view event, bool last) {
  int found = -1;
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i] != event) continue;
    found = static_cast<int>(i);
    if (!last) break;
  }
  return found;
}

TEST_P(ExecutorTest, ReservesThenCapturesThenMaps) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  const int reserved = IndexOf(device_.events, "reserve kv", true);
  const int mapped = IndexOf(device_.events, "map kv", false);
  ASSERT_GE(reserved, 0);
  ASSERT_GT(mapped, reserved);
  EXPECT_EQ(IndexOf(device_.events, "map kv", true), mapped + 1);  // one a layer group
  EXPECT_TRUE(device_.run.empty());
  // Without graphs too: every size's operations are shown to the device, and dropped.
  const int first = IndexOf(device_.events, "begin", false);
  const int last = IndexOf(device_.events, "end", true);
  for (const char* event : {"sample 1", "sample 4", "prefill_attention 48", "score_tokens 32"}) {
    EXPECT_GT(IndexOf(device_.events, event, false), first) << event;
  }
  EXPECT_GT(first, reserved);
  EXPECT_LT(last, mapped);
  for (int i = first; i < last; ++i) {
    EXPECT_FALSE(absl::StartsWith(device_.events[i], "allocate")) << device_.events[i];
  }
}

TEST_P(ExecutorTest, CapturesOneGraphOfEveryPartABatchSize) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  const uint64_t graphs = executor_->stats().graphs_captured;
  switch (GetParam()) {
    case Mode::kDecoderGraph:
      EXPECT_EQ(graphs, 4u);
      break;
    case Mode::kLayerGraph:
      EXPECT_EQ(graphs, 4u * 3);  // prologue, one layer kind, epilogue
      break;
    default:
      EXPECT_EQ(graphs, 0u);
  }
  EXPECT_EQ(executor_->stats().graph_pool_bytes, graphs * 100);
}

// All layers, or each layer, as one operation where the device offers it: for so few rows, and
// while no context is longer than it says.
TEST_P(ExecutorTest, TheDevicesOfferIsTakenForFewRowsAndShortContexts) {
  device_.offer = {.rows = 2, .longest = 5, .exchange_bytes = 512};
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  const bool whole = GetParam() != Mode::kEager;
  const bool by_layer = GetParam() == Mode::kLayerGraph || GetParam() == Mode::kLayer;
  if (UsesGraphs(GetParam())) {
    const uint64_t graphs = (4u + 2) * (by_layer ? 3 : 1);
    EXPECT_EQ(executor_->stats().graphs_captured, graphs);
    EXPECT_EQ(executor_->stats().graph_pool_bytes, graphs * 100);
  }
  StartLane(0, 4);
  StartLane(1, 4);
  StartLane(2, 4);
  // The lanes of a step, and whether it is one operation: lane 0 becomes too long, then a start
  // makes it short again.
  const auto is_one = [&](const std::vector<int32_t>& lanes) {
    device_.run.clear();
    Step step;
    step.decode.lanes = lanes;
    EXPECT_TRUE(executor_->Launch(step).ok());
    EXPECT_TRUE(executor_->Collect().ok());
    return !device_.Ran<DecoderLayersParams>().empty();
  };
  EXPECT_EQ(is_one({0}), whole);     // of 4
  EXPECT_EQ(is_one({0, 1}), whole);  // of 5 and 4
  EXPECT_FALSE(is_one({0}));         // of 6
  EXPECT_FALSE(is_one({1, 0}));
  EXPECT_FALSE(is_one({1, 2, 0}));
  EXPECT_EQ(is_one({2}), whole);  // of 5
  StartLane(0, 1);
  EXPECT_EQ(is_one({0}), whole);
  if (whole) {
    const std::vector<DecoderLayersParams> ran = device_.Ran<DecoderLayersParams>();
    ASSERT_EQ(ran.size(), by_layer ? model_.descriptor.layers.size() : 1u);
    for (const DecoderLayersParams& of : ran) {
      EXPECT_EQ(of.rows, 1);
      EXPECT_NE(of.exchange, nullptr);
      EXPECT_EQ(of.layer.counter != nullptr, by_layer);
    }
  }
}

// An offer without layers by a counter is none where a layer is all that a plan knows.
TEST_P(ExecutorTest, AnOfferWithoutCountersIsForAllLayersAtOnce) {
  device_.offer = {.rows = 2, .longest = 5, .exchange_bytes = 512, .counted = false};
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  StartLane(0, 4);
  device_.run.clear();
  Step step;
  const std::vector<int32_t> lanes = {0};
  step.decode.lanes = lanes;
  ASSERT_TRUE(executor_->Launch(step).ok());
  ASSERT_TRUE(executor_->Collect().ok());
  const bool whole = GetParam() == Mode::kDecoder || GetParam() == Mode::kDecoderGraph;
  EXPECT_EQ(device_.Ran<DecoderLayersParams>().empty(), !whole);
}

TEST_P(ExecutorTest, TheMemoryPlanIsWhatIsAllocated) {
  for (const bool keep : {false, true}) {
    FakeDevice device;
    absl::StatusOr<RandomModel> model = MakeRandomModel(device, DType::kFloat32, 1);
    ASSERT_TRUE(model.ok());
    ExecutorOptions options = SmallOptions(GetParam());
    options.keep_logits = keep;
    const MemoryPlan plan = PlanMemory(model->descriptor, options);
    auto executor = Executor::Create(device, model->descriptor, model->weights, options);
    ASSERT_TRUE(executor.ok()) << executor.status();
    for (const MemoryUse use : {MemoryUse::kWorkspace, MemoryUse::kLanes, MemoryUse::kKv}) {
      const int i = static_cast<int>(use);
      EXPECT_GT(plan.bytes[i], 0u);
      EXPECT_EQ(plan.bytes[i], device.counters().bytes[i]) << NameOf(use);
    }
  }
}

TEST_P(ExecutorTest, AnOptionOutOfRangeIsNamed) {
  const ExecutorOptions good = SmallOptions(GetParam());
  struct Case {
    const char* expected;
    ExecutorOptions options;
  };
  std::vector<Case> cases;
  auto add = [&](const char* expected) -> ExecutorOptions& {
    cases.push_back({expected, good});
    return cases.back().options;
  };
  add("max_batch_size is 0; allowed are 1 to 512").max_batch_size = 0;
  add("max_batch_size is 513; allowed are 1 to 512").max_batch_size = 513;
  add("max_length is 0; allowed are 1 to 1024").max_length = 0;
  add("max_length is 1025; allowed are 1 to 1024").max_length = 1025;
  add("prefill_chunk_size is 0; allowed are 1 to 65536").prefill_chunk_size = 0;
  add("block_size is -1; allowed are 1 to 1024").block_size = -1;
  add("the number of kv_blocks entries is 1; allowed are 2 to 2").kv_blocks = {8};
  add("kv_blocks is 0").kv_blocks = {8, 0};
  add("prefill_as_decode is true; allowed is what the device says, false").prefill_as_decode = true;
  for (const Case& c : cases) {
    device_.events.clear();
    const absl::Status status = Create(c.options);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.expected));
    EXPECT_THAT(device_.events, IsEmpty());  // before anything is allocated
  }
}

TEST_P(ExecutorTest, ADescriptorOrWeightsThatDoNotFitAreRefused) {
  const ExecutorOptions options = SmallOptions(GetParam());
  const ModelDescriptor good = model_.descriptor;
  model_.descriptor.layers[1].group = 2;
  EXPECT_THAT(std::string(Create(options).message()), HasSubstr("a layer's group is 2"));
  model_.descriptor = good;
  model_.descriptor.layers[2].rotary = -1;
  EXPECT_THAT(std::string(Create(options).message()), HasSubstr("a layer's rotary is -1"));
  model_.descriptor = good;
  model_.descriptor.kv_heads = 3;
  EXPECT_THAT(std::string(Create(options).message()), HasSubstr("not a multiple of kv_heads"));
  model_.descriptor = good;
  model_.descriptor.vocab_size = 130;
  EXPECT_THAT(std::string(Create(options).message()), HasSubstr("weight embedding is [131, 48]"));
  model_.descriptor = good;
  model_.weights.layers.pop_back();
  EXPECT_THAT(std::string(Create(options).message()), HasSubstr("layers with weights is 2"));
}

TEST_P(ExecutorTest, NormsThatDoNotFitAreNamed) {
  const ExecutorOptions options = SmallOptions(GetParam());
  const ModelDescriptor good = model_.descriptor;
  model_.descriptor.head_norms = true;
  EXPECT_THAT(std::string(Create(options).message()), HasSubstr("layer 0 lacks the norm q_norm"));
  model_.descriptor = good;
  model_.descriptor.post_norms = true;
  EXPECT_THAT(std::string(Create(options).message()),
              HasSubstr("layer 0 lacks the norm attention_post_norm"));
  model_.descriptor = good;
  model_.weights.layers[2].mlp_post_norm = model_.weights.final_norm;
  EXPECT_THAT(std::string(Create(options).message()),
              HasSubstr("layer 2 has a norm mlp_post_norm, which the model does not have"));
}

TEST_P(ExecutorTest, DecodeReturnsTheRowsOfItsStep) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  for (int32_t lane = 0; lane < 4; ++lane) StartLane(lane, 5 + lane);
  const std::vector<int32_t> lanes = {3, 0, 2};
  for (int step = 0; step < 3; ++step) {
    const absl::StatusOr<DecodeResult> result = executor_->Decode({.lanes = lanes});
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->sampled.size(), 3u);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(result->sampled[i].token_id, lanes[i]);
      EXPECT_EQ(result->sampled[i].rank, 5 + lanes[i] + step);  // the fake's: the length before
    }
  }
  const ExecutorStats& stats = executor_->stats();
  for (int rows = 0; rows <= 4; ++rows) {
    EXPECT_EQ(stats.replays[rows], rows == 3 && UsesGraphs(GetParam()) ? 3u : 0u) << rows;
  }
}

TEST_P(ExecutorTest, AStepRunsEveryOperationOfThePlanForItsRows) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  for (int32_t lane = 0; lane < 4; ++lane) StartLane(lane, 5);
  const std::vector<PlanEntry> plan = executor_->DecodePlan();
  const bool by_layer = GetParam() == Mode::kLayer || GetParam() == Mode::kLayerGraph;
  for (const std::vector<int32_t>& lanes : std::vector<std::vector<int32_t>>{{1}, {0, 1, 2, 3}}) {
    device_.run.clear();
    ASSERT_TRUE(executor_->Decode({.lanes = lanes}).ok());
    EXPECT_EQ(device_.run.size(), by_layer ? 2u + 3 * 5 + 3 : plan.size());
    for (const FakeDevice::Issued& issued : device_.run) {
      EXPECT_EQ(issued.rows, static_cast<int32_t>(lanes.size()));
    }
  }
}

// A recording holds exactly what its twin without graphs issues.
TEST(TwinTest, TheTwinsDoTheSameWork) {
  const std::pair<Mode, Mode> kTwins[] = {{Mode::kDecoderGraph, Mode::kDecoder},
                                          {Mode::kLayerGraph, Mode::kLayer}};
  for (const auto& [with, without] : kTwins) {
    std::vector<std::string> names[2];
    int i = 0;
    for (const Mode mode : {with, without}) {
      FakeDevice device;
      absl::StatusOr<RandomModel> model = MakeRandomModel(device, DType::kFloat32, 1);
      ASSERT_TRUE(model.ok());
      auto executor =
          Executor::Create(device, model->descriptor, model->weights, SmallOptions(mode));
      ASSERT_TRUE(executor.ok());
      const std::vector<int32_t> tokens = {1, 2};
      LaneStart start;
      start.state.length = start.prompt_length = 2;
      start.tokens = tokens;
      ASSERT_TRUE((*executor)->StartLane(start).ok());
      const std::vector<int32_t> lanes = {0};
      ASSERT_TRUE((*executor)->Decode({.lanes = lanes}).ok());
      for (const FakeDevice::Issued& issued : device.run) {
        names[i].emplace_back(NameOf(issued.operation));
      }
      ++i;
    }
    EXPECT_EQ(names[0], names[1]);
    EXPECT_FALSE(names[0].empty());
  }
}

TEST_P(ExecutorTest, DecodeStepsComposeAndAllocateNothing) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  for (int32_t lane = 0; lane < 4; ++lane) StartLane(lane, 5);
  const std::vector<int32_t> lanes = {3, 0, 2, 1};
  const std::vector<BlockUpdate> updates = {{.lane = 3, .group = 1, .logical = 2, .physical = 15}};
  const uint64_t plans = executor_->stats().plan_builds;
  EXPECT_GT(plans, 0u);
  device_.log = false;
  const uint64_t before = host_allocations;
  for (int step = 0; step < 20; ++step) {
    const std::span<const int32_t> now(lanes.data(), 1 + step % 4);
    const absl::StatusOr<DecodeResult> result =
        executor_->Decode({.block_updates = updates, .lanes = now});
    if (!result.ok()) FAIL() << result.status();
  }
  EXPECT_EQ(host_allocations, before);
  EXPECT_EQ(executor_->stats().plan_builds, plans);
  EXPECT_EQ(executor_->stats().decode_allocations, 0u);
}

TEST_P(ExecutorTest, BlockUpdatesReachTheTablesHoweverMany) {
  ExecutorOptions options = SmallOptions(GetParam());
  options.max_length = 1024;
  options.block_size = 1;
  options.kv_blocks = {5000, 5000};
  ASSERT_TRUE(Create(options).ok());
  StartLane(0, 3);
  StartLane(1, 3);
  // More than one upload carries: every entry of four lanes, twice, the second time for good.
  std::vector<BlockUpdate> updates;
  for (int32_t round = 0; round < 2; ++round) {
    for (int32_t lane = 0; lane < 4; ++lane) {
      for (int32_t group = 0; group < 2; ++group) {
        for (int32_t logical = 0; logical < 1024; ++logical) {
          updates.push_back({lane, group, logical, round * (lane * 1024 + logical + group)});
        }
      }
    }
  }
  ASSERT_GT(updates.size(), 4096u * 3);
  const std::vector<int32_t> lanes = {1};
  ASSERT_TRUE(executor_->Decode({.block_updates = updates, .lanes = lanes}).ok());
  const Lanes on_device = device_.Ran<SampleParams>().at(0).lanes;
  for (int32_t lane = 0; lane < 4; ++lane) {
    for (int32_t group = 0; group < 2; ++group) {
      for (int32_t logical = 0; logical < 1024; ++logical) {
        ASSERT_EQ(on_device.BlockTable(lane, group)[logical], lane * 1024 + logical + group);
      }
    }
  }
}

TEST_P(ExecutorTest, ABadDecodeStepIsNamedAndRunsNothing) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  for (int32_t lane = 0; lane < 3; ++lane) StartLane(lane, 5);
  device_.run.clear();
  const struct {
    const char* expected;
    std::vector<int32_t> lanes;
    std::vector<BlockUpdate> updates;
  } kCases[] = {
      {"neither chunks nor lanes", {}, {}},
      {"number of lanes is 5", {0, 1, 2, 0, 1}, {}},
      {"lane is 4; allowed are 0 to 3", {0, 4}, {}},
      {"lane is -1", {-1}, {}},
      {"lane 1 is named twice", {1, 0, 1}, {}},
      {"lane 3 was never started", {3}, {}},
      {"update's lane is 4", {0}, {{4, 0, 0, 0}}},
      {"update's group is 2; allowed are 0 to 1", {0}, {{0, 2, 0, 0}}},
      {"logical block is 8; allowed are 0 to 7", {0}, {{0, 0, 8, 0}}},
      {"physical block is 16; allowed are 0 to 15", {0}, {{0, 1, 0, 16}}},
      {"physical block is -1", {0}, {{0, 1, 0, -1}}},
  };
  for (const auto& c : kCases) {
    const absl::StatusOr<DecodeResult> result =
        executor_->Decode({.block_updates = c.updates, .lanes = c.lanes});
    ASSERT_FALSE(result.ok()) << c.expected;
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(c.expected));
  }
  EXPECT_TRUE(device_.run.empty());
  // A refused step leaves nothing behind: the same lanes decode afterwards.
  const std::vector<int32_t> lanes = {1, 0};
  EXPECT_TRUE(executor_->Decode({.lanes = lanes}).ok());
}

TEST_P(ExecutorTest, KeptLogitsMustBeAskedFor) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  EXPECT_EQ(executor_->KeptLogits(0).status().code(), absl::StatusCode::kFailedPrecondition);
  ExecutorOptions options = SmallOptions(GetParam());
  options.keep_logits = true;
  ASSERT_TRUE(Create(options).ok());
  EXPECT_EQ(executor_->KeptLogits(0)->size(), 131u);
  EXPECT_EQ(executor_->KeptLogits(4).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(executor_->KeptLogits(-1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(ExecutorTest, TheDescribedPlanIsThePlanThatRuns) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  const std::vector<PlanEntry> real = executor_->DecodePlan();
  const std::vector<PlanEntry> described =
      DescribeDecodePlan(model_.descriptor, GetParam(), model_.weights, DType::kFloat32,
                         device_.norms_where_read_rows());
  ASSERT_EQ(real.size(), described.size());
  for (size_t i = 0; i < real.size(); ++i) {
    EXPECT_EQ(real[i].part, described[i].part);
    EXPECT_EQ(real[i].rows, described[i].rows);
    EXPECT_EQ(real[i].operation, described[i].operation);
    EXPECT_EQ(real[i].detail, described[i].detail);
  }
}

}  // namespace
}  // namespace sirocco
