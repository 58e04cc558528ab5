// The executor's order of work, its checks and its counts, on a device that computes nothing.
#include "graphs/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "absl/strings/match.h"
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

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ExecutorOptions SmallOptions(Mode mode) {
  ExecutorOptions options;
  options.mode = mode;
  options.max_batch_size = 4;
  options.max_length = 64;
  options.prefill_chunk_size = 48;
  options.block_size = 8;
  options.kv_blocks = {32, 16};
  return options;
}

class ExecutorTest : public ::testing::TestWithParam<Mode> {
 protected:
  void SetUp() override {
    absl::StatusOr<RandomModel> model = MakeRandomModel(device_, DType::kFloat32, 1);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    device_.events.clear();
  }

  absl::Status Create(const ExecutorOptions& options) {
    absl::StatusOr<std::unique_ptr<Executor>> executor =
        Executor::Create(device_, model_.descriptor, model_.weights, options);
    if (!executor.ok()) return executor.status();
    executor_ = *std::move(executor);
    return absl::OkStatus();
  }

  void StartLane(int32_t lane, int32_t length) {
    const std::vector<int32_t> tokens(length, 7);
    LaneStart start;
    start.lane = lane;
    start.state.length = start.prompt_length = length;
    start.tokens = tokens;
    ASSERT_TRUE(executor_->StartLane(start).ok());
  }

  FakeDevice device_;
  RandomModel model_;
  std::unique_ptr<Executor> executor_;
};

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

// The prefill step's segments as the device has them.
std::vector<PrefillSegment> SegmentsOf(const PrefillAttentionParams& p) {
  return {p.segments, p.segments + *p.segment_count};
}

TEST_P(ExecutorTest, APrefillIsFilledUpByALaneOfItsOwn) {
  ExecutorOptions options = SmallOptions(GetParam());
  options.fill_prefill = true;
  ASSERT_TRUE(Create(options).ok());
  const bool fills = GetParam() != Mode::kEager;
  const ExecutorStats& stats = executor_->stats();
  EXPECT_EQ(stats.prefill_graphs, UsesGraphs(GetParam()) ? 2u : 0u);  // 32 and 48 rows
  EXPECT_EQ(stats.prefill_graph_bytes, stats.prefill_graphs * 100);
  EXPECT_EQ(stats.graph_pool_bytes, stats.graphs_captured * 100);
  for (int32_t lane = 0; lane < 4; ++lane) StartLane(lane, 10);
  std::vector<PrefillChunk> chunks;
  for (int32_t lane = 3; lane >= 0; --lane) {
    chunks.push_back({.lane = lane, .count = 10, .sample = true});
  }
  uint64_t filling = 0, steps = 0;
  // Steps of 10, 20, 30 and 40 rows, the last with all lanes there are.
  for (size_t count = 1; count <= chunks.size(); ++count) {
    device_.run.clear();
    const auto result = executor_->Prefill({.chunks = std::span(chunks).first(count)});
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->sampled.size(), count);
    for (size_t i = 0; i < count; ++i) EXPECT_EQ(result->sampled[i].token_id, chunks[i].lane);
    // The lanes have a token more, which no next step of this test computes.
    const auto rows = static_cast<int32_t>(10 * count);
    const int32_t filled = fills ? (rows <= 32 ? 32 : 48) : rows;
    filling += static_cast<uint64_t>(filled - rows);
    ++steps;
    const auto attention = device_.Ran<PrefillAttentionParams>();
    ASSERT_FALSE(attention.empty());
    EXPECT_EQ(attention[0].rows, filled);
    EXPECT_EQ(attention[0].lanes.max_lanes, fills ? 5 : 4);
    const std::vector<PrefillSegment> segments = SegmentsOf(attention[0]);
    ASSERT_EQ(segments.size(), count + (fills ? 1 : 0));
    if (fills) {
      EXPECT_EQ(segments.back().lane, 4);
      EXPECT_EQ(segments.back().first_row, rows);
      EXPECT_EQ(segments.back().first_position, 0);
      EXPECT_EQ(segments.back().count, filled - rows);
    }
    const RowMap map = attention[0].map;
    for (int32_t r = rows; r < filled; ++r) {
      EXPECT_EQ(map.lane[r], 4);
      EXPECT_EQ(map.position[r], r - rows);
    }
    // The last layer's end and the head see the chunks' last rows: of queries and of the stream.
    const auto sampled = device_.Ran<GatherRowsParams>();
    ASSERT_EQ(sampled.size(), 2u);
    for (const GatherRowsParams& gather : sampled) {
      EXPECT_EQ(gather.rows, static_cast<int32_t>(count));
      for (size_t i = 0; i < count; ++i) {
        EXPECT_EQ(gather.index[i], static_cast<int32_t>(10 * i + 9));
      }
    }
    for (int32_t lane = 0; lane < 4; ++lane) StartLane(lane, 10);
  }
  EXPECT_EQ(stats.prefill_filling_rows, filling);
  EXPECT_EQ(stats.prefill_replays, UsesGraphs(GetParam()) ? steps : 0u);
  EXPECT_EQ(stats.prefill_launches, UsesGraphs(GetParam()) ? 0u : steps);
}

