// What begins alike is computed once: the counts are exact, and the answers are what they are
// without. That every slot read holds what it should is the fake executor's to check.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "engine/sequence_blocks.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/simulation.h"

namespace sirocco {
namespace {

constexpr int32_t kBlock = 4;  // FakeOptions

class PrefixCacheTest : public EngineFixture {
 protected:
  // Tokens of the prompt that were not computed.
  int32_t Cached(const Request& request) {
    auto client = h_.Submit(request);
    h_.ExpectAnswer(*client, request);
    return client->output().end.usage.cached_prompt_tokens;
  }
  void ExpectCounts(int64_t queries, int64_t hits) {
    ASSERT_TRUE(h_.AwaitIdle());
    const Counts counts = h_.observer.counts();
    EXPECT_EQ(counts.prefix_queries, queries);
    EXPECT_EQ(counts.prefix_hits, hits);
    EXPECT_EQ(counts.prefill_tokens, h_.device->prefill_tokens.load());
  }
};

INSTANTIATE_TEST_SUITE_P(RunAhead, PrefixCacheTest, testing::Values(0, 1));

TEST_P(PrefixCacheTest, FullBlocksOfAPromptAreComputedOnce) {
  h_.Start();
  const Request request = PromptOf(21, 3, 5);
  EXPECT_EQ(Cached(request), 0);
  EXPECT_EQ(Cached(request), 20);
  ExpectCounts(42, 20);
  EXPECT_EQ(h_.device->prefill_tokens.load(), 21 + 1);
  const EngineGauges gauges = h_.observer.counts().gauges;
  EXPECT_EQ(gauges.kv_blocks_used, 0);
  EXPECT_EQ(gauges.kv_blocks_cached, 2 * 5);  // of both groups
  EXPECT_EQ(gauges.kv_blocks_free, 2 * (64 - 5));
}

TEST_P(PrefixCacheTest, TheLastTokenIsComputedThoughItsBlockIsThere) {
  h_.Start();
  const Request request = PromptOf(5 * kBlock, 3, 5);
  EXPECT_EQ(Cached(request), 0);
  EXPECT_EQ(Cached(request), 4 * kBlock);
}

TEST_P(PrefixCacheTest, OnlyACommonBeginningIsShared) {
  h_.Start();
  Request request = PromptOf(24, 3, 5);
  Cached(request);
  request.prompt[9] ^= 1;
  EXPECT_EQ(Cached(request), 8);
  request.prompt[0] ^= 1;
  EXPECT_EQ(Cached(request), 0);
}

TEST_P(PrefixCacheTest, SequencesOfARequestShareItsPromptInTheSameStep) {
  h_.Start();
  Request request = PromptOf(21, 6, 5);
  request.n = 4;
  EXPECT_EQ(Cached(request), 0);
  ExpectCounts(4 * 21, 3 * 20);
  EXPECT_EQ(h_.device->prefill_tokens.load(), 21 + 3);
  EXPECT_EQ(h_.observer.counts().prefill_steps, 1);
}

TEST_P(PrefixCacheTest, RequestsThatRunShareWhatIsLaunched) {
  h_.options.prefill_chunk_size = 8;
  h_.gate.Close();
  h_.Start();
  const Request request = PromptOf(30, 6, 5);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(h_.Submit(request));
  h_.gate.Open();
  for (const auto& client : clients) h_.ExpectAnswer(*client, request);
  ExpectCounts(4 * 30, 3 * 28);
}

TEST_P(PrefixCacheTest, AnAnswerIsThereForTheNextPrompt) {
  h_.Start();
  Request request = PromptOf(6, 13, 5);
  request.stop.ignore_eos = true;
  const Answer answer = Simulate(request, 0, {kFakeEnd}, &h_.tokenizer);
  Cached(request);
  request.prompt.insert(request.prompt.end(), answer.token_ids.begin(), answer.token_ids.end());
  request.prompt.push_back(9);
  // 19 tokens, of which the last was never fed back: 18 have keys and values, 16 in full blocks.
  EXPECT_EQ(Cached(request), 16);
}

TEST_P(PrefixCacheTest, AScoredPromptReadsNothingButIsThereForOthers) {
  h_.Start();
  Request request = PromptOf(21, 3, 5);
  Cached(request);
  Request scored = request;
  scored.logprobs = LogprobOptions{.top = 1, .prompt = true};
  scored.n = 2;
  EXPECT_EQ(Cached(scored), 0);
  scored.prompt[0] ^= 1;
  EXPECT_EQ(Cached(scored), 0);
  ExpectCounts(21, 0);
  request.prompt[0] ^= 1;
  EXPECT_EQ(Cached(request), 20);
}

TEST_P(PrefixCacheTest, SaltsAreKeptApart) {
  h_.Start();
  Request request = PromptOf(21, 3, 5);
  Cached(request);
  request.cache_salt = "a";
  EXPECT_EQ(Cached(request), 0);
  EXPECT_EQ(Cached(request), 20);
  request.cache_salt = "b";
  EXPECT_EQ(Cached(request), 0);
}

TEST_P(PrefixCacheTest, OffNothingIsShared) {
  h_.options.prefix_cache = false;
  h_.Start();
  Request request = PromptOf(21, 3, 5);
  request.n = 2;
  EXPECT_EQ(Cached(request), 0);
  EXPECT_EQ(Cached(request), 0);
  ExpectCounts(0, 0);
  EXPECT_EQ(h_.device->prefill_tokens.load(), 4 * 21);
  EXPECT_EQ(h_.observer.counts().gauges.kv_blocks_cached, 0);
}

TEST_P(PrefixCacheTest, WhatNobodyUsesMakesRoom) {
  h_.executor = FakeOptions(4, 64, /*blocks=*/16);
  h_.Start();
  const Request first = PromptOf(33, 4, 1), second = PromptOf(33, 4, 2), third = PromptOf(33, 4, 3);
  Cached(first);
  Cached(second);
  EXPECT_EQ(Cached(second), 32);
  Cached(third);  // of 16 blocks 9: the first's go
  EXPECT_EQ(Cached(third), 32);
  EXPECT_EQ(Cached(first), 0);
}

TEST_P(PrefixCacheTest, AWindowNeedsOnlyItsLastBlocks) {
  h_.executor = FakeOptions(2, 100, 100);
  h_.options.groups = {{.window = 0}, {.window = 7}};
  h_.options.prefill_chunk_size = 6;
  h_.executor.kv_blocks[1] = 2 * SequenceBlocks({.window = 7}, 100, kBlock, 6);
  h_.Start();
  const Request request = PromptOf(61, 3, 1);
  EXPECT_EQ(Cached(request), 0);
  EXPECT_EQ(Cached(request), 60);
  // A beginning of it, whose windows have gone.
  Request shorter = request;
  shorter.prompt.resize(30);
  EXPECT_EQ(Cached(shorter), 0);
  EXPECT_EQ(Cached(shorter), 28);
}

}  // namespace
}  // namespace sirocco
