// What stands beside a tokenizer.json, and folders without one.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

namespace fs = std::filesystem;

class OpenTokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  void WriteTokenizer() {
    Write("tokenizer.json", ReadFile(GoldenPath("tokenizers/digits_style/tokenizer.json")));
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> Open() { return OpenTokenizer(folder_.string()); }

  fs::path folder_;
};

TEST_F(OpenTokenizerTest, AFolderWithoutTokenizerFilesHasNone) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Open();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*tokenizer, nullptr);
}

TEST_F(OpenTokenizerTest, OtherTokenizersAreNamed) {
  Write("tekken.json", "x");
  absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(std::string(status.message()).find("tekken.json"), std::string::npos) << status;
  Write("tokenizer.model", "x");
  status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("tokenizer.model: is no SentencePiece model"),
            std::string::npos)
      << status;
}

TEST_F(OpenTokenizerTest, ATokenizerAloneIsEnough) {
  WriteTokenizer();
  for (const std::string& path : {folder_.string(), (folder_ / "tokenizer.json").string()}) {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_EQ((*tokenizer)->bos_token(), "");
    EXPECT_EQ((*tokenizer)->bos_token_id(), std::nullopt);
    EXPECT_TRUE((*tokenizer)->end_token_ids().empty());
    EXPECT_FALSE((*tokenizer)->chat_template().has_value());
  }
}

TEST_F(OpenTokenizerTest, TokensMayBeObjectsAndTemplatesMayHaveNames) {
  WriteTokenizer();
  Write("tokenizer_config.json", R"({"bos_token": null, "eos_token": {"content": "<|im_end|>"},
        "chat_template": [{"name": "tool_use", "template": "T"},
                          {"name": "default", "template": "D"}]})");
  Write("special_tokens_map.json", R"({"bos_token": "<|im_start|>"})");
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Open();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->eos_token(), "<|im_end|>");
  EXPECT_EQ((*tokenizer)->bos_token(), "");  // null means none
  EXPECT_EQ((*tokenizer)->chat_template(), "D");
}

TEST_F(OpenTokenizerTest, OtherFilesFillInAndStandAbove) {
  WriteTokenizer();
  Write("tokenizer_config.json", R"({"chat_template": "old"})");
  Write("special_tokens_map.json", R"({"bos_token": "<|im_start|>"})");
  Write("chat_template.jinja", "new");
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Open();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_token_id(), 1);
  EXPECT_EQ((*tokenizer)->chat_template(), "new");
}

TEST_F(OpenTokenizerTest, WhatIsWrongNamesItsFile) {
  WriteTokenizer();
  const std::pair<const char*, const char*> cases[] = {
      {R"({"eos_token": 7})", "tokenizer_config.json: eos_token"},
      {R"({"eos_token": "<nowhere>"})", "eos token '<nowhere>' is not in the vocabulary"},
      {R"({"chat_template": 7})", "tokenizer_config.json: chat_template"},
      {R"({"chat_template": [{"name": "default"}]})", "tokenizer_config.json: an entry"},
      {"[]", "tokenizer_config.json: is no JSON object"},
      {"{", "tokenizer_config.json: "}};
  for (const auto& [text, message] : cases) {
    Write("tokenizer_config.json", text);
    const absl::Status status = Open().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text << status;
    EXPECT_NE(std::string(status.message()).find(message), std::string::npos) << status;
  }
}

// A file that is there and leads nowhere is not passed over as if it were none.
TEST_F(OpenTokenizerTest, LinksThatLeadNowhereAreErrors) {
  for (const char* target : {"nothing", "itself"}) {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                             "chat_template.jinja"}) {
      WriteTokenizer();
      fs::remove(folder_ / name);
      fs::create_symlink(std::string(target) == "itself" ? name : target, folder_ / name);
      const absl::Status status = Open().status();
      EXPECT_FALSE(status.ok()) << name << " to " << target;
      EXPECT_NE(std::string(status.message()).find(name), std::string::npos) << status;
      fs::remove(folder_ / name);
    }
  }
}

TEST_F(OpenTokenizerTest, MissingAndStrangeFiles) {
  EXPECT_EQ(OpenTokenizer((folder_ / "no.gguf").string()).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenTokenizer((folder_ / "no.json").string()).status().code(),
            absl::StatusCode::kNotFound);
  Write("some.txt", "neither of them");
  EXPECT_FALSE(OpenTokenizer((folder_ / "some.txt").string()).ok());
}

}  // namespace
}  // namespace sirocco