TEST_P(ExecutorTest, TheFillingLaneHasBlocksBehindTheSequences) {
  ExecutorOptions options = SmallOptions(GetParam());
  options.fill_prefill = true;
  ASSERT_TRUE(Create(options).ok());
  StartLane(0, 3);
  const std::vector<PrefillChunk> chunks = {{.lane = 0, .count = 3, .sample = true}};
  ASSERT_TRUE(executor_->Prefill({.chunks = chunks}).ok());
  const Lanes lanes = device_.Ran<PrefillAttentionParams>().at(0).lanes;
  if (GetParam() == Mode::kEager) {
    EXPECT_EQ(lanes.max_lanes, 4);
    return;
  }
  ASSERT_EQ(lanes.max_lanes, 5);
  // 31 rows at most, of blocks of 8 slots; the groups have 32 and 16.
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(lanes.BlockTable(4, 0)[i], 32 + i);
    EXPECT_EQ(lanes.BlockTable(4, 1)[i], 16 + i);
  }
  const MemoryPlan plan = PlanMemory(model_.descriptor, options);
  for (const MemoryUse use : {MemoryUse::kLanes, MemoryUse::kKv}) {
    const int i = static_cast<int>(use);
    EXPECT_EQ(plan.bytes[i], device_.counters().bytes[i]) << NameOf(use);
  }
  uint64_t blocks = 0;
  for (int g = 0; g < 2; ++g) {
    blocks += static_cast<uint64_t>(KvBlockBytes(model_.descriptor, g, 8, options.kv_dtype)) *
              static_cast<uint64_t>(options.kv_blocks[g] + 4);
  }
  EXPECT_EQ(plan.bytes[static_cast<int>(MemoryUse::kKv)], blocks);
  // Nobody else gets to it, nor to its blocks.
  LaneStart start;
  const std::vector<int32_t> tokens = {1};
  start.lane = 4;
  start.state.length = start.prompt_length = 1;
  start.tokens = tokens;
  EXPECT_EQ(executor_->StartLane(start).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(executor_->ForkLane({.lane = 4, .parent = 0, .token = 1}).code(),
            absl::StatusCode::kInvalidArgument);
  const std::vector<int32_t> decoded = {4};
  EXPECT_EQ(executor_->Decode({.lanes = decoded}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const std::vector<int32_t> first = {0};
  for (const BlockUpdate& update :
       std::vector<BlockUpdate>{{4, 0, 0, 0}, {0, 0, 0, 32}, {0, 1, 0, 16}}) {
    const std::vector<BlockUpdate> updates = {update};
    EXPECT_EQ(executor_->Decode({.block_updates = updates, .lanes = first}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  const std::vector<BlockCopy> copies = {{.group = 1, .from = 16, .to = 0}};
  EXPECT_EQ(executor_->Decode({.lanes = first, .block_copies = copies}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Of more rows than are recorded there is none.
TEST_P(ExecutorTest, WhatIsNotRecordedIsLaunchedAndCounted) {
  ExecutorOptions options = SmallOptions(GetParam());
  options.fill_prefill = true;
  options.max_length = 1000;
  options.prefill_chunk_size = 800;
  ASSERT_TRUE(Create(options).ok());
  StartLane(0, 600);
  device_.run.clear();
  const std::vector<PrefillChunk> chunks = {{.lane = 0, .count = 600, .sample = true}};
  ASSERT_TRUE(executor_->Prefill({.chunks = chunks}).ok());
  EXPECT_EQ(device_.Ran<PrefillAttentionParams>().at(0).rows, 600);
  EXPECT_EQ(executor_->stats().prefill_launches, 1u);
  EXPECT_EQ(executor_->stats().prefill_replays, 0u);
  EXPECT_EQ(executor_->stats().prefill_filling_rows, 0u);
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

TEST_P(ExecutorTest, PrefillIsOnePassOverAllChunks) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  StartLane(2, 10);
  StartLane(0, 40);
  StartLane(3, 7);
  device_.run.clear();
  const std::vector<PrefillChunk> chunks = {
      {.lane = 2, .first_position = 4, .count = 6, .sample = true},
      {.lane = 0, .first_position = 0, .count = 20},
      {.lane = 3, .first_position = 0, .count = 7, .sample = true}};
  const absl::StatusOr<PrefillResult> result = executor_->Prefill({.chunks = chunks});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->sampled.size(), 2u);
  EXPECT_EQ(result->sampled[0].token_id, 2);
  EXPECT_EQ(result->sampled[1].token_id, 3);
  EXPECT_TRUE(result->scored.empty());

  const auto attention = device_.Ran<PrefillAttentionParams>();
  ASSERT_EQ(attention.size(), 2u);  // of three layers: the last one's is of sampled rows
  EXPECT_EQ(attention[0].rows, 33);
  ASSERT_EQ(*attention[0].segment_count, 3);
  const PrefillSegment& last = attention[0].segments[2];
  EXPECT_EQ(last.lane, 3);
  EXPECT_EQ(last.first_row, 26);
  EXPECT_EQ(last.first_position, 0);
  EXPECT_EQ(last.count, 7);
  EXPECT_EQ(attention[0].map.lane[5], 2);
  EXPECT_EQ(attention[0].map.position[5], 9);
  EXPECT_EQ(attention[0].map.lane[6], 0);
  EXPECT_EQ(attention[0].map.position[6], 0);
  // The last layer's end and the LM head see the two last rows only.
  const auto sample = device_.Ran<SampleParams>();
  ASSERT_EQ(sample.size(), 1u);
  EXPECT_EQ(sample[0].rows, 2);
  const auto gather = device_.Ran<GatherRowsParams>();
  ASSERT_EQ(gather.size(), 2u);
  EXPECT_EQ(gather[0].index[0], 5);
  EXPECT_EQ(gather[0].index[1], 32);
  const auto ends = device_.Ran<DownNormParams>();
  ASSERT_EQ(ends.size(), 3u);
  EXPECT_EQ(ends[1].rows, 33);
  EXPECT_EQ(ends[2].rows, 2);
  const auto end = device_.Ran<DecodeAttentionParams>();
  ASSERT_EQ(end.size(), 1u);
  EXPECT_EQ(end[0].rows, 2);
  EXPECT_EQ(end[0].map.lane[1], 3);
  EXPECT_EQ(end[0].map.position[0], 9);
  EXPECT_EQ(end[0].map.position[1], 6);

  // A chunk that ends no prompt needs no end of the last layer.
  device_.run.clear();
  const std::vector<PrefillChunk> middle = {{.lane = 0, .first_position = 20, .count = 12}};
  ASSERT_TRUE(executor_->Prefill({.chunks = middle}).ok());
  EXPECT_EQ(device_.Ran<QkvEndParams>().size(), 3u);
  EXPECT_EQ(device_.Ran<DownNormParams>().size(), 2u);
  EXPECT_TRUE(device_.Ran<GatherRowsParams>().empty());

  // What was sampled counts: the lane's length is one more.
  const std::vector<PrefillChunk> again = {{.lane = 3, .first_position = 0, .count = 8}};
  EXPECT_TRUE(executor_->Prefill({.chunks = again}).ok());
}

TEST_P(ExecutorTest, ScoresComeInBoundedSlicesOfARowsOwnPosition) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  StartLane(1, 60);
  StartLane(2, 6);
  device_.run.clear();
  const std::vector<PrefillChunk> chunks = {
      {.lane = 1, .first_position = 10, .count = 42, .score_count = 40, .score_top = 3},
      {.lane = 2, .first_position = 0, .count = 6, .sample = true, .score_count = 5}};
  const absl::StatusOr<PrefillResult> result = executor_->Prefill({.chunks = chunks});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->scored.size(), 45u);
  for (int i = 0; i < 45; ++i) {
    const TokenScore& score = result->scored[i];
    EXPECT_EQ(score.token_id, i < 40 ? 1 : 2);
    EXPECT_EQ(score.rank, i < 40 ? 10 + i : i - 40);
    EXPECT_EQ(score.top_count, i < 40 ? 3 : 0);
  }
  ASSERT_EQ(result->sampled.size(), 1u);
  std::vector<int32_t> slices;
  for (const ScoreTokensParams& score : device_.Ran<ScoreTokensParams>()) {
    slices.push_back(score.rows);
  }
  EXPECT_THAT(slices, ElementsAre(32, 8, 5));
  // Their rows are of the whole last layer, which a slice does not read again.
  const auto attention = device_.Ran<PrefillAttentionParams>();
  ASSERT_EQ(attention.size(), 3u);
  EXPECT_EQ(attention[2].rows, attention[1].rows);
  EXPECT_EQ(device_.Ran<DownNormParams>().size(), 3u);
  EXPECT_TRUE(device_.Ran<DecodeAttentionParams>().empty());
}

TEST_P(ExecutorTest, ABadPrefillStepIsNamedAndRunsNothing) {
  ASSERT_TRUE(Create(SmallOptions(GetParam())).ok());
  StartLane(0, 10);
  StartLane(1, 60);
  StartLane(2, 60);
  device_.run.clear();
  const PrefillChunk good = {.lane = 0, .first_position = 2, .count = 8};
  struct Case {
    const char* expected;
    std::vector<PrefillChunk> chunks;
  };
  std::vector<Case> cases = {{"neither chunks nor lanes", {}},
                             {"lane is 9", {{.lane = 9, .count = 1}}},
                             {"lane 3 was never started", {{.lane = 3, .count = 1}}},
                             {"lane 0 is named twice", {good, good}},
                             {"sum of the chunks' counts is 49; allowed are 1 to 48",
                              {{.lane = 1, .count = 25}, {.lane = 2, .count = 24}}}};
  auto add = [&](const char* expected) -> PrefillChunk& {
    cases.push_back({expected, {good}});
    return cases.back().chunks[0];
  };
  add("first position is -1; allowed are 0 to 9").first_position = -1;
  add("first position is 10; allowed are 0 to 9").first_position = 10;
  add("count is 0; allowed are 1 to 8").count = 0;
  add("count is 9; allowed are 1 to 8").count = 9;
  add("score_count is 8; allowed are 0 to 7").score_count = 8;  // the last has no next token
  add("score_top is 21; allowed are 0 to 20").score_top = 21;
  PrefillChunk& early = add("count of a chunk that samples is 7; allowed are 8 to 8");
  early.count = 7;
  early.sample = true;
  for (const Case& c : cases) {
    const absl::StatusOr<PrefillResult> result = executor_->Prefill({.chunks = c.chunks});
    ASSERT_FALSE(result.ok()) << c.expected;
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(c.expected));
  }
  EXPECT_TRUE(device_.run.empty());
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
