// Vocabularies of SentencePiece, from tokenizer.model and from GGUF, against SentencePiece itself:
// tests/goldens/tokenizers/make_sentencepiece.py made models and answers.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "engine/tokenizer/gguf_tokenizer.h"
#include "engine/tokenizer/pipeline.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_model.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string Golden(const std::string& relative) {
  return GoldenPath("tokenizers/sentencepiece/" + relative);
}

// pieces.json under GGUF's keys.
FakeGguf Gguf(const std::string& folder) {
  const json pieces = json::parse(ReadFile(Golden(folder + "/pieces.json")));
  FakeGguf file;
  file.strings["tokenizer.ggml.model"] = absl::StartsWith(folder, "unigram") ? "t5" : "llama";
  for (const json& token : pieces["tokens"]) {
    file.string_lists["tokenizer.ggml.tokens"].push_back(token.get<std::string>());
  }
  file.float_lists["tokenizer.ggml.scores"] = pieces["scores"].get<std::vector<float>>();
  file.int_lists["tokenizer.ggml.token_type"] = pieces["types"].get<std::vector<int64_t>>();
  file.bools["tokenizer.ggml.add_space_prefix"] = pieces["add_space_prefix"];
  file.bools["tokenizer.ggml.remove_extra_whitespaces"] = pieces["remove_extra_whitespaces"];
  file.ints["tokenizer.ggml.bos_token_id"] = 1;
  file.ints["tokenizer.ggml.eos_token_id"] = 2;
  file.bools["tokenizer.ggml.add_bos_token"] = true;
  file.bools["tokenizer.ggml.add_eos_token"] = false;
  if (!pieces.contains("charsmap")) return file;
  std::string charsmap;
  EXPECT_TRUE(absl::Base64Unescape(pieces["charsmap"].get<std::string>(), &charsmap));
  file.int_lists["tokenizer.ggml.precompiled_charsmap"] = {charsmap.begin(), charsmap.end()};
  return file;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const FakeGguf& file) {
  absl::StatusOr<TokenizerParts> parts = ParseGgufTokenizer(file);
  if (!parts.ok()) return parts.status();
  return MakeTokenizer(*std::move(parts));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> FromBytes(std::string_view bytes) {
  absl::StatusOr<TokenizerParts> parts = ParseTokenizerModel(bytes);
  if (!parts.ok()) return parts.status();
  return MakeTokenizer(*std::move(parts));
}

void ExpectCases(const Tokenizer& tokenizer, const std::string& folder) {
  size_t cases = 0;
  for (const json& line : ReadJsonLines(Golden(folder + "/cases.jsonl"))) {
    const std::string text = line["text"];
    SCOPED_TRACE(line["text"].dump());
    const std::vector<int32_t> ids = line["ids"];
    EXPECT_EQ(Ids(tokenizer, text, false), ids);
    if (line.contains("decoded")) {
      EXPECT_EQ(tokenizer.Decode(ids, false), line["decoded"].get<std::string>());
    }
    ++cases;
  }
  EXPECT_GT(cases, 100u);
}

class SentencePieceTest : public testing::TestWithParam<const char*> {};

TEST_P(SentencePieceTest, ModelFilesAgreeWithTheReference) {
  const auto tokenizer = OpenTokenizer(Golden(GetParam()));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_NE(*tokenizer, nullptr);
  ExpectCases(**tokenizer, GetParam());
  EXPECT_EQ((*tokenizer)->bos_token(), "<s>");
  EXPECT_EQ((*tokenizer)->end_token_ids(), std::vector<int32_t>{2});
  EXPECT_EQ(*(*tokenizer)->Encode("", {}), std::vector<int32_t>{1});
}

TEST_P(SentencePieceTest, GgufFilesAgreeWithTheReference) {
  const auto tokenizer = FromGguf(Gguf(GetParam()));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectCases(**tokenizer, GetParam());
  EXPECT_EQ(*(*tokenizer)->Encode("", {}), std::vector<int32_t>{1});
}

TEST_P(SentencePieceTest, DamagedModelsAreErrorsOnOneLine) {
  const std::string whole = ReadFile(Golden(std::string(GetParam()) + "/tokenizer.model"));
  int refused = 0;
  const auto expect = [&](const std::string& bytes) {
    const auto tokenizer = FromBytes(bytes);
    if (!tokenizer.ok()) {
      ++refused;
      const std::string message(tokenizer.status().message());
      EXPECT_TRUE(std::none_of(message.begin(), message.end(), [](char c) {
        return static_cast<unsigned char>(c) < ' ';
      })) << message;
      return;
    }
    const auto ids = (*tokenizer)->Encode("the  wind\n\u00e9 <s>", {.parse_special_tokens = true});
    EXPECT_TRUE(ids.ok()) << ids.status();
    if (ids.ok()) (*tokenizer)->Decode(*ids, false);
  };
  for (size_t i = 0; i < whole.size(); i += 29) {
    std::string flipped = whole;
    flipped[i] = static_cast<char>(flipped[i] ^ (i % 2 == 0 ? 0x81 : 0x08));
    expect(flipped);
  }
  EXPECT_GT(refused, 20);
  refused = 0;
  for (size_t i = 1; i < 40; ++i) expect(whole.substr(0, whole.size() * i / 40));
  EXPECT_GT(refused, 30);
}

INSTANTIATE_TEST_SUITE_P(Models, SentencePieceTest,
                         testing::Values("dummy_prefix", "user_defined", "prefix_and_user_defined",
                                         "unknown", "charsmap", "unigram", "unigram_bytes"));

TEST(SentencePieceTest, ControlTokensBeginTextsAnew) {
  const auto tokenizer = OpenTokenizer(Golden("dummy_prefix"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<int32_t> wind = Ids(**tokenizer, "wind", true);
  std::vector<int32_t> expected = wind;
  expected.push_back(1);
  expected.insert(expected.end(), wind.begin(), wind.end());
  EXPECT_EQ(Ids(**tokenizer, "wind<s>wind", true), expected);
  EXPECT_NE(Ids(**tokenizer, "wind<s>wind", false), expected);
  // What a model writes after a prompt keeps its first space; a text of its own does not.
  EXPECT_EQ((*tokenizer)->Decode(wind, false), "wind");
  EXPECT_EQ((*tokenizer)->TokenBytes(wind[0])[0], ' ');
}

TEST(SentencePieceTest, FurtherTokensAreRead) {
  const fs::path folder = fs::path(testing::TempDir()) / "further_tokens";
  fs::remove_all(folder);
  fs::create_directories(folder);
  fs::copy_file(Golden("dummy_prefix/tokenizer.model"), folder / "tokenizer.model");
  const auto open = [&](const std::string& config) {
    std::ofstream(folder / "tokenizer_config.json") << config;
    return OpenTokenizer(folder.string());
  };
  const std::string token = R"({"content": "<|end|>", "special": true, "rstrip": true,
                               "normalized": false})";
  auto tokenizer = open(R"({"add_bos_token": false, "add_eos_token": true, "eos_token": "<|end|>",
                           "added_tokens_decoder": {"480": )" +
                        token + "}}");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("", {}), std::vector<int32_t>{480});
  EXPECT_EQ(Ids(**tokenizer, "<|end|> <s>", true), (std::vector<int32_t>{480, 1}));
  const std::pair<std::string, const char*> cases[] = {
      {R"({"added_tokens_decoder": {"x": )" + token + "}}", "no id of 0 to"},
      {R"({"added_tokens_decoder": {"-1": )" + token + "}}", "no id of 0 to"},
      {R"({"added_tokens_decoder": {"2": )" + token + "}}", "and '</s>' in tokenizer.model"},
      {R"({"added_tokens_decoder": []})", "added_tokens_decoder: not an object"},
      {R"({"add_bos_token": 1})", "add_bos_token is neither true nor false"}};
  for (const auto& [config, message] : cases) {
    const absl::Status status = open(config).status();
    EXPECT_NE(std::string(status.message()).find(message), std::string::npos) << status;
  }
  std::ofstream(folder / "added_tokens.json") << "{}";
  EXPECT_EQ(open("{}").status().code(), absl::StatusCode::kUnimplemented);
}

