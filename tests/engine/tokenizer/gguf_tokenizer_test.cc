#include "engine/tokenizer/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/tokenizer/fixtures.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using nlohmann::json;

json Golden(const std::string& name) {
  return json::parse(ReadFile(GoldenPath("tokenizers/" + name + "/tokenizer.json")));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Open(const FakeGguf& file) {
  absl::StatusOr<TokenizerParts> parts = ParseGgufTokenizer(file);
  if (!parts.ok()) return parts.status();
  return MakeTokenizer(*std::move(parts));
}

// The rules that a file only names are those that the tokenizer.json of such a model spells out.
TEST(GgufTokenizerTest, NamedRulesAreTheGoldens) {
  const std::pair<const char*, const char*> cases[] = {
      {"llama3_style", "llama-bpe"}, {"digits_style", "smollm"}, {"qwen2_style", "qwen2"}};
  for (const auto& [name, pre] : cases) {
    SCOPED_TRACE(name);
    FakeGguf file = FakeGguf::FromTokenizerJson(Golden(name), pre);
    if (file.strings["tokenizer.ggml.pre"] == "llama-bpe") {
      file.ints["tokenizer.ggml.bos_token_id"] = 3006;  // added without being asked to
    }
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Open(file);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    ExpectTokenizeGoldens(**tokenizer,
                          GoldenPath(std::string("tokenizers/") + name + "/tokenize.jsonl"));
  }
}

TEST(GgufTokenizerTest, Gpt2KeepsDigitsTogether) {
  FakeGguf file = FakeGguf::FromTokenizerJson(Golden("digits_style"), "gpt-2");
  absl::StatusOr<std::unique_ptr<Tokenizer>> gpt2 = Open(file);
  file.strings["tokenizer.ggml.pre"] = "smollm";
  absl::StatusOr<std::unique_ptr<Tokenizer>> smollm = Open(file);
  ASSERT_TRUE(gpt2.ok() && smollm.ok());
  // The last of the spaces goes with the digits, or stays with the others.
  EXPECT_EQ(Ids(**gpt2, "   12", false), (std::vector<int32_t>{558, 224, 20, 21}));
  EXPECT_EQ(Ids(**smollm, "   12", false), (std::vector<int32_t>{998, 20, 21}));
}

TEST(GgufTokenizerTest, EndsAndTemplate) {
  FakeGguf file = FakeGguf::FromTokenizerJson(Golden("digits_style"), "smollm");
  file.ints["tokenizer.ggml.bos_token_id"] = 1;
  file.ints["tokenizer.ggml.eos_token_id"] = 2;
  file.bools["tokenizer.ggml.add_bos_token"] = true;
  file.bools["tokenizer.ggml.add_eos_token"] = true;
  file.strings["tokenizer.chat_template"] = "{{ bos_token }}";
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Open(file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_token(), "<|im_start|>");
  EXPECT_EQ((*tokenizer)->eos_token(), "<|im_end|>");
  EXPECT_EQ((*tokenizer)->bos_token_id(), 1);
  EXPECT_EQ((*tokenizer)->end_token_ids(), std::vector<int32_t>{2});
  EXPECT_EQ((*tokenizer)->chat_template(), "{{ bos_token }}");
  EXPECT_EQ(*(*tokenizer)->Encode("", {}), (std::vector<int32_t>{1, 2}));
}

TEST(GgufTokenizerTest, WhatIsWrongIsNamed) {
  const FakeGguf good = FakeGguf::FromTokenizerJson(Golden("digits_style"), "smollm");
  const auto expect = [&](auto change, absl::StatusCode code, const std::string& message) {
    FakeGguf file = good;
    change(file);
    const absl::Status status = Open(file).status();
    EXPECT_EQ(status.code(), code) << message << " / " << status;
    EXPECT_NE(std::string(status.message()).find(message), std::string::npos)
        << message << " / " << status;
  };
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  expect([](FakeGguf& f) { f.strings["tokenizer.ggml.model"] = "bert"; }, kUnimplemented,
         "tokenizer.ggml.model 'bert' is not supported; supported: gpt2, llama, t5");
  expect([](FakeGguf& f) { f.strings["tokenizer.ggml.pre"] = "bloom"; }, kUnimplemented,
         "tokenizer.ggml.pre 'bloom' is not supported; supported: default, gpt-2, phi-2");
  expect([](FakeGguf& f) { f.strings.erase("tokenizer.ggml.pre"); }, kUnimplemented,
         "tokenizer.ggml.pre ''");
  expect([](FakeGguf& f) { f.string_lists.erase("tokenizer.ggml.tokens"); }, kInvalid,
         "tokenizer.ggml.tokens");
  expect([](FakeGguf& f) { f.string_lists.erase("tokenizer.ggml.merges"); }, kInvalid,
         "tokenizer.ggml.merges");
  expect([](FakeGguf& f) { f.int_lists["tokenizer.ggml.token_type"].pop_back(); }, kInvalid,
         "token_type has 1999 entries for 2000 tokens");
  expect([](FakeGguf& f) { f.int_lists["tokenizer.ggml.token_type"][7] = 9; }, kInvalid,
         "token 7 has type 9");
  expect([](FakeGguf& f) { f.int_lists["tokenizer.ggml.token_type"][7] = 6; }, kUnimplemented,
         "token 7 is of type byte");
  expect([](FakeGguf& f) { f.string_lists["tokenizer.ggml.tokens"][9] = "<|im_end|>"; }, kInvalid,
         "token 9, '<|im_end|>', is there twice");
  expect([](FakeGguf& f) { f.string_lists["tokenizer.ggml.merges"][0] = "er"; }, kInvalid,
         "merge 'er'");
  expect([](FakeGguf& f) { f.ints["tokenizer.ggml.eos_token_id"] = 2000; }, kInvalid,
         "tokenizer.ggml.eos_token_id is 2000; allowed: 0 to 1999");
  expect([](FakeGguf& f) { f.ints["tokenizer.ggml.bos_token_id"] = -1; }, kInvalid,
         "tokenizer.ggml.bos_token_id is -1");
  expect([](FakeGguf& f) { f.bools["tokenizer.ggml.add_bos_token"] = true; }, kInvalid,
         "tokenizer.ggml.add_bos_token is true without");
}

}  // namespace
}  // namespace sirocco
