#include "engine/sequence.h"

#include <gtest/gtest.h>

namespace sirocco {
namespace {

std::shared_ptr<const RequestContext> ContextOf(Request request) {
  return MakeRequestContext(1, std::move(request), std::make_shared<TokenStream>(nullptr),
                            /*end_token_ids=*/{9, 2});
}

Sequence SequenceOf(Request request, int32_t index = 0) {
  return Sequence(ContextOf(std::move(request)), index, /*lane=*/3, BlockTable{});
}

Request Prompted(int32_t prompt, int32_t max_new_tokens) {
  Request request;
  request.prompt.assign(prompt, 5);
  request.max_new_tokens = max_new_tokens;
  return request;
}

TEST(Sequence, EndsByEndTokenStopTokenOrLength) {
  Request request = Prompted(4, 3);
  request.stop.token_ids = {7};
  EXPECT_EQ(SequenceOf(request).Append(2), TokenRole::kEndToken);
  EXPECT_EQ(SequenceOf(request).Append(9), TokenRole::kEndToken);
  EXPECT_EQ(SequenceOf(request).Append(7), TokenRole::kStopToken);
  Sequence sequence = SequenceOf(request);
  EXPECT_EQ(sequence.Append(1), TokenRole::kText);
  EXPECT_EQ(sequence.Append(1), TokenRole::kText);
  EXPECT_FALSE(sequence.ended());
  EXPECT_EQ(sequence.Append(1), TokenRole::kLast);
  EXPECT_TRUE(sequence.ended());
}

TEST(Sequence, AStopOnTheLastTokenIsAStop) {
  Sequence sequence = SequenceOf(Prompted(4, 1));
  EXPECT_EQ(sequence.Append(2), TokenRole::kEndToken);
}

TEST(Sequence, AStopTokenThatIsAnEndTokenTooIsTheRequests) {
  Request request = Prompted(4, 3);
  request.stop.token_ids = {2};
  EXPECT_EQ(SequenceOf(request).Append(2), TokenRole::kStopToken);
}

TEST(Sequence, IgnoredEndTokensDoNotEnd) {
  Request request = Prompted(4, 3);
  request.stop.ignore_eos = true;
  EXPECT_EQ(SequenceOf(request).Append(2), TokenRole::kText);
}

TEST(Sequence, ABarredTokenThatCameForWantOfOthersDoesNotEnd) {
  Request request = Prompted(4, 9);
  request.sampling.min_new_tokens = 2;
  Sequence sequence = SequenceOf(request);
  EXPECT_EQ(sequence.Append(2), TokenRole::kText);
  EXPECT_EQ(sequence.Append(2), TokenRole::kText);
  EXPECT_EQ(sequence.Append(2), TokenRole::kEndToken);
}

TEST(Sequence, ALaneIsFlaggedForWhatIsAskedOnly) {
  Request request = Prompted(4, 9);
  EXPECT_EQ(SequenceOf(request).Start().state.flags, 0u);
  request.sampling.temperature = 1;
  request.sampling.top_k = 5;
  EXPECT_EQ(SequenceOf(request).Start().state.flags, 0u);

  const auto flags_with = [&](auto change) {
    Request changed = request;
    change(changed.sampling);
    return SequenceOf(changed).Start().state.flags;
  };
  EXPECT_EQ(flags_with([](auto& s) { s.logit_bias = {{1, 2.f}}; }), kLaneBias);
  EXPECT_EQ(flags_with([](auto& s) { s.allowed_token_ids = {1}; }), kLaneBias);
  EXPECT_EQ(flags_with([](auto& s) { s.banned_token_ids = {1}; }), kLaneBias);
  EXPECT_EQ(flags_with([](auto& s) { s.repetition_penalty = 1.1f; }), kLanePenalties);
  EXPECT_EQ(flags_with([](auto& s) { s.presence_penalty = 1; }), kLanePenalties);
  EXPECT_EQ(flags_with([](auto& s) { s.frequency_penalty = -1; }), kLanePenalties);
  EXPECT_EQ(flags_with([](auto& s) { s.min_new_tokens = 1; }), kLaneBarred);
  EXPECT_EQ(flags_with([](auto& s) { s.no_repeat_ngram_size = 2; }), kLaneNgrams);
  request.logprobs = LogprobOptions{.top = 3};
  const Sequence scored = SequenceOf(request);
  EXPECT_EQ(scored.Start().state.flags, kLaneLogprobs);
  EXPECT_EQ(scored.Start().state.top_logprobs, 3);
}

TEST(Sequence, ALaneStartsWithThePromptAndWhatIsBarred) {
  Request request = Prompted(4, 9);
  request.sampling.min_new_tokens = 2;
  request.sampling.seed = 77;
  request.stop.token_ids = {7, 2};
  request.stop.ignore_eos = true;
  const Sequence sequence = SequenceOf(request, /*index=*/1);
  const LaneStart start = sequence.Start();
  EXPECT_EQ(start.lane, 3);
  EXPECT_EQ(start.tokens.size(), 4u);
  EXPECT_EQ(start.prompt_length, 4);
  EXPECT_EQ(start.state.length, 4);
  EXPECT_EQ(start.state.min_length, 6);
  EXPECT_EQ(start.state.seed, 77u);
  EXPECT_EQ(start.state.index, 1u);
  EXPECT_EQ(std::vector<int32_t>(start.barred_ids.begin(), start.barred_ids.end()),
            (std::vector<int32_t>{2, 7, 9}));
}

TEST(Sequence, ThePromptIsTakenInChunksAndScoredByTheFirstSequence) {
  Request request = Prompted(10, 5);
  request.logprobs = LogprobOptions{.top = 2, .prompt = true};
  Sequence first = SequenceOf(request, 0);
  PrefillChunk chunk = first.NextChunk(6);
  EXPECT_EQ(chunk.first_position, 0);
  EXPECT_EQ(chunk.count, 6);
  EXPECT_FALSE(chunk.sample);
  EXPECT_EQ(chunk.score_count, 6);
  EXPECT_EQ(chunk.score_top, 2);
  first.ChunkLaunched(chunk);
  EXPECT_TRUE(first.prefilling());
  chunk = first.NextChunk(6);
  EXPECT_EQ(chunk.first_position, 6);
  EXPECT_EQ(chunk.count, 4);
  EXPECT_TRUE(chunk.sample);
  EXPECT_EQ(chunk.score_count, 3);  // what follows the last token is not known
  first.ChunkLaunched(chunk);
  EXPECT_FALSE(first.prefilling());
  EXPECT_EQ(SequenceOf(request, 1).NextChunk(6).score_count, 0);
}

TEST(Sequence, WhatIsLaunchedIsKnownBeforeItsTokensAre) {
  Sequence sequence = SequenceOf(Prompted(4, 3));
  EXPECT_FALSE(sequence.decoding());
  EXPECT_EQ(sequence.length(), 4);
  EXPECT_FALSE(sequence.in_flight());
  sequence.ChunkLaunched(sequence.NextChunk(8));
  EXPECT_TRUE(sequence.decoding());
  EXPECT_EQ(sequence.length(), 5);
  sequence.DecodeLaunched();
  EXPECT_TRUE(sequence.decoding());
  sequence.DecodeLaunched();
  EXPECT_FALSE(sequence.decoding());  // the third of three tokens is on its way
  EXPECT_EQ(sequence.length(), 7);
  EXPECT_FALSE(sequence.ended());
  for (int step = 0; step < 3; ++step) {
    EXPECT_TRUE(sequence.in_flight());
    sequence.StepEnded();
    sequence.Append(1);
  }
  EXPECT_FALSE(sequence.in_flight());
  EXPECT_TRUE(sequence.ended());
}

TEST(Sequence, OnlyScoringDecodesNothing) {
  Request request = Prompted(4, 0);
  request.logprobs = LogprobOptions{.prompt = true};
  Sequence sequence = SequenceOf(request);
  sequence.ChunkLaunched(sequence.NextChunk(8));
  EXPECT_FALSE(sequence.prefilling());
  EXPECT_FALSE(sequence.decoding());
}

TEST(Request, ValidationNamesWhatIsWrong) {
  const auto message = [](auto change) {
    Request request = Prompted(4, 4);
    change(request);
    const absl::Status status = ValidateRequest(request, /*max_length=*/8, /*max_batch_size=*/2);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(message([](Request& r) { r.prompt.clear(); }), "prompt: is empty");
  EXPECT_EQ(message([](Request& r) { r.prompt.resize(8); }),
            "prompt: 8 tokens, and 1 to generate, do not fit max_length 8");
  EXPECT_EQ(message([](Request& r) { r.prompt[1] = -2; }), "prompt: -2 is negative");
  EXPECT_EQ(message([](Request& r) { r.max_new_tokens = 5; }),
            "max_new_tokens: 5 is not in 0 ... 4");
  EXPECT_EQ(message([](Request& r) { r.max_new_tokens = -1; }),
            "max_new_tokens: -1 is not in 0 ... 4");
  EXPECT_EQ(message([](Request& r) { r.max_new_tokens = 0; }),
            "max_new_tokens: 0 needs logprobs.prompt");
  EXPECT_EQ(message([](Request& r) { r.sampling.min_new_tokens = 5; }),
            "min_new_tokens: 5 is not in 0 ... 4");
  EXPECT_EQ(message([](Request& r) { r.n = 3; }), "n: 3 is not in 1 ... 2");
  EXPECT_EQ(message([](Request& r) { r.n = 0; }), "n: 0 is not in 1 ... 2");
  EXPECT_EQ(message([](Request& r) { r.logprobs = LogprobOptions{.top = 21}; }),
            "logprobs.top: 21 is not in 0 ... 20");
  EXPECT_EQ(message([](Request& r) { r.stop.strings = {"a", ""}; }), "stop.strings: one is empty");
  EXPECT_EQ(message([](Request& r) { r.stop.token_ids = {-1}; }), "stop.token_ids: -1 is negative");

  Request scored = Prompted(8, 0);
  scored.logprobs = LogprobOptions{.prompt = true};
  EXPECT_TRUE(ValidateRequest(scored, 8, 2).ok());
  EXPECT_EQ(SlotsOf(scored), 8);
  EXPECT_EQ(SlotsOf(Prompted(4, 4)), 7);
}

}  // namespace
}  // namespace sirocco
