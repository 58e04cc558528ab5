// The goldens' tokenizers, spoilt at every place: what comes of it is a tokenizer that works, or
// one line.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/testing/json_mutations.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using nlohmann::json;

class TokenizerMutationTest : public ::testing::TestWithParam<const char*> {
 protected:
  std::string Text() const {
    return ReadFile(GoldenPath(std::string("tokenizers/") + GetParam() + "/tokenizer.json"));
  }
  // A small one of the same kind: all bytes, some merges. Ids are given anew, so that the added
  // tokens follow the vocabulary.
  json Small() const {
    json tokenizer = json::parse(Text());
    json& model = tokenizer["model"];
    if (model["type"] == "Unigram") {  // added tokens, bytes and some pieces
      json& pieces = model["vocab"];
      pieces.erase(pieces.begin() + 280, pieces.end());
      return tokenizer;
    }
    json merges = json::array();
    for (size_t i = 0; i < 20; ++i) merges.push_back(model["merges"][i]);
    model["merges"] = merges;
    std::set<std::string> needed;
    for (const json& merge : merges) {
      const std::string left = merge[0];
      const std::string right = merge[1];
      needed.insert({left, right, left + right});
    }
    json ids = json::object();
    for (const auto& [entry, id] : model["vocab"].items()) {
      if (id < 400 || needed.count(entry) > 0) ids[entry] = ids.size();
    }
    model["vocab"] = ids;
    for (json& token : tokenizer["added_tokens"]) {
      token["id"] = ids.emplace(token["content"], ids.size()).first.value();
    }
    const auto renumber = [&ids](json& processor) {
      if (!processor.contains("special_tokens")) return;
      for (const auto& item : processor["special_tokens"].items()) {
        item.value()["ids"] = json::array({ids.at(item.key())});
      }
    };
    json& processor = tokenizer["post_processor"];
    renumber(processor);
    if (processor.contains("processors")) {
      for (json& part : processor["processors"]) renumber(part);
    }
    return tokenizer;
  }

  void Try(const std::string& text, const std::string& what) {
    const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerFromJson(text);
    if (!tokenizer.ok()) {
      ++refused_;
      const std::string message(tokenizer.status().message());
      EXPECT_TRUE(tokenizer.status().code() == absl::StatusCode::kInvalidArgument ||
                  tokenizer.status().code() == absl::StatusCode::kUnimplemented)
          << what << ": " << message;
      EXPECT_TRUE(std::none_of(message.begin(), message.end(),
                               [](char c) { return static_cast<unsigned char>(c) < ' '; }))
          << what << ": " << message;
      EXPECT_LT(message.size(), 1000u) << what;
      return;
    }
    ++opened_;
    for (const bool special : {false, true}) {
      const auto ids =
          (*tokenizer)
              ->Encode("Hello <|im_start|>  w\u00f6rld's 123\r\n\u4f60\U0001f600 </s>",
                       {.add_special_tokens = special, .parse_special_tokens = special});
      if (!ids.ok()) continue;
      for (const int32_t id : *ids) {
        EXPECT_GE(id, 0) << what;
        EXPECT_LT(id, (*tokenizer)->vocab_size()) << what;
      }
      (*tokenizer)->Decode(*ids, special);
    }
  }

  int opened_ = 0;
  int refused_ = 0;
};

TEST_P(TokenizerMutationTest, ValuesOfAnyKind) {
  const json small = Small();
  ASSERT_TRUE(TokenizerFromJson(small.dump()).ok()) << TokenizerFromJson(small.dump()).status();
  ForEachMutation(small, 6, 4, [&](const json& mutated, const std::string& what) {
    // Strings of a mutation that are no UTF-8 cannot be written; there are none.
    Try(mutated.dump(), what);
  });
  EXPECT_GT(opened_, 10);
  EXPECT_GT(refused_, 500);
}

TEST_P(TokenizerMutationTest, FlippedAndTruncated) {
  const std::string text = Small().dump();
  for (size_t i = 0; i < text.size(); i += 7) {
    std::string flipped = text;
    flipped[i] = static_cast<char>(flipped[i] ^ (i % 2 == 0 ? 0x01 : 0x20));
    Try(flipped, "flipped at " + std::to_string(i));
  }
  EXPECT_GT(opened_, 10);
  const int opened = opened_;
  for (size_t i = 0; i < 50; ++i) Try(text.substr(0, text.size() * i / 50), "truncated");
  EXPECT_EQ(opened_, opened);
}

INSTANTIATE_TEST_SUITE_P(Goldens, TokenizerMutationTest,
                         ::testing::Values("llama3_style", "qwen2_style", "digits_style",
                                           "gemma_style", "llama2_style", "unigram_style"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sirocco
