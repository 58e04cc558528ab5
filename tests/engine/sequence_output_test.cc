#include "engine/sequence_output.h"

#include <gtest/gtest.h>

#include "tests/engine/engine_harness.h"
#include "tests/engine/fake_tokenizer.h"

namespace sirocco {
namespace {

class SequenceOutputTest : public testing::Test {
 protected:
  // Gives the tokens, the last one with `role`; what the client has then.
  OutputDelta Run(const std::vector<int32_t>& ids, TokenRole role) {
    context_ = MakeRequestContext(1, request_, std::make_shared<TokenStream>(nullptr), {kFakeEnd});
    SequenceOutput output(*context_, 0, with_tokenizer_ ? &tokenizer_ : nullptr);
    OutputDelta joined;
    for (size_t i = 0; i < ids.size() && !output.ended(); ++i) {
      TokenEvent token;
      token.role = i + 1 == ids.size() ? role : TokenRole::kText;
      token.score.token_id = ids[i];
      token.score.logprob = -0.5f;
      token.score.rank = 1;
      output.Append(token);
      OutputDelta delta = output.TakeDelta().value();
      joined.text += delta.text;
      joined.token_ids.insert(joined.token_ids.end(), delta.token_ids.begin(),
                              delta.token_ids.end());
      for (TokenLogprob& logprob : delta.logprobs) joined.logprobs.push_back(logprob);
      joined.finish_reason = delta.finish_reason;
      joined.stop_reason = delta.stop_reason;
      joined.cumulative_logprob = delta.cumulative_logprob;
    }
    ended_by_string_ = output.ended_by_string();
    EXPECT_EQ(output.ended(), joined.finish_reason != FinishReason::kNone);
    EXPECT_FALSE(output.TakeDelta().has_value());
    return joined;
  }

  std::vector<int32_t> Spell(std::string_view text) { return tokenizer_.Spell(text); }

