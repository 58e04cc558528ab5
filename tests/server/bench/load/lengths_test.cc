// Lengths of prompts and outputs: what is drawn, and what is refused.
#include "server/bench/load/lengths.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace sirocco {
namespace {

constexpr auto kPrompts = Lengths::Of::kPrompts;
constexpr uint64_t kSeed = 7;

std::vector<int32_t> Drawn(const Lengths& lengths, int count) {
  std::vector<int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back(lengths.At(kPrompts, kSeed, i));
  return out;
}

std::string WriteLines(const char* name, const std::string& text) {
  const std::string path = ::testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

TEST(LengthsTest, FixedOnesAreAllTheSame) {
  const auto lengths = Lengths::Parse("37", 1);
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  EXPECT_EQ(Drawn(*lengths, 3), (std::vector<int32_t>{37, 37, 37}));
  EXPECT_EQ(lengths->Longest(), 37);
  EXPECT_EQ(lengths->fixed(), 37);
}

TEST(LengthsTest, UniformOnesTakeEveryValueAboutAsOften) {
  const auto lengths = Lengths::Parse("uniform:3:6", 1);
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  const std::vector<int32_t> drawn = Drawn(*lengths, 4000);
  for (int32_t value = 3; value <= 6; ++value) {
    EXPECT_NEAR(std::count(drawn.begin(), drawn.end(), value), 1000, 120) << value;
  }
  EXPECT_EQ(*std::min_element(drawn.begin(), drawn.end()), 3);
  EXPECT_EQ(*std::max_element(drawn.begin(), drawn.end()), 6);
  EXPECT_EQ(lengths->Longest(), 6);
  EXPECT_EQ(lengths->fixed(), std::nullopt);
}

TEST(LengthsTest, LognormalOnesHaveTheMedianAndTheSpreadThatWereGiven) {
  const auto lengths = Lengths::Parse("lognormal:200:0.5:2000", 1);
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  std::vector<int32_t> drawn = Drawn(*lengths, 4001);
  std::sort(drawn.begin(), drawn.end());
  EXPECT_NEAR(drawn[2000], 200, 8);
  EXPECT_NEAR(drawn[3366], 200 * std::exp(0.5), 20);  // 84.1%: one sigma above
  EXPECT_LE(drawn.back(), 2000);
}

TEST(LengthsTest, WhatIsLongerThanTheMostIsTheMost) {
  const auto lengths = Lengths::Parse("lognormal:100:2:120", 1);
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  const std::vector<int32_t> drawn = Drawn(*lengths, 1000);
  EXPECT_EQ(*std::max_element(drawn.begin(), drawn.end()), 120);
  EXPECT_GT(std::count(drawn.begin(), drawn.end(), 120), 300);
  EXPECT_GE(*std::min_element(drawn.begin(), drawn.end()), 1);
}

TEST(LengthsTest, ThoseOfAFileComeInTurn) {
  const auto lengths = Lengths::Parse("file:" + WriteLines("turn", "5\n\n 70 \n6\n"), 1);
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  EXPECT_EQ(Drawn(*lengths, 5), (std::vector<int32_t>{5, 70, 6, 5, 70}));
  EXPECT_EQ(lengths->Longest(), 70);
}

TEST(LengthsTest, ARequestsLengthDependsOnNothingButSeedAndIndex) {
  const auto lengths = Lengths::Parse("uniform:1:1000", 1);
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  EXPECT_EQ(Drawn(*lengths, 50), Drawn(*lengths, 50));
  int same = 0, as_outputs = 0;
  for (int i = 0; i < 50; ++i) {
    same += lengths->At(kPrompts, kSeed, i) == lengths->At(kPrompts, kSeed + 1, i);
    as_outputs += lengths->At(kPrompts, kSeed, i) == lengths->At(Lengths::Of::kOutputs, kSeed, i);
  }
  EXPECT_LT(same, 5);
  EXPECT_LT(as_outputs, 5);
}

TEST(LengthsTest, WhatIsNoLengthIsNamed) {
  for (const std::string text :
       {"", "x", "0", "-3", "1048577", "1.5", "uniform", "uniform:3", "uniform:6:3", "uniform:0:3",
        "uniform:1:2:3", "lognormal:200:0.5", "lognormal:200:-1:300", "lognormal:200:11:300",
        "lognormal:200:nan:300", "lognormal:200:0.5:100", "normal:1:2"}) {
    const auto lengths = Lengths::Parse(text, 1);
    ASSERT_FALSE(lengths.ok()) << text;
    EXPECT_TRUE(absl::IsInvalidArgument(lengths.status()));
    EXPECT_NE(std::string(lengths.status().message()).find("'" + text + "'"), std::string::npos);
  }
  EXPECT_FALSE(Lengths::Parse("1", 2).ok());
}

TEST(LengthsTest, AFileThatHasOthersIsRefusedByItsLine) {
  const std::string path = WriteLines("bad", "5\n6 7\n");
  const auto lengths = Lengths::Parse("file:" + path, 1);
  ASSERT_FALSE(lengths.ok());
  EXPECT_NE(std::string(lengths.status().message()).find(path + ":2:"), std::string::npos);
  EXPECT_FALSE(Lengths::Parse("file:" + WriteLines("empty", "\n"), 1).ok());
  EXPECT_TRUE(absl::IsNotFound(Lengths::Parse("file:/nowhere/x", 1).status()));
}

}  // namespace
}  // namespace sirocco
