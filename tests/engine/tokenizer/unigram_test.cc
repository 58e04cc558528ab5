// Unigram models; unigram_style against Hugging Face's tokenizers.
#include "engine/tokenizer/unigram.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

std::string Folder() { return GoldenPath("tokenizers/unigram_style"); }

// Entries and scores; the first is the unknown token, with a score of 0, and no text becomes it.
struct Fixture {
  std::vector<std::pair<std::string, double>> pieces;
  bool byte_fallback = false;
  bool float_sums = false;
  double unknown = -20;
};

absl::StatusOr<Unigram> Make(const Fixture& fixture) {
  BpeVocabulary vocabulary;
  vocabulary.byte_fallback = fixture.byte_fallback;
  vocabulary.unk_token = "<unk>";
  vocabulary.ids.Add("<unk>", 0);
  UnigramScores scores{
      .of_entries = {0}, .of_unknown = fixture.unknown, .float_sums = fixture.float_sums};
  for (const auto& [text, score] : fixture.pieces) {
    vocabulary.ids.Add(text, static_cast<int32_t>(vocabulary.ids.size()));
    scores.of_entries.push_back(score);
  }
  return Unigram::Make(vocabulary, scores, {true});
}

::testing::AssertionResult Makes(const Fixture& fixture, const std::string& word, const Ids& ids) {
  const absl::StatusOr<Unigram> unigram = Make(fixture);
  if (!unigram.ok()) return ::testing::AssertionFailure() << unigram.status();
  Unigram::Scratch scratch;
  Ids made = {99};  // what is there stays
  unigram->Encode(word, &scratch, &made);
  Ids expected = {99};
  expected.insert(expected.end(), ids.begin(), ids.end());
  if (made == expected) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << word << ": " << json(made) << " for " << json(expected);
}

TEST(UnigramTest, TheMostProbablePieces) {
  const Fixture fixture = {
      {{"a", -1}, {"b", -1}, {"c", -1}, {"ab", -1.5}, {"bc", -1.4}, {"abc", -9}, {"cab", -2.4}}};
  EXPECT_TRUE(Makes(fixture, "", {}));
  EXPECT_TRUE(Makes(fixture, "a", {1}));
  EXPECT_TRUE(Makes(fixture, "abc", {1, 5}));
  EXPECT_TRUE(Makes(fixture, "abcab", {4, 7}));
  EXPECT_TRUE(Makes(fixture, "aaa", {1, 1, 1}));
}

// Of equal ones that whose last piece is longer.
TEST(UnigramTest, EqualScores) {
  EXPECT_TRUE(Makes({{{"a", -1}, {"b", -1}, {"ab", -2}}}, "ab", {3}));
  EXPECT_TRUE(Makes({{{"a", -1}, {"b", -1}, {"c", -1}, {"ab", -2}, {"bc", -2}}}, "abc", {1, 5}));
}

TEST(UnigramTest, UnknownCharactersAreOneToken) {
  const Fixture fixture = {{{"a", -1}, {"\u00e9\u00e9", -3}}};
  EXPECT_TRUE(Makes(fixture, "xy\u6d77", {0}));
  EXPECT_TRUE(Makes(fixture, "xyaxy", {0, 1, 0}));
  EXPECT_TRUE(Makes(fixture, "\u00e9\u00e9\u00e9", {0, 2}));
  EXPECT_TRUE(Makes(fixture, "<unk>a", {0, 1}));
}

// Where unknown characters are the more probable, the run may be an entry after all.
TEST(UnigramTest, ARunThatIsAnEntry) {
  const Fixture fixture = {.pieces = {{"xyz", 20}, {"a", 30}}, .unknown = 10};
  EXPECT_TRUE(Makes(fixture, "xyz", {1}));
  EXPECT_TRUE(Makes(fixture, "axyza", {2, 1, 2}));
  EXPECT_TRUE(Makes(fixture, "xyzx", {0}));
}

TEST(UnigramTest, BytesInPlaceOfUnknownOnes) {
  Fixture fixture = {.pieces = {{"a", -1}, {"<0xC3>", 0}, {"<0xA9>", 0}, {"<0x78>", 0}},
                     .byte_fallback = true};
  EXPECT_TRUE(Makes(fixture, "a\u00e9xa", {1, 2, 3, 4, 1}));
  EXPECT_TRUE(Makes(fixture, "\u00e9y", {0}));  // of a run either all bytes or none
  EXPECT_TRUE(Makes(fixture, "<0x78>", {4}));   // as Hugging Face has it
  fixture.byte_fallback = false;
  EXPECT_TRUE(Makes(fixture, "a\u00e9xa", {1, 0, 1}));
}

