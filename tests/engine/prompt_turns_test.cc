#include "engine/prompt_turns.h"

#include <gtest/gtest.h>

namespace sirocco {
namespace {

constexpr double kAllowance = 0.02;

TEST(PromptTurns, PromptsAndTheBatchTakeTurns) {
  PromptTurns turns;
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(turns.MayHave(/*few=*/false));
    turns.Prompts(kAllowance);
    EXPECT_FALSE(turns.MayHave(false));
    turns.Batch(kAllowance);
  }
  turns.Prompts(kAllowance);
  turns.Nothing();
  EXPECT_TRUE(turns.MayHave(false));
}

TEST(PromptTurns, FewHaveEverySecondRound) {
  PromptTurns turns;
  EXPECT_TRUE(turns.MayHave(/*few=*/true));
  turns.Prompts(kAllowance);
  turns.Batch(kAllowance);
  EXPECT_FALSE(turns.MayHave(true));
  EXPECT_TRUE(turns.MayHave(false));
  turns.Batch(kAllowance);
  EXPECT_TRUE(turns.MayHave(true));
}

TEST(PromptTurns, WhatIsLentIsPaidByRoundsWithout) {
  PromptTurns turns;
  EXPECT_EQ(turns.Loan(kAllowance), kAllowance);
  for (int round = 0; round < 3; ++round) {
    turns.PromptsOnLoan(2 * kAllowance, kAllowance);
    EXPECT_EQ(turns.had(), 2 * kAllowance);
    turns.Batch(kAllowance);
    EXPECT_EQ(turns.had(), 0);
  }
  for (int round = 0; round < 3; ++round) {
    EXPECT_FALSE(turns.MayHave(false)) << round;
    turns.Batch(1.01 * kAllowance);
  }
  EXPECT_TRUE(turns.MayHave(false));
}

TEST(PromptTurns, StepsOfOneRoundAreOne) {
  PromptTurns turns;
  turns.Prompts(0.5 * kAllowance);
  EXPECT_EQ(turns.Loan(kAllowance), kAllowance);
  for (const double had : {1.25, 1.5}) {
    turns.PromptsOnLoan(had * kAllowance - turns.had(), kAllowance);
    EXPECT_EQ(turns.had(), had * kAllowance);
    EXPECT_EQ(turns.Loan(kAllowance), kAllowance);
  }
  turns.Batch(kAllowance);
  EXPECT_FALSE(turns.MayHave(false));
  turns.Batch(kAllowance);
  EXPECT_TRUE(turns.MayHave(false));
}

TEST(PromptTurns, NobodyBorrowsWithoutEnd) {
  PromptTurns turns;
  double lent = 0;
  for (int round = 0; round < 100; ++round) {
    const double loan = turns.Loan(kAllowance);
    EXPECT_GE(loan, 0);
    lent += loan;
    turns.PromptsOnLoan(kAllowance + loan, kAllowance);
    turns.Batch(kAllowance);
  }
  EXPECT_NEAR(lent, PromptTurns::kMostDebt * kAllowance, 1e-9);
  // Also where the allowance is less by now.
  turns.Batch(kAllowance / 10);
  int rounds = 0;
  for (; !turns.MayHave(false); ++rounds) turns.Batch(kAllowance / 10);
  EXPECT_LE(rounds, PromptTurns::kMostDebt + 1);
}

TEST(PromptTurns, NothingIsOwedWhereNobodyWaitedOrNothingIsKnown) {
  PromptTurns turns;
  turns.PromptsOnLoan(10 * kAllowance, kAllowance);
  turns.PromptsAlone();
  EXPECT_EQ(turns.had(), 0);
  turns.Batch(kAllowance);
  EXPECT_TRUE(turns.MayHave(false));
  // A step that took longer than it may without a loan: nobody pays for that.
  turns.Prompts(10 * kAllowance);
  turns.Batch(kAllowance);
  EXPECT_TRUE(turns.MayHave(false));
  turns.PromptsOnLoan(10 * kAllowance, kAllowance);
  turns.Batch(0);
  EXPECT_TRUE(turns.MayHave(false));
  EXPECT_EQ(turns.Loan(0), 0);
}

}  // namespace
}  // namespace sirocco
