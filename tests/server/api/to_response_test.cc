#include "server/api/to_response.h"

#include <gtest/gtest.h>

#include "tests/server/testing/fakes.h"

namespace sirocco {
namespace {

StreamUpdate Done(absl::Status status = absl::OkStatus()) {
  StreamUpdate update;
  update.done = true;
  update.status = std::move(status);
  update.usage = {7, 2, 5};
  update.timing = {std::chrono::milliseconds(1500), std::chrono::microseconds(2),
                   std::chrono::seconds(3)};
  update.seed = 99;
  return update;
}

StreamUpdate Tokens(int32_t index, const std::string& text, std::vector<int32_t> ids,
                    FinishReason reason = FinishReason::kNone) {
  StreamUpdate update;
  OutputDelta& delta = update.deltas.emplace_back();
  delta.index = index;
  delta.text = text;
  delta.token_ids = std::move(ids);
  delta.finish_reason = reason;
  if (reason == FinishReason::kStop) delta.stop_reason = "42";
  if (reason != FinishReason::kNone) delta.cumulative_logprob = -1.5;
  return update;
}

TokenLogprob Score(int32_t id, int32_t top) {
  TokenLogprob out{id, -0.25f, 3, {}};
  for (int32_t i = 0; i < top; ++i) out.alternatives.emplace_back('a' + i, -1.0f * i);
  return out;
}

class ResponseTest : public testing::Test {
 protected:
  void Add(StreamUpdate update) {
    response_.Add(update);
    maker_.Add(std::move(update), events_);
  }

