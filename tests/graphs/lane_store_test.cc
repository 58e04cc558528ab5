#include "graphs/lane_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/graphs/fake_device.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

using ::testing::HasSubstr;

constexpr float kNever = -std::numeric_limits<float>::infinity();

class LaneStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.max_batch_size = 3;
    options_.max_length = 20;
    options_.block_size = 8;
    absl::StatusOr<LaneStore> store = LaneStore::Create(device_, RandomModelDescriptor(), options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    device_.copied_to.clear();
  }

  LaneStart Start(int32_t lane, uint32_t flags) {
    LaneStart start;
    start.lane = lane;
    start.state.length = static_cast<int32_t>(tokens_.size());
    start.state.flags = flags;
    start.state.seed = 77;
    start.tokens = tokens_;
    start.prompt_length = 3;
    return start;
  }

  FakeDevice device_;
  ExecutorOptions options_;
  LaneStore store_;
  std::vector<int32_t> tokens_ = {5, 6, 5, 9, 9};  // the last two were generated
};

TEST_F(LaneStoreTest, ArraysHaveTheOptionsShapes) {
  const Lanes& lanes = store_.lanes();
  EXPECT_EQ(lanes.max_lanes, 3);
  EXPECT_EQ(lanes.max_length, 20);
  EXPECT_EQ(lanes.groups, 2);
  EXPECT_EQ(lanes.max_blocks, 3);  // of 8 slots, for 20
  EXPECT_EQ(lanes.vocab_size, 131);
}

TEST_F(LaneStoreTest, AForkTakesOverTokensAndBlocks) {
  const Lanes& lanes = store_.lanes();
  ASSERT_TRUE(store_.Start(device_, Start(1, kLanePenalties)).ok());
  tokens_ = {5, 6, 5};
  ASSERT_TRUE(store_.Start(device_, Start(2, kLanePenalties)).ok());
  lanes.block_table[(1 * 2 + 1) * 3 + 2] = 44;  // of lane 1, its second group's third block
  lanes.history[2 * 20 + 5] = -7;               // beyond what lane 1 knows
  ASSERT_TRUE(store_.Fork(device_, {.lane = 2, .parent = 1, .token = 8, .count = 3}).ok());
  EXPECT_EQ(std::vector<int32_t>(lanes.history + 40, lanes.history + 45),
            (std::vector<int32_t>{5, 6, 5, 9, 8}));
  EXPECT_EQ(lanes.history[2 * 20 + 5], -7);
  EXPECT_EQ(lanes.lane[2].length, 5);
  EXPECT_EQ(store_.length(2), 5);
  EXPECT_EQ(lanes.block_table[(2 * 2 + 1) * 3 + 2], 44);
  EXPECT_EQ(lanes.counts[2 * 131 + 9], 2u);  // the parent's
  EXPECT_EQ(lanes.counts[2 * 131 + 8], 3u);
  // The parent is what it was; and of itself only the newest token becomes another.
  EXPECT_EQ(lanes.history[20 + 4], 9);
  ASSERT_TRUE(store_.Fork(device_, {.lane = 1, .parent = 1, .token = 7, .count = 1}).ok());
  EXPECT_EQ(std::vector<int32_t>(lanes.history + 20, lanes.history + 25),
            (std::vector<int32_t>{5, 6, 5, 9, 7}));
  EXPECT_EQ(lanes.lane[1].length, 5);
}

TEST_F(LaneStoreTest, AForkIsRefused) {
  ASSERT_TRUE(store_.Start(device_, Start(0, 0)).ok());
  ASSERT_TRUE(store_.Start(device_, Start(1, kLanePenalties)).ok());
  const auto refusal = [&](const LaneFork& fork) {
    const absl::Status status = store_.Fork(device_, fork);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal({.lane = 3, .parent = 0}), HasSubstr("a fork's lane is 3"));
  EXPECT_THAT(refusal({.lane = 0, .parent = -1}), HasSubstr("a fork's lane is -1"));
  EXPECT_THAT(refusal({.lane = 0, .parent = 2}), HasSubstr("lane 2, which was never started"));
  EXPECT_THAT(refusal({.lane = 0, .parent = 0, .token = 131}), HasSubstr("a fork's token is 131"));
  EXPECT_THAT(refusal({.lane = 0, .parent = 1}), HasSubstr("one keeps counts"));
}

TEST_F(LaneStoreTest, AStartSetsStateAndHistoryOfItsLaneAlone) {
  const Lanes& lanes = store_.lanes();
  lanes.history[2 * 20] = -7;
  ASSERT_TRUE(store_.Start(device_, Start(1, 0)).ok());
  EXPECT_EQ(lanes.lane[1].length, 5);
  EXPECT_EQ(lanes.lane[1].seed, 77u);
  EXPECT_EQ(lanes.lane[0].length, 0);
  EXPECT_EQ(std::vector<int32_t>(lanes.history + 20, lanes.history + 25), tokens_);
  EXPECT_EQ(lanes.history[19], 0);
  EXPECT_EQ(lanes.history[2 * 20], -7);
  EXPECT_EQ(store_.length(1), 5);
  EXPECT_EQ(store_.length(0), 0);
}