// Fields of the wire format.
std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
std::string Number(int field, uint64_t value) { return Varint(field << 3) + Varint(value); }
std::string Bytes(int field, const std::string& bytes) {
  return Varint(field << 3 | 2) + Varint(bytes.size()) + bytes;
}
std::string Piece(const std::string& text, int type = 1) {
  return Bytes(1, Bytes(1, text) + Number(3, static_cast<uint64_t>(type)));
}

TEST(SentencePieceTest, WhatIsNotSupportedOrWrongIsNamed) {
  const std::string bpe = Bytes(2, Number(3, 2));
  const std::pair<std::string, const char*> cases[] = {
      {"", "is no SentencePiece model: it has no tokens"},
      {"\x0a\xff", "not in protocol buffers' format"},
      {std::string(11, '\xff'), "not in protocol buffers' format"},
      {Bytes(1, "\x0b"), "not in protocol buffers' format"},
      {Piece("a"), "its Unigram vocabulary has no unknown token"},
      {Piece("a") + Bytes(2, Number(3, 4)),
       "trainer_spec.model_type: CHAR is not supported; supported: UNIGRAM, BPE"},
      {Piece("a") + Bytes(2, Number(3, 9)), "trainer_spec.model_type: 9 is not supported"},
      {Piece("a") + bpe + Bytes(3, Bytes(2, "xx")), "the charsmap has no trie of 0 bytes in its 2"},
      {Piece("a") + bpe + Bytes(2, Number(24, 1)), "treat_whitespace_as_suffix"},
      {Piece("a") + bpe + Bytes(3, Number(5, 0)), "escape_whitespaces of false"},
      {Piece("a") + Piece("a") + bpe, "token 1, 'a', is there twice"},
      {Piece("a", 7) + bpe, "has type 7; allowed: 1 to 6"},
      {Piece("a", 6) + bpe, "is of type byte; allowed: <0x00> to <0xFF>"},
      {Piece("\xff") + bpe, "is not UTF-8"},
      {Piece("a", 2) + Piece("b", 2) + bpe, "is a second unknown token"},
      {Bytes(1, Bytes(1, "a") + std::string("\x15\x00\x00\xc0\x7f", 5)) + bpe,
       "has a score that is no number"}};
  for (const auto& [bytes, message] : cases) {
    const absl::Status status = FromBytes(bytes).status();
    EXPECT_NE(std::string(status.message()).find(message), std::string::npos)
        << message << " / " << status;
  }
  EXPECT_TRUE(FromBytes(Piece("a") + bpe).ok());
}

