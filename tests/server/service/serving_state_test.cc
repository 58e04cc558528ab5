#include "server/service/serving_state.h"

#include <gtest/gtest.h>

#include "server/service/stall_detector.h"
#include "tests/server/testing/fakes.h"

namespace sirocco {
namespace {

using std::chrono::seconds;

TEST(ServingState, FromLoadingToDraining) {
  ServingState state;
  EXPECT_EQ(state.WhyNotReady(), "loading");
  EXPECT_EQ(state.WhyNotHealthy(), "");
  EXPECT_EQ(state.Model().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(state.engine(), nullptr);

  const ModelFacts facts = FakeFacts(nullptr);
  FakeEngine engine;
  state.SetReady(facts, engine);
  EXPECT_EQ(state.WhyNotReady(), "");
  ASSERT_TRUE(state.Model().ok());
  EXPECT_EQ(state.Model()->facts, &facts);

  state.SetStalled(true);
  EXPECT_EQ(state.WhyNotReady(), "stalled");
  EXPECT_EQ(state.WhyNotHealthy(), "");
  EXPECT_TRUE(state.Model().ok());
  state.SetStalled(false);
  EXPECT_EQ(state.WhyNotReady(), "");

  state.SetDraining();
  EXPECT_EQ(state.WhyNotReady(), "draining");
  EXPECT_EQ(state.WhyNotHealthy(), "");
  EXPECT_EQ(state.Model().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(state.engine(), &engine);
}

TEST(ServingState, AFaultIsForGood) {
  ServingState state;
  const ModelFacts facts = FakeFacts(nullptr);
  FakeEngine engine;
  state.SetReady(facts, engine);
  state.SetFault(absl::InternalError("the first"));
  state.SetFault(absl::InternalError("the second"));
  state.SetDraining();
  EXPECT_EQ(state.WhyNotReady(), "the first");
  EXPECT_EQ(state.WhyNotHealthy(), "the first");
  EXPECT_EQ(state.Model().status(), absl::InternalError("the first"));
}

TEST(StallDetector, WorkWithoutSteps) {
  StallDetector detector(seconds(10));
  const Clock::time_point start = Clock::now();
  const Clock::time_point step = start;
  EXPECT_FALSE(detector.Stalled(true, step, start + seconds(9)));
  EXPECT_TRUE(detector.Stalled(true, step, start + seconds(11)));
  EXPECT_FALSE(detector.Stalled(true, start + seconds(12), start + seconds(13))) << "it went on";
}

TEST(StallDetector, AnIdleEngineIsNotStalled) {
  StallDetector detector(seconds(10));
  const Clock::time_point start = Clock::now();
  EXPECT_FALSE(detector.Stalled(false, start, start + seconds(1000)));
  EXPECT_FALSE(detector.Stalled(true, start, start + seconds(1001))) << "work has only come";
  EXPECT_TRUE(detector.Stalled(true, start, start + seconds(1011)));
}

}  // namespace
}  // namespace sirocco