// SentencePiece's sums are of floats: there what is added may be lost.
TEST(UnigramTest, FloatSums) {
  Fixture fixture = {{{"a", -16777216}, {"b", -1}, {"bb", -1.5}}};
  EXPECT_TRUE(Makes(fixture, "abb", {1, 3}));
  fixture.pieces[2].second = -2.5;
  EXPECT_TRUE(Makes(fixture, "abb", {1, 2, 2}));
  fixture.float_sums = true;
  EXPECT_TRUE(Makes(fixture, "bb", {2, 2}));
  EXPECT_TRUE(Makes(fixture, "abb", {1, 2, 2}));
  fixture.pieces[2].second = -2;
  EXPECT_TRUE(Makes(fixture, "abb", {1, 2, 2}));
}

TEST(UnigramTest, WhatCannotBeIsRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::pair<Fixture, const char*> cases[] = {
      {{{{"a", INFINITY}}}, "entry 'a' has the score inf and id 1; allowed: finite, and 1"},
      {{{{"a", -INFINITY}}}, "entry 'a' has the score -inf and id 1"},
      {{{{std::string(513, 'a'), -1}}}, "has 513 bytes; allowed here: 512"}};
  for (const auto& [fixture, message] : cases) {
    const absl::Status status = Make(fixture).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(status.message()).find(message), std::string::npos) << status;
  }
  EXPECT_TRUE(Makes({{{std::string(512, 'a'), -1}, {"b", nan}, {std::string(600, 'c'), nan}}},
                    std::string(512, 'a') + "b", {1, 0}));
  BpeVocabulary turned;
  turned.unk_token = "a";
  turned.ids = {{"a", 1}, {"b", 0}};
  EXPECT_FALSE(Unigram::Make(turned, {.of_entries = {-1, -1}}, {}).ok());
  BpeVocabulary none;
  none.ids.Add("a", 0);
  EXPECT_FALSE(Unigram::Make(none, {.of_entries = {-1}}, {}).ok());
  none.unk_token = "a";
  EXPECT_FALSE(Unigram::Make(none, {.of_entries = {}}, {}).ok());
  EXPECT_TRUE(Unigram::Make(none, {.of_entries = {-1}}, {}).ok());
}

TEST(PieceTrieTest, WalksAllEntries) {
  Vocabulary vocabulary;
  const char* const texts[] = {"b", "ba", "abc", "abd", "a", "\u00e9", "\u00ea", "bab", "~"};
  std::vector<uint32_t> entries;
  for (const char* text : texts) {
    entries.push_back(static_cast<uint32_t>(entries.size()));
    vocabulary.Add(text, 0);
  }
  const absl::StatusOr<PieceTrie> trie = PieceTrie::Make(vocabulary, entries);
  ASSERT_TRUE(trie.ok()) << trie.status();
  for (size_t i = 0; i < std::size(texts); ++i) {
    uint32_t node = 0;
    for (const char* at = texts[i]; *at != '\0'; ++at) ASSERT_TRUE(trie->Step(*at, &node));
    EXPECT_EQ(trie->Entry(node), static_cast<int32_t>(i)) << texts[i];
    EXPECT_FALSE(trie->Step('x', &node));
  }
  uint32_t node = 0;
  EXPECT_EQ(trie->Entry(0), -1);
  ASSERT_TRUE(trie->Step('a', &node) && trie->Step('b', &node));
  EXPECT_EQ(trie->Entry(node), -1);
  node = 0;
  EXPECT_FALSE(PieceTrie().Step('a', &node));
}