  FakeTokenizer tokenizer_;
  Request request_ = PromptOf(5, 100);
  bool with_tokenizer_ = true;
  std::shared_ptr<const RequestContext> context_;
  bool ended_by_string_ = false;
};

TEST_F(SequenceOutputTest, AnEndTokenIsCountedButNotShown) {
  std::vector<int32_t> ids = Spell("abc");
  ids.push_back(kFakeEnd);
  const OutputDelta output = Run(ids, TokenRole::kEndToken);
  EXPECT_EQ(output.text, "abc");
  EXPECT_EQ(output.token_ids, ids);
  EXPECT_EQ(output.finish_reason, FinishReason::kStop);
  EXPECT_EQ(output.stop_reason, "");
  EXPECT_EQ(output.cumulative_logprob, 0);
  EXPECT_TRUE(output.logprobs.empty());
}

TEST_F(SequenceOutputTest, AnEndTokenIsNeverShown) {
  request_.stop.include_stop_in_output = true;
  EXPECT_EQ(Run(Spell("abc"), TokenRole::kEndToken).text, "ab");
}

TEST_F(SequenceOutputTest, AStopTokenIsNamedAndShownOnlyOnRequest) {
  OutputDelta output = Run(Spell("abc"), TokenRole::kStopToken);
  EXPECT_EQ(output.text, "ab");
  EXPECT_EQ(output.token_ids.size(), 3u);
  EXPECT_EQ(output.finish_reason, FinishReason::kStop);
  EXPECT_EQ(output.stop_reason, std::to_string(Spell("c")[0]));
  request_.stop.include_stop_in_output = true;
  EXPECT_EQ(Run(Spell("abc"), TokenRole::kStopToken).text, "abc");
  EXPECT_EQ(Run({Spell("a")[0], kFakeSpecial}, TokenRole::kStopToken).text, "a");
}

TEST_F(SequenceOutputTest, SpecialTokensAreNotShown) {
  const OutputDelta output = Run({Spell("a")[0], kFakeSpecial, Spell("b")[0]}, TokenRole::kLast);
  EXPECT_EQ(output.text, "ab");
  EXPECT_EQ(output.token_ids.size(), 3u);
  EXPECT_EQ(output.finish_reason, FinishReason::kLength);
}

TEST_F(SequenceOutputTest, AStopStringCutsTheTextAndEndsTheSequence) {
  request_.stop.strings = {"zz", "cd"};
  OutputDelta output = Run(Spell("abcdef"), TokenRole::kText);
  EXPECT_EQ(output.text, "ab");
  EXPECT_EQ(output.token_ids, Spell("abcd"));
  EXPECT_EQ(output.finish_reason, FinishReason::kStop);
  EXPECT_EQ(output.stop_reason, "cd");
  EXPECT_TRUE(ended_by_string_);
  request_.stop.include_stop_in_output = true;
  EXPECT_EQ(Run(Spell("abcdef"), TokenRole::kText).text, "abcd");
}

TEST_F(SequenceOutputTest, AStopStringOnTheLastTokenIsAStopThatTheEngineKnows) {
  request_.stop.strings = {"cd"};
  const OutputDelta output = Run(Spell("abcd"), TokenRole::kLast);
  EXPECT_EQ(output.text, "ab");
  EXPECT_EQ(output.finish_reason, FinishReason::kStop);
  EXPECT_EQ(output.stop_reason, "cd");
  EXPECT_FALSE(ended_by_string_);
}

TEST_F(SequenceOutputTest, WhatMightHaveBecomeAStopStringComesWithTheEnd) {
  request_.stop.strings = {"cdx"};
  EXPECT_EQ(Run(Spell("abcd"), TokenRole::kText).text, "ab");
  EXPECT_EQ(Run(Spell("abcd"), TokenRole::kLast).text, "abcd");
  EXPECT_EQ(Run(Spell("abcdx"), TokenRole::kEndToken).text, "abcd");
}

TEST_F(SequenceOutputTest, StopStringsAreLookedForAfterMinNewTokens) {
  request_.stop.strings = {"ab"};
  request_.sampling.min_new_tokens = 3;
  const OutputDelta output = Run(Spell("ababab"), TokenRole::kText);
  EXPECT_EQ(output.text, "ab");
  EXPECT_EQ(output.token_ids, Spell("abab"));
}

TEST_F(SequenceOutputTest, TheTextStartsWithTheAnswerPrefix) {
  request_.answer_prefix = "Sure, ";
  const OutputDelta output = Run(Spell("abc"), TokenRole::kLast);
  EXPECT_EQ(output.text, "Sure, abc");
  EXPECT_EQ(output.token_ids, Spell("abc"));
  EXPECT_EQ(Run({kFakeEnd}, TokenRole::kEndToken).text, "Sure, ");
  // It comes with the first token, whole, though that has no whole character yet.
  EXPECT_EQ(Run({tokenizer_.IdOf("\xe2")}, TokenRole::kText).text, "Sure, ");
}

TEST_F(SequenceOutputTest, AStopStringMayBeginInTheAnswerPrefixAndDoesNotEndThere) {
  request_.stop.strings = {"ab"};
  request_.answer_prefix = "abxa";
  const OutputDelta output = Run(Spell("ba"), TokenRole::kText);
  EXPECT_EQ(output.text, "abx");
  EXPECT_EQ(output.token_ids, Spell("b"));
  EXPECT_EQ(output.stop_reason, "ab");
  EXPECT_EQ(Run(Spell("c"), TokenRole::kText).text, "abxac");
  // What was held back comes with the end.
  EXPECT_EQ(Run({kFakeEnd}, TokenRole::kEndToken).text, "abxa");
}

TEST_F(SequenceOutputTest, AScoredAnswerPrefixIsTheText) {
  request_.stop.strings = {"ab"};
  request_.answer_prefix = "xa";
  request_.max_new_tokens = 0;
  context_ = MakeRequestContext(1, request_, std::make_shared<TokenStream>(nullptr), {kFakeEnd});
  SequenceOutput output(*context_, 0, &tokenizer_);
  EXPECT_FALSE(output.TakeDelta().has_value());
  output.EndScored();
  const OutputDelta delta = output.TakeDelta().value();
  EXPECT_EQ(delta.text, "xa");
  EXPECT_EQ(delta.finish_reason, FinishReason::kLength);
  EXPECT_TRUE(delta.token_ids.empty());
}

TEST_F(SequenceOutputTest, CharactersAreWholeOrReplaced) {
  const int32_t first = tokenizer_.IdOf("\xe2");
  const int32_t second = tokenizer_.IdOf("\x82");
  const int32_t third = tokenizer_.IdOf("\xac");
  EXPECT_EQ(Run({first, second}, TokenRole::kText).text, "");
  EXPECT_EQ(Run({first, second, third}, TokenRole::kText).text, "\xe2\x82\xac");
  EXPECT_EQ(Run({first, second}, TokenRole::kLast).text, "\xef\xbf\xbd");
  EXPECT_EQ(Run({first, second, kFakeEnd}, TokenRole::kEndToken).text, "\xef\xbf\xbd");
  EXPECT_EQ(Run({first, Spell("a")[0]}, TokenRole::kText).text,
            "\xef\xbf\xbd"
            "a");
}

TEST_F(SequenceOutputTest, LogprobsAreSummedIfTheyWereAsked) {
  request_.logprobs = LogprobOptions{};
  const OutputDelta output = Run(Spell("abc"), TokenRole::kLast);
  ASSERT_EQ(output.logprobs.size(), 3u);
  EXPECT_EQ(output.logprobs[1].token_id, Spell("b")[0]);
  EXPECT_EQ(output.logprobs[1].logprob, -0.5f);
  EXPECT_EQ(output.logprobs[1].rank, 1);
  EXPECT_EQ(output.cumulative_logprob, -1.5);
}

TEST_F(SequenceOutputTest, WithoutATokenizerThereIsNoText) {
  with_tokenizer_ = false;
  const OutputDelta output = Run({7, 8, 9}, TokenRole::kLast);
  EXPECT_EQ(output.text, "");
  EXPECT_EQ(output.token_ids.size(), 3u);
  EXPECT_EQ(output.finish_reason, FinishReason::kLength);
}

}  // namespace
}  // namespace sirocco