// Entries that could be made in very many ways, and long ones, are refused in a moment.
TEST(SentencePieceTest, HostileEntriesTakeNoQuadraticTime) {
  std::string many;
  std::string text;
  for (int i = 0; i < 2000; ++i) many += Piece(text += 'a');
  EXPECT_NE(
      std::string(FromBytes(many + Bytes(2, Number(3, 2))).status().message()).find("its entries"),
      std::string::npos);
  const std::string one = Piece(std::string(50'000, 'a')) + Piece("a");
  EXPECT_NE(std::string(FromBytes(one + Bytes(2, Number(3, 2))).status().message())
                .find("its entries are too long"),
            std::string::npos);
  EXPECT_NE(std::string(FromBytes(Piece(std::string(1 << 20, 'a'))).status().message())
                .find("has 1048576 bytes; allowed: 65536"),
            std::string::npos);
}

// Equal scores: the leftmost pair first, of whichever entry.
TEST(SentencePieceTest, EqualScores) {
  const auto tokenizer =
      FromBytes(Piece("a") + Piece("b") + Piece("c") + Piece("ab") + Piece("bc") +
                Piece("<unk>", 2) + Bytes(2, Number(3, 2)) + Bytes(3, Number(3, 0) + Number(4, 0)));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Ids(**tokenizer, "abc", false), (std::vector<int32_t>{3, 2}));
  EXPECT_EQ(Ids(**tokenizer, "bcabc", false), (std::vector<int32_t>{4, 3, 2}));
  std::string text;
  std::vector<int32_t> ids;
  for (int i = 0; i < 30; ++i) {
    text += "abc";
    ids.insert(ids.end(), {3, 2});
  }
  EXPECT_EQ(Ids(**tokenizer, text, false), ids);
  EXPECT_EQ(Ids(**tokenizer, "xxyb", false), (std::vector<int32_t>{5, 1}));
}

TEST(SentencePieceTest, GgufKeysAreChecked) {
  FakeGguf file = Gguf("dummy_prefix");
  file.float_lists["tokenizer.ggml.scores"].pop_back();
  EXPECT_NE(std::string(FromGguf(file).status().message()).find("tokenizer.ggml.scores has 479"),
            std::string::npos)
      << FromGguf(file).status();
  file.float_lists.clear();
  EXPECT_NE(std::string(FromGguf(file).status().message()).find("tokenizer.ggml.scores has 0"),
            std::string::npos);
  file = Gguf("unigram");
  file.int_lists["tokenizer.ggml.precompiled_charsmap"].resize(7);
  EXPECT_NE(std::string(FromGguf(file).status().message()).find("the charsmap has no trie"),
            std::string::npos);
  // T5's texts end with eos unless the file says otherwise.
  file = Gguf("unigram");
  file.bools.erase("tokenizer.ggml.add_bos_token");
  file.bools.erase("tokenizer.ggml.add_eos_token");
  const auto tokenizer = FromGguf(file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("", {}), std::vector<int32_t>{2});
}

}  // namespace
}  // namespace sirocco
