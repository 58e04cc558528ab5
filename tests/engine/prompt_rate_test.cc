#include "engine/prompt_rate.h"

#include <gtest/gtest.h>

namespace sirocco {
namespace {

TEST(PromptRate, FullStepsTellHowFastPromptsAre) {
  PromptRate rate;
  EXPECT_FALSE(rate.SecondsAToken(false));
  EXPECT_FALSE(rate.SecondsAToken(true));
  for (int i = 0; i < 3; ++i) rate.Add(/*beside=*/false, 512, 0.0512);
  EXPECT_NEAR(*rate.SecondsAToken(false), 0.0001, 1e-9);
  EXPECT_NEAR(*rate.SecondsAToken(true), 0.0001, 1e-9);
  rate.Add(/*beside=*/true, 100, 0.03);
  EXPECT_NEAR(*rate.SecondsAToken(false), 0.0001, 1e-9);
  EXPECT_NEAR(*rate.SecondsAToken(true), 0.0003, 1e-9);
  for (int i = 0; i < 40; ++i) rate.Add(/*beside=*/false, 512, 0.1024);
  EXPECT_NEAR(*rate.SecondsAToken(false), 0.0002, 1e-5);
}

TEST(PromptRate, DoubtMakesItLessUntilAStepTells) {
  PromptRate rate;
  rate.Add(/*beside=*/false, 512, 0.1024);
  for (int i = 0; i < 30; ++i) rate.Doubt();
  EXPECT_LT(*rate.SecondsAToken(false), 0.00001);
  rate.Add(/*beside=*/false, 512, 0.0512);
  EXPECT_GT(*rate.SecondsAToken(false), 0.00001);
}

}  // namespace
}  // namespace sirocco
