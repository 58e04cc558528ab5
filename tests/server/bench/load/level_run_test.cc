// A level of a load, on a server and a clock that are made up: what is sent when, what is measured,
// and that nothing anybody waited for is left out.
#include "server/bench/load/level_run.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "server/bench/load/rate_search.h"
#include "tests/server/bench/load/made_up_server.h"

namespace sirocco {
namespace {

constexpr double kError = 0.004;  // of percentiles

LevelPlan Closed(int32_t concurrency, uint64_t requests) {
  LevelPlan plan;
  plan.load.concurrency = concurrency;
  plan.requests = requests;
  plan.outputs = Lengths(6);
  return plan;
}

LevelPlan Open(double rate, double warm_up, double seconds) {
  LevelPlan plan;
  plan.load.rate = rate;
  plan.warm_up = warm_up;
  plan.seconds = seconds;
  plan.outputs = Lengths(6);
  return plan;
}

absl::StatusOr<LoadLevel> Measure(const LevelPlan& plan, MadeUpServer& server) {
  return LevelRun(plan, server, server).Run({});
}

// Arrivals of an open loop in [from, to), seconds since its beginning.
uint64_t ArrivalsBetween(const LevelPlan& plan, double from, double to) {
  const auto arrivals = MakeArrivals(plan.load, plan.seed, 0);
  uint64_t count = 0;
  for (; *arrivals->Next() < to; arrivals->Take()) count += *arrivals->Next() >= from;
  return count;
}

TEST(ClosedLoopTest, KeepsItsRequestsUnderWay) {
  MadeUpServer server;
  const auto level = Measure(Closed(2, 7), server);
  ASSERT_TRUE(level.ok()) << level.status();
  EXPECT_EQ(level->requests, 7);
  EXPECT_EQ(level->tokens, 7 * 6);
  EXPECT_EQ(level->events, 7 * 6);
  EXPECT_EQ(level->most_under_way, 2);
  EXPECT_EQ(server.sent(), 7);
  // Four after one another, each 10 ms and five times 2 ms.
  EXPECT_NEAR(level->seconds, 4 * 0.02, 1e-9);
  EXPECT_NEAR(level->first_token.max(), 0.01, 1e-9);
  EXPECT_NEAR(level->total.Percentile(0.5), 0.02, 0.02 * kError);
  EXPECT_EQ(level->between_tokens.count(), 7 * 5);
  EXPECT_NEAR(level->between_tokens.mean(), 0.002, 1e-9);
  EXPECT_NEAR(level->per_token.mean(), 0.002, 1e-9);
  EXPECT_NEAR(level->DecodeTokensPerSecond(), 2 / 0.002, 1000 * kError);
  EXPECT_EQ(level->late.max(), 0);
}

TEST(ClosedLoopTest, WithADurationMeasuresItsWindowAlone) {
  MadeUpServer server;
  LevelPlan plan = Closed(1, 0);
  plan.warm_up = 0.5;
  plan.seconds = 2;
  const auto level = Measure(plan, server);
  ASSERT_TRUE(level.ok()) << level.status();
  EXPECT_EQ(level->seconds, 2);
  EXPECT_EQ(level->begin, 0.5);
  EXPECT_NEAR(static_cast<double>(level->requests), 100, 1);
  EXPECT_NEAR(static_cast<double>(level->tokens), 600, 6);
  EXPECT_NEAR(static_cast<double>(server.sent()), 125, 1);
}

TEST(ClosedLoopTest, EndsWithTheFirstError) {
  MadeUpServer server;
  server.status = [](uint64_t index) {
    return index == 3 ? absl::ResourceExhaustedError("full") : absl::OkStatus();
  };
  const auto level = Measure(Closed(2, 100), server);
  EXPECT_TRUE(absl::IsResourceExhausted(level.status())) << level.status();
  EXPECT_LE(server.sent(), 5);
}

TEST(ClosedLoopTest, OneTokenHasNoTimeATokenAfterIt) {
  MadeUpServer server;
  LevelPlan plan = Closed(1, 3);
  plan.outputs = Lengths(1);
  const auto level = Measure(plan, server);
  ASSERT_TRUE(level.ok()) << level.status();
  EXPECT_EQ(level->tokens, 3);
  EXPECT_EQ(level->per_token.count(), 0);
  EXPECT_EQ(level->between_tokens.count(), 0);
  EXPECT_EQ(level->DecodeTokensPerSecond(), 0);
}

TEST(LevelRunTest, TokensThatComeTogetherShareTheirTime) {
  MadeUpServer server;
  server.tokens_an_event = 3;  // two events, 6 ms apart
  const auto level = Measure(Closed(1, 4), server);
  ASSERT_TRUE(level.ok()) << level.status();
  EXPECT_EQ(level->events, 4 * 2);
  EXPECT_EQ(level->between_tokens.count(), 4 * 5);
  EXPECT_EQ(level->between_tokens.Percentile(0.4), 0);  // two that came with the first
  EXPECT_NEAR(level->between_tokens.Percentile(0.41), 0.002, 0.002 * kError);
  EXPECT_NEAR(level->between_tokens.max(), 0.002, 1e-9);
}

TEST(OpenLoopTest, SendsAsPlannedAndMeasuresItsWindow) {
  MadeUpServer server;
  const LevelPlan plan = Open(50, 2, 10);
  const auto level = Measure(plan, server);
  ASSERT_TRUE(level.ok()) << level.status();
  EXPECT_EQ(server.sent(), ArrivalsBetween(plan, 0, 12));
  EXPECT_EQ(level->requests, ArrivalsBetween(plan, 2, 12));
  EXPECT_EQ(level->seconds, 10);
  EXPECT_EQ(level->first_token.count(), level->requests);
  EXPECT_NEAR(level->first_token.max(), 0.01, 1e-9);
  // Tokens in the window: what the warm-up began is in, what the end cut off is not.
  EXPECT_NEAR(static_cast<double>(level->tokens), static_cast<double>(level->requests * 6), 30);
  EXPECT_EQ(level->DecodeTokensPerSecond(), 0);
  double arrivals = 0, ends = 0, tokens = 0;
  for (size_t bin = 0; bin < level->timeline.bins(); ++bin) {
    arrivals += level->timeline.At(Timeline::kArrivals, bin);
    ends += level->timeline.At(Timeline::kEnds, bin);
    tokens += level->timeline.At(Timeline::kTokens, bin);
  }
  EXPECT_EQ(arrivals, server.sent());
  EXPECT_EQ(ends, server.sent());
  EXPECT_EQ(tokens, 6 * server.sent());
}

// While a server stands still for a second, a closed loop sends nothing and sees one slow request;
// of those that an open loop means to send, all that fall into that second wait for its end.
TEST(OpenLoopTest, WhatAStallDelaysIsCounted) {
  MadeUpServer stalling;
  stalling.stalls = {1004, 1005};
  LevelPlan plan = Open(100, 0, 10);
  const auto open = Measure(plan, stalling);
  ASSERT_TRUE(open.ok()) << open.status();
  const double half = static_cast<double>(ArrivalsBetween(plan, 4, 4.5));
  const double share = half / static_cast<double>(open->requests);
  EXPECT_GT(share, 0.02);
  EXPECT_GE(open->first_token.Percentile(1 - share + 0.002), 0.5);
  EXPECT_NEAR(open->first_token.max(), 1, 0.06);
  EXPECT_NEAR(open->first_token.Percentile(0.5), 0.01, 0.01 * kError);

  MadeUpServer same;
  same.stalls = {1004, 1005};
  plan = Closed(1, 0);
  plan.seconds = 10;
  const auto closed = Measure(plan, same);
  ASSERT_TRUE(closed.ok()) << closed.status();
  EXPECT_NEAR(closed->first_token.Percentile(0.99), 0.01, 0.01 * kError);
  EXPECT_GT(closed->first_token.max(), 0.9);
}

TEST(OpenLoopTest, ASlowClientDelaysNobodyUnseen) {
  MadeUpServer server;
  server.oversleep = 0.03;
  const auto level = Measure(Open(20, 0, 20), server);
  ASSERT_TRUE(level.ok()) << level.status();
  EXPECT_GT(level->late.mean(), 0.01);
  EXPECT_LE(level->late.max(), 0.03 + 1e-9);
  EXPECT_NEAR(level->first_token.mean(), level->late.mean() + 0.01, 1e-9);
  EXPECT_NEAR(level->total.mean(), level->late.mean() + 0.02, 1e-9);
}

TEST(OpenLoopTest, WhatTheLoadMakesFailIsCountedAndMissesAGoal) {
  MadeUpServer server;
  server.status = [](uint64_t index) {
    if (index % 20 == 4) return absl::ResourceExhaustedError("full");
    return index % 20 == 5 ? absl::DeadlineExceededError("late") : absl::OkStatus();
  };
  const auto level = Measure(Open(100, 0, 10), server);
  ASSERT_TRUE(level.ok()) << level.status();
  const uint64_t all = level->requests + level->Failed();
  EXPECT_EQ(all, server.sent());
  EXPECT_NEAR(static_cast<double>(level->Failed()), static_cast<double>(all) / 10, 2);
  EXPECT_EQ(level->failed.size(), 2);
  EXPECT_NEAR(static_cast<double>(level->failed.at("RESOURCE_EXHAUSTED")),
              static_cast<double>(all) / 20, 1);
  EXPECT_NEAR(level->first_token.Percentile(0.99), 0.01, 0.01 * kError);
  for (const LoadMetric metric : {LoadMetric::kFirstToken, LoadMetric::kBetweenTokens,
                                  LoadMetric::kPerToken, LoadMetric::kTotal}) {
    EXPECT_FALSE(level->Keeps({metric, 0.95, 1000}));
    EXPECT_TRUE(level->Keeps({metric, 0.85, 1}));
    EXPECT_FALSE(level->Keeps({metric, 0.85, 0.001}));
  }
}

TEST(OpenLoopTest, NoAnswerAtAllMissesAnyGoal) {
  MadeUpServer server;
  server.status = [](uint64_t) { return absl::UnavailableError("gone"); };
  const auto level = Measure(Open(100, 0, 1), server);
  ASSERT_TRUE(level.ok()) << level.status();
  EXPECT_EQ(level->requests, 0);
  EXPECT_EQ(level->Failed(), server.sent());
  EXPECT_TRUE(absl::IsUnavailable(level->first_failure));
  EXPECT_FALSE(level->Keeps({LoadMetric::kFirstToken, 0.01, 1000}));
  EXPECT_FALSE(level->Keeps({LoadMetric::kBetweenTokens, 0.01, 1000}));
}

TEST(OpenLoopTest, AnErrorThatNoLoadExplainsEndsIt) {
  MadeUpServer server;
  server.status = [](uint64_t index) {
    return index == 5 ? absl::InternalError("a fault") : absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsInternal(Measure(Open(100, 0, 10), server).status()));
  EXPECT_LE(server.sent(), 7);
}

TEST(OpenLoopTest, AWindowWithoutARequestIsNoMeasurement) {
  MadeUpServer server;
  EXPECT_TRUE(absl::IsFailedPrecondition(Measure(Open(0.01, 0, 0.1), server).status()));
}

TEST(OpenLoopTest, LengthsAreDrawnForEachRequest) {
  MadeUpServer server;
  LevelPlan plan = Open(100, 0, 10);
  plan.outputs = *Lengths::Parse("uniform:2:9", 1);
  const auto level = Measure(plan, server);
  ASSERT_TRUE(level.ok()) << level.status();
  uint64_t tokens = 0;
  for (uint64_t i = 0; i < server.sent(); ++i) {
    tokens += static_cast<uint64_t>(plan.outputs.At(Lengths::Of::kOutputs, plan.seed, i));
  }
  EXPECT_EQ(level->between_tokens.count() + level->requests, tokens);
}

// Four at a time, 0.1 s each: no rate above 40 a second can be served for long, and well below it
// hardly anybody waits.
TEST(RampTest, FindsWhatAServerCanDo) {
  const Goal goal = {LoadMetric::kFirstToken, 0.9, 0.3};
  RateSearch search(1);
  while (const auto rate = search.Next()) {
    MadeUpServer server;
    server.slots = 4;
    server.first_token = 0.09;
    const auto level = Measure(Open(*rate, 5, 60), server);
    ASSERT_TRUE(level.ok()) << level.status();
    search.Record(*rate, level->Keeps(goal));
  }
  ASSERT_TRUE(search.highest_kept() && search.lowest_missed());
  EXPECT_GT(*search.highest_kept(), 30);
  EXPECT_LT(*search.lowest_missed(), 44);
}

TEST(ProgressTest, ShowsWhatHappens) {
  MadeUpServer server;
  std::vector<LevelProgress> shown;
  const auto level = LevelRun(Open(50, 1, 4), server, server).Run([&](const LevelProgress& now) {
    shown.push_back(now);
  });
  ASSERT_TRUE(level.ok()) << level.status();
  ASSERT_GT(shown.size(), 20);
  EXPECT_LE(shown.size(), 60);
  EXPECT_TRUE(shown.front().warming);
  EXPECT_FALSE(shown.back().warming);
  for (size_t i = 1; i < shown.size(); ++i) {
    EXPECT_GE(shown[i].done, shown[i - 1].done);
    EXPECT_GE(shown[i].ended, shown[i - 1].ended);
  }
  EXPECT_NEAR(shown.back().done, 1, 0.05);
  EXPECT_NEAR(shown.back().tokens_per_second, 300, 150);
  EXPECT_NEAR(shown.back().first_token_p99, 0.01, 0.01 * kError);
}

TEST(LevelRunTest, TheSameAgainIsTheSame) {
  const LevelPlan plan = Open(50, 1, 10);
  MadeUpServer one, other;
  one.slots = other.slots = 1;
  const auto first = Measure(plan, one), second = Measure(plan, other);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->tokens, second->tokens);
  EXPECT_EQ(first->first_token.mean(), second->first_token.mean());
  EXPECT_GT(first->first_token.max(), 0.03);  // some waited
}

}  // namespace
}  // namespace sirocco
