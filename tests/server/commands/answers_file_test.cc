#include "server/commands/answers_file.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

namespace sirocco {
namespace {

class AnswersFileTest : public testing::Test {
 protected:
  void SetUp() override { std::remove(path_.c_str()); }
  void TearDown() override { std::remove(path_.c_str()); }

  void Put(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }
  std::string Text() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  const std::string path_ = testing::TempDir() + "answers_" +
                            testing::UnitTest::GetInstance()->current_test_info()->name() +
                            ".jsonl";
};

TEST_F(AnswersFileTest, BeginsAFile) {
  auto file = AnswersFile::Open(path_, /*resume=*/false);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->lines(), 0u);
  EXPECT_TRUE(file->Write("{}\n").ok());
  EXPECT_EQ(Text(), "{}\n");
}

TEST_F(AnswersFileTest, ResumingWhatIsNotThereBegins) {
  auto file = AnswersFile::Open(path_, /*resume=*/true);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->lines(), 0u);
}

TEST_F(AnswersFileTest, OverwritesNothing) {
  Put("{}\n");
  const auto file = AnswersFile::Open(path_, /*resume=*/false);
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(file.status().message().find("--resume"), absl::string_view::npos);
  EXPECT_EQ(Text(), "{}\n");
}

TEST_F(AnswersFileTest, GoesOnBehindTheLastWholeLine) {
  Put("{\"a\":1}\n{\"error\":\"x\"}\n{\"error\"\n{\"b\":");
  {
    auto file = AnswersFile::Open(path_, /*resume=*/true);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->lines(), 3u);
    EXPECT_EQ(file->failed(), 1u);
    EXPECT_EQ(Text(), "{\"a\":1}\n{\"error\":\"x\"}\n{\"error\"\n");
    EXPECT_TRUE(file->Write("{\"b\":2}\n").ok());
  }
  EXPECT_EQ(Text(), "{\"a\":1}\n{\"error\":\"x\"}\n{\"error\"\n{\"b\":2}\n");
  auto again = AnswersFile::Open(path_, /*resume=*/true);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->lines(), 4u);
}

TEST_F(AnswersFileTest, ABrokenFirstLineIsCutOff) {
  Put("{\"error\":");
  auto file = AnswersFile::Open(path_, /*resume=*/true);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->lines(), 0u);
  EXPECT_EQ(file->failed(), 0u);
  EXPECT_EQ(Text(), "");
}

TEST_F(AnswersFileTest, HasOneWriter) {
  auto file = AnswersFile::Open(path_, /*resume=*/true);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(AnswersFile::Open(path_, /*resume=*/true).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(AnswersFileTest, WhatIsNoFileTakesAnswersAndCannotBeResumed) {
  EXPECT_TRUE(AnswersFile::Open("/dev/null", /*resume=*/false).ok());
  EXPECT_EQ(AnswersFile::Open("/dev/null", /*resume=*/true).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AnswersFile::Open("/no/such/folder/file", false).status().code(),
            absl::StatusCode::kNotFound);
  auto full = AnswersFile::Open("/dev/full", /*resume=*/false);
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->Write("x").code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace sirocco