// Entries with long beginnings in common are quickly made into a trie, or refused.
TEST(PieceTrieTest, LongBeginnings) {
  const auto make = [](size_t count, size_t different) {
    Vocabulary vocabulary;
    std::vector<uint32_t> entries;
    for (size_t i = 0; i < count; ++i) {
      std::string text = std::to_string(100'000 + i);
      text.insert(different, 500, 'a');
      vocabulary.Add(text, 0);
      entries.push_back(static_cast<uint32_t>(i));
    }
    return PieceTrie::Make(vocabulary, entries).status();
  };
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(make(10'000, 0).ok());
  EXPECT_NE(std::string(make(10'000, 6).message()).find("more than 4194304 different beginnings"),
            std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

TEST(UnigramStyleTest, Tokenize) {
  const auto tokenizer = OpenTokenizer(Folder());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectTokenizeGoldens(**tokenizer, Folder() + "/tokenize.jsonl");
  EXPECT_EQ((*tokenizer)->end_token_ids(), std::vector<int32_t>{1});
}

// No text becomes a control token, also where it is rewritten to one's content.
TEST(UnigramStyleTest, ControlTokensCannotBeForged) {
  const auto tokenizer = OpenTokenizer(Folder());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const bool special : {false, true}) {
    for (const char* text : {"\uff1c/s\uff1e", "x\uff1cpad>", "\uff1cunk\uff1e"}) {
      for (const int32_t id : ::sirocco::Ids(**tokenizer, text, special)) EXPECT_GT(id, 4) << text;
    }
  }
  EXPECT_EQ(::sirocco::Ids(**tokenizer, "</s>", true), std::vector<int32_t>{1});
  for (const int32_t id : ::sirocco::Ids(**tokenizer, "</s>", false)) EXPECT_GT(id, 4);
}

TEST(UnigramStyleTest, FilesAreChecked) {
  const json good = json::parse(ReadFile(Folder() + "/tokenizer.json"));
  struct Case {
    const char* pointer;
    json value;
    const char* message;
  };
  const Case cases[] = {
      {"/model/unk_id", nullptr,
       "model: no unk_id is not supported; supported: the id of an entry"},
      {"/model/unk_id", -1, "model.unk_id: id -1 is out of range"},
      {"/model/unk_id", 1256, "model.unk_id: 1256 is no entry; there are 1256"},
      {"/model/unk_id", "<unk>", "model.unk_id: no token id"},
      {"/model/byte_fallback", 1, "byte_fallback is neither true nor false"},
      {"/model/merges", json::array(), "model: merges in a Unigram model"},
      {"/model/vocab", json::array(), "there are 0"},
      {"/model/vocab", json::object(), "model.vocab: no array of texts and scores"},
      {"/model/vocab/3", "a", "vocabulary entry 3 is no pair of a text and a score"},
      {"/model/vocab/3", 3, "vocabulary entry 3 is no pair"},
      {"/model/vocab/3", json::array(), "vocabulary entry 3 is no pair"},
      {"/model/vocab/3", {"a"}, "vocabulary entry 3 is no pair"},
      {"/model/vocab/3", {1, "a"}, "vocabulary entry 3 is no pair"},
      {"/model/vocab/3", {"a", "b"}, "vocabulary entry 3 is no pair"},
      {"/model/vocab/3", {"a", 1, 2}, "vocabulary entry 4 is no pair"},
      {"/model/vocab/3", {"a", 1, "b", 2}, "vocabulary entry 4 is no pair"},
      {"/model/vocab/3", json::parse(R"(["a", [1]])"), "vocabulary entry 3 is no pair"},
      {"/model/vocab/3", json::parse(R"(["a", null])"), "vocabulary entry 3 is no pair"},
      {"/model/vocab/3", json::parse(R"(["a", {}])"), "vocabulary entry 3 is no pair"},
      {"/model/vocab/3", {"<pad>", 1}, "vocabulary entry '<pad>' is there twice"},
      {"/model/vocab/300/0", std::string(513, 'a'), "has 513 bytes; allowed here: 512"},
      {"/normalizer/normalizers/0/precompiled_charsmap", "AAA", "charsmap has no trie"},
      {"/normalizer/normalizers/0/precompiled_charsmap", "?", "is not in base 64"},
      {"/normalizer/normalizers/0/precompiled_charsmap", nullptr, "charsmap has no trie"},
      {"/normalizer/normalizers/0/new_flag", 1, "field 'new_flag'"},
      {"/pre_tokenizer", {{"type", "ByteLevel"}}, "ByteLevel before a Unigram model"},
      {"/pre_tokenizer/pretokenizers/0/new_flag", 1, "field 'new_flag'"}};
  for (const Case& c : cases) {
    json file = good;
    file[json::json_pointer(c.pointer)] = c.value;
    const absl::Status status = TokenizerFromJson(file.dump()).status();
    EXPECT_NE(std::string(status.message()).find(c.message), std::string::npos)
        << c.pointer << ": " << c.message << " / " << status;
  }
  json file = good;
  file["model"]["vocab"][300][1] = -3;  // an integer is a score, too
  EXPECT_TRUE(TokenizerFromJson(file.dump()).ok());
  const std::string text = good.dump();
  for (const char* score : {"1e999", "-1e999", "NaN"}) {
    std::string spoilt = text;
    spoilt.replace(spoilt.find("\"<unk>\",0.0") + 8, 3, score);
    EXPECT_FALSE(TokenizerFromJson(spoilt).ok()) << score;
  }
}

// A quadratic way would take minutes for each; tests/bench/tokenizer_bench.cc measures.
TEST(UnigramStyleTest, HostileTextTakesNoQuadraticTime) {
  json file = json::parse(ReadFile(Folder() + "/tokenizer.json"));
  // Pieces of one letter, as long as they may be: all are looked at from everywhere.
  for (size_t size = 2; size <= PieceTrie::kMaxPiece; size += 30) {
    file["model"]["vocab"].push_back({std::string(size, 'q'), -1.0 - static_cast<double>(size)});
  }
  const auto tokenizer = TokenizerFromJson(file.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const char* unit : {" ", "a", "q", "\r\n", " 1", "\u0301\u0327", "<extra_id_0", "\u2581"}) {
    std::string text;
    while (text.size() < 1 << 18) text += unit;
    text += "x";
    const auto start = std::chrono::steady_clock::now();
    const Ids ids = ::sirocco::Ids(**tokenizer, text, true);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)) << unit;
    EXPECT_FALSE(ids.empty()) << unit;
  }
}

}  // namespace
}  // namespace sirocco
