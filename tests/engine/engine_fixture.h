// Tests of a whole engine, over executors that do not run ahead, and that do.
#pragma once

#include <gtest/gtest.h>

#include <utility>

#include "tests/engine/engine_harness.h"

namespace sirocco {

class EngineFixture : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { h_.run_ahead = GetParam(); }
  // Whatever became of the engine, the device saw nothing wrong.
  void TearDown() override {
    h_.gate.Open();
    h_.engine.reset();
    EXPECT_EQ(h_.device->violation(), "");
    EXPECT_FALSE(h_.observer.counts().negative_time);
  }

  // A request that goes on to the end of max_length.
  Request Long(int32_t salt = 1) {
    Request request = PromptOf(4, h_.executor.max_length - 4, salt);
    request.stop.ignore_eos = true;
    return request;
  }
  absl::Status Refusal(Request request) {
    return Client::Submit(*h_.engine, std::move(request)).status();
  }

  EngineHarness h_;
};

}  // namespace sirocco
