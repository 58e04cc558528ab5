// Prompts and chats with the beginning of the answer behind them, against Hugging Face's
// tokenizers (tests/goldens/tokenizers/make_answer_prefix.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/api/prompt.h"
#include "tests/server/testing/fakes.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using nlohmann::json;

class AnswerPrefixTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto tokenizer = OpenTokenizer(Folder());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    auto chat_template = ChatTemplate::Parse(*tokenizer_->chat_template(), tokenizer_->bos_token(),
                                             tokenizer_->eos_token());
    ASSERT_TRUE(chat_template.ok()) << chat_template.status();
    template_ = *std::move(chat_template);
    facts_ = FakeFacts(tokenizer_.get());
    facts_.vocab_size = tokenizer_->vocab_size();
    facts_.chat_template = template_.get();
  }

  std::string Folder() const { return GoldenPath(std::string("tokenizers/") + GetParam()); }

  std::vector<int32_t> Ids(const v1::GenerateRequest& request) {
    const auto ids = PromptIds(request, facts_);
    EXPECT_TRUE(ids.ok()) << ids.status();
    return ids.ok() ? *ids : std::vector<int32_t>();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> template_;
  ModelFacts facts_;
};

v1::GenerateRequest RequestOf(const json& line) {
  v1::GenerateRequest request;
  request.set_answer_prefix(line["answer_prefix"].get<std::string>());
  if (line.contains("prompt")) {
    request.set_prompt(line["prompt"].get<std::string>());
    return request;
  }
  for (const json& message : line["messages"]) {
    v1::ChatMessage& added = *request.mutable_chat()->add_messages();
    added.set_role(message["role"].get<std::string>());
    added.set_content(message["content"].get<std::string>());
  }
  return request;
}

TEST_P(AnswerPrefixTest, TheJointIsThatOfOneText) {
  std::ifstream lines(Folder() + "/answer_prefix.jsonl");
  ASSERT_TRUE(lines.good());
  int plain_joints = 0, chats = 0;
  for (std::string text; std::getline(lines, text);) {
    const json line = json::parse(text);
    EXPECT_EQ(Ids(RequestOf(line)), line["ids"].get<std::vector<int32_t>>()) << text;
    const bool is_chat = line.contains("messages");
    chats += is_chat ? 1 : 0;
    plain_joints += !is_chat && line["apart"].get<size_t>() != line["ids"].size() ? 1 : 0;
  }
  // Tokenised apart, these would have been others.
  EXPECT_GE(plain_joints, 3);
  EXPECT_GE(chats, 10);
}

TEST_P(AnswerPrefixTest, ForgesNoControlToken) {
  const int32_t end = tokenizer_->end_token_ids()[0];
  const std::string spelt(tokenizer_->eos_token());
  v1::GenerateRequest request;
  request.set_prompt("a" + spelt);
  request.set_parse_special_tokens(true);
  request.set_answer_prefix(spelt + "b");
  const std::vector<int32_t> plain = Ids(request);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), end), 1);
  const std::string text = tokenizer_->Decode(plain, /*skip_special_tokens=*/true);
  EXPECT_NE(text.find(spelt + "b"), std::string::npos) << text;

  request.clear_prompt();
  v1::ChatMessage& message = *request.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content("a");
  const std::vector<int32_t> chat = Ids(request);
  request.clear_answer_prefix();
  const std::vector<int32_t> without = Ids(request);
  EXPECT_EQ(std::count(chat.begin(), chat.end(), end),
            std::count(without.begin(), without.end(), end));
  EXPECT_GT(chat.size(), without.size());
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, AnswerPrefixTest,
                         testing::Values("llama3_style", "digits_style", "qwen2_style",
                                         "gemma_style", "llama2_style"));

}  // namespace
}  // namespace sirocco
