#include "engine/token_stream.h"

#include <gtest/gtest.h>

#include <thread>

namespace sirocco {
namespace {

StreamUpdate UpdateOf(int32_t index, const std::string& text, std::vector<int32_t> ids) {
  StreamUpdate update;
  OutputDelta delta;
  delta.index = index;
  delta.text = text;
  delta.token_ids = std::move(ids);
  update.deltas.push_back(std::move(delta));
  return update;
}

TEST(TokenStream, WhatIsNotTakenIsMergedByIndex) {
  TokenStream stream(nullptr);
  stream.Put(UpdateOf(1, "a", {1}));
  stream.Put(UpdateOf(0, "x", {8, 9}));
  StreamUpdate last = UpdateOf(1, "b", {2, 3});
  last.deltas[0].finish_reason = FinishReason::kStop;
  last.deltas[0].stop_reason = "b";
  last.deltas[0].cumulative_logprob = -2;
  last.done = true;
  last.usage.completion_tokens = 5;
  last.seed = 4;
  stream.Put(std::move(last));

  const StreamUpdate update = stream.Take();
  ASSERT_EQ(update.deltas.size(), 2u);
  EXPECT_EQ(update.deltas[0].index, 0);
  EXPECT_EQ(update.deltas[0].text, "x");
  EXPECT_EQ(update.deltas[1].index, 1);
  EXPECT_EQ(update.deltas[1].text, "ab");
  EXPECT_EQ(update.deltas[1].token_ids, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(update.deltas[1].finish_reason, FinishReason::kStop);
  EXPECT_EQ(update.deltas[1].stop_reason, "b");
  EXPECT_EQ(update.deltas[1].cumulative_logprob, -2);
  EXPECT_TRUE(update.done);
  EXPECT_EQ(update.usage.completion_tokens, 5);
  EXPECT_EQ(update.seed, 4u);
  EXPECT_TRUE(stream.Take().empty());
}

TEST(TokenStream, AnnouncesOnceUntilTaken) {
  int announced = 0;
  TokenStream stream([&] { ++announced; });
  stream.Put(UpdateOf(0, "a", {1}));
  stream.Put(UpdateOf(0, "b", {2}));
  EXPECT_EQ(announced, 1);
  stream.Take();
  stream.Put(UpdateOf(0, "c", {3}));
  EXPECT_EQ(announced, 2);
  stream.Detach();
  stream.Take();
  stream.Put(UpdateOf(0, "d", {4}));
  EXPECT_EQ(announced, 2);
  EXPECT_EQ(stream.Take().deltas.at(0).text, "d");
}

TEST(TokenStream, AListenerMayTake) {
  std::string text;
  TokenStream* taken = nullptr;
  TokenStream stream([&] {
    for (const OutputDelta& delta : taken->Take().deltas) text += delta.text;
  });
  taken = &stream;
  stream.Put(UpdateOf(0, "a", {1}));
  stream.Put(UpdateOf(0, "b", {2}));
  EXPECT_EQ(text, "ab");
}

TEST(TokenStream, TheFirstReasonStaysAndSignals) {
  auto signal = std::make_shared<std::atomic<bool>>(false);
  TokenStream stream(nullptr, signal);
  EXPECT_FALSE(stream.cancelled());
  const Clock::time_point before = Clock::now();
  stream.Cancel(absl::StatusCode::kDeadlineExceeded);
  const Clock::time_point cancelled = stream.cancel_time();
  EXPECT_TRUE(signal->exchange(false));
  stream.Cancel(absl::StatusCode::kCancelled);
  EXPECT_EQ(stream.cancel_reason(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(stream.cancel_time(), cancelled);
  EXPECT_GE(cancelled, before);
  EXPECT_FALSE(signal->load());
}

// A reader that takes and a producer that puts, with a reader that is at times behind.
TEST(TokenStream, NothingIsLostBetweenThreads) {
  constexpr int kTokens = 20000;
  TokenStream stream(nullptr);
  std::thread producer([&] {
    for (int i = 0; i < kTokens; ++i) stream.Put(UpdateOf(0, "", {i}));
    StreamUpdate end;
    end.done = true;
    stream.Put(std::move(end));
  });
  std::vector<int32_t> taken;
  for (bool done = false; !done;) {
    const StreamUpdate update = stream.Take();
    for (const OutputDelta& delta : update.deltas) {
      taken.insert(taken.end(), delta.token_ids.begin(), delta.token_ids.end());
    }
    done = update.done;
  }
  producer.join();
  ASSERT_EQ(taken.size(), size_t{kTokens});
  for (int i = 0; i < kTokens; ++i) ASSERT_EQ(taken[i], i);
}

}  // namespace
}  // namespace sirocco
