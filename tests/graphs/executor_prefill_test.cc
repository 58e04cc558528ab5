// The executor's prefill steps, on a device that computes nothing: one pass over all chunks, what
// fills it up, samples and scores, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "graphs/executor.h"
#include "tests/graphs/executor_fixture.h"

namespace sirocco {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Modes, ExecutorTest, ::testing::ValuesIn(kAllModes),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

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
  options.prefill_chunk_size = 1200;
  ASSERT_TRUE(Create(options).ok());
  StartLane(0, 600);
  StartLane(1, 500);
  device_.run.clear();
  const std::vector<PrefillChunk> chunks = {{.lane = 0, .count = 600, .sample = true},
                                            {.lane = 1, .count = 500, .sample = true}};
  ASSERT_TRUE(executor_->Prefill({.chunks = chunks}).ok());
  EXPECT_EQ(device_.Ran<PrefillAttentionParams>().at(0).rows, 1100);
  EXPECT_EQ(executor_->stats().prefill_launches, 1u);
  EXPECT_EQ(executor_->stats().prefill_replays, 0u);
  EXPECT_EQ(executor_->stats().prefill_filling_rows, 0u);
}

}  // namespace
}  // namespace sirocco