TEST_F(LaneStoreTest, VocabularySizedArraysAreWrittenOnlyWhereFlagsAsk) {
  ASSERT_TRUE(store_.Start(device_, Start(0, kLaneLogprobs | kLaneNgrams)).ok());
  EXPECT_EQ(device_.copied_to.size(), 2u);  // state and history
}

TEST_F(LaneStoreTest, BiasHoldsAllowedBiasedAndBannedIds) {
  const std::vector<int32_t> allowed = {1, 2, 3}, banned = {3, 4};
  const std::vector<std::pair<int32_t, float>> bias = {{2, 1.5f}, {3, 9.0f}, {8, 2.0f}};
  LaneStart start = Start(1, kLaneBias);
  start.allowed_ids = allowed;
  start.banned_ids = banned;
  start.logit_bias = bias;
  const float* row = store_.lanes().bias + 131;
  ASSERT_TRUE(store_.Start(device_, start).ok());
  EXPECT_EQ(row[0], kNever);
  EXPECT_EQ(row[1], 0);
  EXPECT_EQ(row[2], 1.5f);
  EXPECT_EQ(row[3], kNever);  // banned, though allowed
  EXPECT_EQ(row[8], kNever);  // not allowed, though biased
  EXPECT_EQ(device_.copied_to.size(), 3u);

  // The next sequence of the lane sees nothing of the one before.
  start = Start(1, kLaneBias);
  start.logit_bias = bias;
  ASSERT_TRUE(store_.Start(device_, start).ok());
  EXPECT_EQ(row[0], 0);
  EXPECT_EQ(row[3], 9.0f);
  EXPECT_EQ(row[8], 2.0f);
}

TEST_F(LaneStoreTest, PenaltiesTellThePromptFromWhatWasGenerated) {
  const std::vector<int32_t> barred = {6, 7};
  LaneStart start = Start(2, kLanePenalties | kLaneBarred);
  start.barred_ids = barred;
  ASSERT_TRUE(store_.Start(device_, start).ok());
  const uint32_t* counts = store_.lanes().counts + 2 * 131;
  const uint8_t* flags = store_.lanes().token_flags + 2 * 131;
  EXPECT_EQ(counts[5], 0u);
  EXPECT_EQ(counts[9], 2u);
  EXPECT_EQ(flags[5], kTokenInPrompt);
  EXPECT_EQ(flags[6], kTokenInPrompt | kTokenBarred);
  EXPECT_EQ(flags[7], kTokenBarred);
  EXPECT_EQ(flags[9], 0);

  tokens_ = {1};
  start = Start(2, kLanePenalties);
  start.prompt_length = 1;
  ASSERT_TRUE(store_.Start(device_, start).ok());
  EXPECT_EQ(counts[9], 0u);
  EXPECT_EQ(flags[5], 0);
  EXPECT_EQ(flags[1], kTokenInPrompt);
}

TEST_F(LaneStoreTest, AdvanceStopsAtAFullHistory) {
  ASSERT_TRUE(store_.Start(device_, Start(0, 0)).ok());
  for (int i = 0; i < 30; ++i) store_.Advance(0);
  EXPECT_EQ(store_.length(0), 20);
}

TEST_F(LaneStoreTest, WhatIsOutOfRangeIsNamedAndChangesNothing) {
  ASSERT_TRUE(store_.Start(device_, Start(1, 0)).ok());
  const std::vector<int32_t> bad_id = {131}, negative = {-1}, none;
  const std::vector<int32_t> long_tokens(21, 1);
  const std::vector<std::pair<int32_t, float>> bad_bias = {{1000, 1.0f}};
  struct Case {
    const char* expected;
    LaneStart start;
  };
  std::vector<Case> cases;
  auto add = [&](const char* expected) -> LaneStart& {
    cases.push_back({expected, Start(1, 0)});
    return cases.back().start;
  };
  add("lane is 3; allowed are 0 to 2").lane = 3;
  add("lane is -1").lane = -1;
  add("number of tokens is 0; allowed are 1 to 20").tokens = none;
  add("number of tokens is 21").tokens = long_tokens;
  add("length is 4; allowed are 5 to 5").state.length = 4;
  add("prompt length is 6").prompt_length = 6;
  add("top_logprobs is 21; allowed are 0 to 20").state.top_logprobs = 21;
  add("a banned id is 131; allowed are 0 to 130").banned_ids = bad_id;
  add("an allowed id is -1").allowed_ids = negative;
  add("a barred id is 131").barred_ids = bad_id;
  add("a biased id is 1000").logit_bias = bad_bias;
  LaneStart& token = add("a token is 131");
  token.tokens = bad_id;
  token.state.length = token.prompt_length = 1;
  for (const Case& c : cases) {
    device_.copied_to.clear();
    const absl::Status status = store_.Start(device_, c.start);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.expected));
    EXPECT_TRUE(device_.copied_to.empty()) << c.expected;
    EXPECT_EQ(store_.length(1), 5);
  }
}

}  // namespace
}  // namespace sirocco