  FakeTokenizer tokenizer_;
  EventMaker maker_{"id", &tokenizer_, 2};
  ResponseMaker response_{"id", &tokenizer_, 2};
  std::deque<v1::GenerateEvent> events_;
};

TEST_F(ResponseTest, TheLastEventOfTheStreamIsTheLastOfItsIndex) {
  Add(Tokens(0, "a", {'a'}));
  Add(Tokens(1, "b", {'b'}, FinishReason::kStop));
  EXPECT_EQ(events_.size(), 2u);
  EXPECT_EQ(events_[1].finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(events_[1].stop_reason(), "42");
  EXPECT_FALSE(events_[1].has_usage());
  Add(Tokens(0, "c", {'c'}, FinishReason::kLength));
  EXPECT_EQ(events_.size(), 2u) << "the last is held back";
  Add(Done());
  ASSERT_EQ(events_.size(), 3u);
  const v1::GenerateEvent& last = events_[2];
  EXPECT_EQ(last.request_id(), "id");
  EXPECT_EQ(last.index(), 0u);
  EXPECT_EQ(last.text(), "c");
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(last.cumulative_logprob(), -1.5);
  EXPECT_EQ(last.usage().prompt_tokens(), 7u);
  EXPECT_EQ(last.usage().cached_prompt_tokens(), 2u);
  EXPECT_EQ(last.usage().completion_tokens(), 5u);
  EXPECT_EQ(last.timing().queue().seconds(), 1);
  EXPECT_EQ(last.timing().queue().nanos(), 500'000'000);
  EXPECT_EQ(last.timing().prefill().nanos(), 2'000);
  EXPECT_EQ(last.timing().decode().seconds(), 3);
  EXPECT_EQ(last.seed(), 99u);

  const v1::GenerateResponse whole = response_.Take();
  EXPECT_EQ(whole.request_id(), "id");
  ASSERT_EQ(whole.completions_size(), 2);
  EXPECT_EQ(whole.completions(0).text(), "ac");
  EXPECT_EQ(whole.completions(0).finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(whole.completions(1).index(), 1u);
  EXPECT_EQ(whole.completions(1).text(), "b");
  EXPECT_EQ(whole.completions(1).stop_reason(), "42");
  EXPECT_EQ(whole.usage().SerializeAsString(), last.usage().SerializeAsString());
  EXPECT_EQ(whole.timing().SerializeAsString(), last.timing().SerializeAsString());
  EXPECT_EQ(whole.seed(), 99u);
}

TEST_F(ResponseTest, AllInOneUpdate) {
  StreamUpdate update = Done();
  update.deltas = {Tokens(0, "a", {'a'}, FinishReason::kStop).deltas[0],
                   Tokens(1, "b", {'b'}, FinishReason::kStop).deltas[0]};
  Add(std::move(update));
  ASSERT_EQ(events_.size(), 2u);
  EXPECT_FALSE(events_[0].has_usage());
  EXPECT_TRUE(events_[1].has_usage());
  EXPECT_EQ(events_[1].index(), 1u);
}

TEST_F(ResponseTest, AnErrorAddsNoUsage) {
  Add(Tokens(0, "a", {'a'}, FinishReason::kStop));
  Add(Tokens(1, "b", {'b'}, FinishReason::kStop));
  Add(Done(absl::InternalError("the device has failed")));
  ASSERT_EQ(events_.size(), 2u);
  EXPECT_EQ(events_[1].text(), "b");
  EXPECT_FALSE(events_[1].has_usage());
}

TEST_F(ResponseTest, NothingNewIsNoEvent) {
  Add(Tokens(0, "", {}));
  EXPECT_TRUE(events_.empty());
  Add(Tokens(0, "", {'a'}));  // its text is held back: the token is told
  EXPECT_EQ(events_.size(), 1u);
}

TEST_F(ResponseTest, Logprobs) {
  StreamUpdate update = Tokens(0, "b", {'b'});
  update.prompt_logprobs = {TokenLogprob{}, Score('x', 2)};
  update.deltas[0].logprobs = {Score('b', 1)};
  Add(std::move(update));
  ASSERT_GE(events_.size(), 1u);
  ASSERT_EQ(events_[0].prompt_logprobs_size(), 2);
  EXPECT_EQ(events_[0].prompt_logprobs(0).ByteSizeLong(), 0u);
  const v1::TokenLogprob& second = events_[0].prompt_logprobs(1);
  EXPECT_EQ(second.token_id(), uint32_t{'x'});
  EXPECT_EQ(second.logprob(), -0.25f);
  EXPECT_EQ(second.rank(), 3u);
  EXPECT_EQ(second.token(), "x");
  ASSERT_EQ(second.top_size(), 2);
  EXPECT_EQ(second.top(1).token_id(), uint32_t{'b'});
  EXPECT_EQ(second.top(1).logprob(), -1);
  EXPECT_EQ(second.top(1).token(), "b");
  EXPECT_EQ(events_.back().logprobs(0).token(), "b");
}

TEST_F(ResponseTest, WithoutTokenizerTokensAreEmpty) {
  EventMaker maker("id", nullptr, 1);
  StreamUpdate update = Tokens(0, "", {'b'});
  update.deltas[0].logprobs = {Score('b', 1)};
  maker.Add(std::move(update), events_);
  EXPECT_EQ(events_[0].logprobs(0).token(), "");
  EXPECT_EQ(events_[0].logprobs(0).top(0).token(), "");
}

// A reader that was behind for long: all its output at once, many times what an event may hold.
TEST_F(ResponseTest, LargeUpdatesAreSplit) {
  StreamUpdate update = Done();
  for (int32_t index = 0; index < 2; ++index) {
    OutputDelta delta = Tokens(index, "", {}, FinishReason::kStop).deltas[0];
    for (int i = 0; i < 20'000; ++i) {
      delta.text +=
          "日本語 text and more text to fill an event, and more, and more, and more, and "
          "more still, until four MiB would not do for it";
      delta.token_ids.push_back(i % 256);
      delta.logprobs.push_back(Score(i % 256, 20));
    }
    update.deltas.push_back(std::move(delta));
  }
  for (int i = 0; i < 20'000; ++i) {
    update.prompt_logprobs.push_back(i == 0 ? TokenLogprob{} : Score(i % 256, 20));
  }
  Add(std::move(update));
  const v1::GenerateResponse whole = response_.Take();
  v1::GenerateResponse joined;
  joined.set_request_id("id");
  for (uint32_t i = 0; i < 2; ++i) joined.add_completions()->set_index(i);
  EXPECT_GT(events_.size(), 5u);
  for (const v1::GenerateEvent& event : events_) {
    EXPECT_LE(event.ByteSizeLong(), kMaxEventBytes);
    joined.mutable_prompt_logprobs()->MergeFrom(event.prompt_logprobs());
    v1::Completion& completion = *joined.mutable_completions(event.index());
    EXPECT_EQ(completion.finish_reason(), v1::FINISH_REASON_UNSPECIFIED) << "it had ended";
    completion.mutable_text()->append(event.text());
    completion.mutable_token_ids()->MergeFrom(event.token_ids());
    completion.mutable_logprobs()->MergeFrom(event.logprobs());
    completion.set_finish_reason(event.finish_reason());
    completion.set_stop_reason(event.stop_reason());
    completion.set_cumulative_logprob(event.cumulative_logprob());
    // Serialising would refuse text that was cut inside a character.
    v1::GenerateEvent parsed;
    EXPECT_TRUE(parsed.ParseFromString(event.SerializeAsString()));
  }
  *joined.mutable_usage() = events_.back().usage();
  *joined.mutable_timing() = events_.back().timing();
  joined.set_seed(events_.back().seed());
  EXPECT_EQ(joined.SerializeAsString(), whole.SerializeAsString());
}

TEST_F(ResponseTest, OneTokenOfManyBytesStillGoesOut) {
  StreamUpdate update = Tokens(0, "x", {FakeTokenizer::kLong});
  update.deltas[0].logprobs = {TokenLogprob{FakeTokenizer::kLong, 0, 1, {}}};
  for (int i = 0; i < 4; ++i) {
    update.deltas[0].logprobs[0].alternatives.emplace_back(FakeTokenizer::kLong, 0);
  }
  Add(std::move(update));
  EXPECT_EQ(events_.back().logprobs_size(), 1);
}

}  // namespace
}  // namespace sirocco
