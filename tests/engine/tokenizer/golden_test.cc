// Against the answers of Hugging Face's tokenizers.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using nlohmann::json;

std::unique_ptr<Tokenizer> Open(const std::string& path) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

// What a template wrote is trusted, what messages say is not. A content stands in the text as it
// is, or trimmed; behind the one before, or, where a template moves it, anywhere.
ProvenText Prove(const json& line) {
  ProvenText chat;
  chat.text = line["text"];
  chat.trusted.assign(chat.text.size(), true);
  size_t from = 0;
  for (const json& message : line["messages"]) {
    std::string content = message["content"];
    size_t at = chat.text.find(content, from);
    if (at == std::string::npos) {
      content.erase(0, content.find_first_not_of(" \n\t"));
      content.erase(content.find_last_not_of(" \n\t") + 1);
      at = chat.text.find(content, from);
    }
    if (at == std::string::npos) at = chat.text.find(message["content"].get<std::string>());
    EXPECT_NE(at, std::string::npos) << content;
    if (at == std::string::npos) return chat;
    for (size_t i = 0; i < content.size(); ++i) chat.trusted[at + i] = false;
    from = at + content.size();
  }
  return chat;
}

class GoldenTest : public testing::TestWithParam<const char*> {
 protected:
  std::string Folder() const { return GoldenPath(std::string("tokenizers/") + GetParam()); }
};

TEST_P(GoldenTest, Tokenize) {
  const std::unique_ptr<Tokenizer> tokenizer = Open(Folder());
  ASSERT_NE(tokenizer, nullptr);
  ExpectTokenizeGoldens(*tokenizer, Folder() + "/tokenize.jsonl");
}

TEST_P(GoldenTest, Chat) {
  const std::unique_ptr<Tokenizer> tokenizer = Open(Folder());
  ASSERT_NE(tokenizer, nullptr);
  int checked = 0;
  for (const json& line : ReadJsonLines(Folder() + "/chat.jsonl")) {
    if (line.contains("error")) continue;
    absl::StatusOr<std::vector<int32_t>> ids = tokenizer->EncodeChat(Prove(line));
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, line["ids"].get<std::vector<int32_t>>()) << line["text"];
    ++checked;
  }
  EXPECT_GE(checked, 8);
}

// A quadratic way would take minutes for each; tests/bench/tokenizer_bench.cc measures.
TEST_P(GoldenTest, HostileTextTakesNoQuadraticTime) {
  const std::unique_ptr<Tokenizer> tokenizer = Open(Folder());
  ASSERT_NE(tokenizer, nullptr);
  for (const char* unit : {" ", "a", "\r\n", " 1", "\u0301\u0327", "<|im_start|"}) {
    std::string text;
    while (text.size() < 1 << 18) text += unit;
    text += "x";
    const auto start = std::chrono::steady_clock::now();
    const std::vector<int32_t> ids = Ids(*tokenizer, text, true);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)) << unit;
    const std::string decoded = tokenizer->Decode(ids, false);
    EXPECT_EQ(decoded.size(), text.size()) << unit;
  }
}

TEST_P(GoldenTest, ConfigurationIsRead) {
  const std::unique_ptr<Tokenizer> tokenizer = Open(Folder());
  ASSERT_NE(tokenizer, nullptr);
  const json config = json::parse(ReadFile(Folder() + "/tokenizer_config.json"));
  EXPECT_EQ(tokenizer->eos_token(), config["eos_token"].get<std::string>());
  ASSERT_EQ(tokenizer->end_token_ids().size(), 1u);
  EXPECT_EQ(tokenizer->TokenBytes(tokenizer->end_token_ids()[0]), tokenizer->eos_token());
  EXPECT_EQ(tokenizer->bos_token_id().has_value(), config["bos_token"].is_string());
  EXPECT_EQ(tokenizer->chat_template(), config["chat_template"].get<std::string>());
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, GoldenTest,
                         testing::Values("llama3_style", "digits_style", "qwen2_style",
                                         "gemma_style", "llama2_style"));

// testdata/make_variants.py says what stands in the file, and where it comes from.
TEST(VariantsTest, AgreeWithTheReference) {
  const json base = json::parse(ReadFile(GoldenPath("tokenizers/qwen2_style/tokenizer.json")));
  size_t cases = 0;
  for (const json& variant :
       ReadJsonLines(GoldenPath("../engine/tokenizer/testdata/variants.jsonl"))) {
    SCOPED_TRACE(variant["set"].dump());
    json file = base;
    file.update(variant["set"]);
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerFromJson(file.dump());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (const json& line : variant["cases"]) {
      const std::string text = line[0];
      EXPECT_EQ(Ids(**tokenizer, text, true), line[1].get<std::vector<int32_t>>()) << json(text);
      EXPECT_EQ(Ids(**tokenizer, text, false), line.back().get<std::vector<int32_t>>())
          << json(text);
      ++cases;
    }
  }
  EXPECT_GT(cases, 1000u);
}

// The file is too large for the repository: tests/goldens/smollm2/README.md says where it comes
// from.
TEST(SmolLm2Test, Tokenize) {
  const char* path = std::getenv("SIROCCO_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "SIROCCO_TEST_MODEL names no GGUF file";
  const std::unique_ptr<Tokenizer> tokenizer = Open(path);
  ASSERT_NE(tokenizer, nullptr);
  ExpectTokenizeGoldens(*tokenizer, GoldenPath("smollm2/tokenize.jsonl"));
  for (const json& line : ReadJsonLines(GoldenPath("smollm2/cases.jsonl"))) {
    const std::string text = line.contains("rendered") ? line["rendered"] : line["prompt"];
    EXPECT_EQ(Ids(*tokenizer, text, true), line["prompt_token_ids"].get<std::vector<int32_t>>());
    const std::vector<int32_t> completion = line["completion_token_ids"];
    EXPECT_EQ(tokenizer->Decode(completion, true), line["text"].get<std::string>());
  }
  EXPECT_EQ(tokenizer->end_token_ids(), std::vector<int32_t>{2});
  EXPECT_TRUE(tokenizer->chat_template().has_value());
  // Bytes without a token are dropped.
  EXPECT_EQ(Ids(*tokenizer, "\x04\x13 a\x16", false), Ids(*tokenizer, " a", false));
}

}  // namespace
}  // namespace sirocco
