#include "server/commands/perplexity.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "server/commands/json_lines.h"
#include "tests/server/testing/fakes.h"

namespace sirocco {
namespace {

TEST(WindowAt, ATextWithinTheContextIsOneWindow) {
  const auto window = WindowAt(0, 8, 8, 4);
  ASSERT_TRUE(window.has_value());
  EXPECT_EQ(window->begin, 0u);
  EXPECT_EQ(window->end, 8u);
  EXPECT_EQ(window->first_scored, 1u);
  EXPECT_FALSE(WindowAt(1, 8, 8, 4).has_value());
  EXPECT_FALSE(WindowAt(1, 2, 8, 1).has_value());
}

// Whatever the sizes: each id but the first once, in its first window, which begins a stride
// behind the one before and is full but for the last.
TEST(WindowAt, EachIdIsScoredOnce) {
  for (size_t tokens = 2; tokens < 40; ++tokens) {
    for (size_t context = 2; context < 12; ++context) {
      for (size_t stride = 1; stride < context; ++stride) {
        SCOPED_TRACE(testing::Message() << tokens << " " << context << " " << stride);
        size_t next = 1;
        for (size_t i = 0;; ++i) {
          const auto window = WindowAt(i, tokens, context, stride);
          if (!window) break;
          ASSERT_EQ(window->begin, i * stride);
          ASSERT_EQ(window->first_scored, next);
          ASSERT_LT(window->begin, window->first_scored);
          ASSERT_LT(window->first_scored, window->end);
          next = window->end;
          const bool last = !WindowAt(i + 1, tokens, context, stride).has_value();
          ASSERT_TRUE(last || window->end - window->begin == context);
        }
        ASSERT_EQ(next, tokens);
      }
    }
  }
}

TEST(ScoreIds, SumsWhatEachWindowScores) {
  FakeEngine engine;
  const std::vector<int32_t> ids(41, 7);
  int calls = 0;
  const auto result = ScoreIds(engine, ids, 10, 5, /*stop_fd=*/-1, [&] { ++calls; });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->scored, 40u);
  // The fake finds each half as probable as e^-0.5.
  EXPECT_EQ(result->log_likelihood, -20);
  EXPECT_DOUBLE_EQ(result->value(), std::exp(0.5));
  EXPECT_EQ(result->windows, 8u);
  EXPECT_GT(calls, 0);
  ASSERT_EQ(engine.requests().size(), 8u);
  for (const Request& request : engine.requests()) {
    EXPECT_EQ(request.max_new_tokens, 0);
    EXPECT_LE(request.prompt.size(), 10u);
    ASSERT_TRUE(request.logprobs.has_value());
    EXPECT_TRUE(request.logprobs->prompt);
    EXPECT_EQ(request.logprobs->top, 0);
  }
}

TEST(ScoreIds, AnErrorOfTheEngineIsTheResult) {
  FakeEngine engine;
  engine.refusal = absl::ResourceExhaustedError("never");
  const std::vector<int32_t> ids(10, 7);
  EXPECT_EQ(ScoreIds(engine, ids, 10, 5, -1, [] {}).status().message(), "never");
}

TEST(ScoreIds, StopsWhereItIsAsked) {
  FakeEngine engine;
  engine.step = std::chrono::milliseconds(300);
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const OwnedFd out(fds[0]), in(fds[1]);
  ASSERT_EQ(write(in.get(), "x", 1), 1);
  const std::vector<int32_t> ids(10, 7);
  EXPECT_EQ(ScoreIds(engine, ids, 10, 5, out.get(), [] {}).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace sirocco
