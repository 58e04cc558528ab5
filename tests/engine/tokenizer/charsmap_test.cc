#include "engine/tokenizer/charsmap.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/graphemes.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

// A charsmap of these keys, each with the place of its text in `texts`. Children of a node have a
// block of 256 units of their own, whose first is the node's value.
std::string Bytes(const std::map<std::string, uint32_t>& keys, const std::string& texts) {
  std::vector<uint32_t> units(256);
  std::map<std::string, uint32_t> blocks = {{"", 0}};  // by beginning
  const auto place_of = [&](const std::string& beginning) {
    const auto last = static_cast<uint8_t>(beginning.back());
    return blocks.at(beginning.substr(0, beginning.size() - 1)) ^ last;
  };
  for (const auto& [key, value] : keys) {
    for (size_t size = 1; size <= key.size(); ++size) {
      const std::string beginning = key.substr(0, size);
      const auto block = static_cast<uint32_t>(units.size());
      if (!blocks.emplace(beginning, block).second) continue;
      units.resize(units.size() + 256);
      const uint32_t place = place_of(beginning);
      units[place] = (place ^ block) << 10 | static_cast<uint8_t>(beginning.back());
    }
    units[place_of(key)] |= 0x100;
    units[blocks.at(key)] = 0x80000000 | value;
  }
  std::string bytes;
  const auto append = [&bytes](uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(value >> shift));
  };
  append(static_cast<uint32_t>(4 * units.size()));
  for (const uint32_t unit : units) append(unit);
  return bytes + texts;
}

std::shared_ptr<const Charsmap> Parsed(const std::string& bytes) {
  absl::StatusOr<std::shared_ptr<const Charsmap>> map = Charsmap::Parse(bytes);
  EXPECT_TRUE(map.ok()) << map.status();
  return map.ok() ? *map : nullptr;
}

std::string Applied(NormalizerStep step, std::string_view text) {
  std::vector<NormalizerStep> steps;
  steps.push_back(std::move(step));
  const absl::StatusOr<std::string> result = Normalizer(std::move(steps)).Apply(text);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.value_or("");
}

const char kTexts[] = "x\0two\0\xC3\xA9\0";  // x at 0, two at 2, e with an accent at 6
std::string Texts() { return {kTexts, sizeof(kTexts) - 1}; }

TEST(CharsmapTest, FindsTheShortestAndTheLongest) {
  const auto map = Parsed(Bytes({{"a", 0}, {"abc", 2}, {"e\u0301", 6}, {"z", 1}}, Texts()));
  ASSERT_NE(map, nullptr);
  EXPECT_EQ(map->Shortest("abcd")->length, 1u);
  EXPECT_EQ(map->Shortest("abcd")->written, "x");
  EXPECT_EQ(map->Longest("abcd")->length, 3u);
  EXPECT_EQ(map->Longest("abcd")->written, "two");
  EXPECT_EQ(map->Longest("abd")->written, "x");
  EXPECT_EQ(map->Longest("e\u0301")->written, "\u00e9");
  EXPECT_EQ(map->Longest("z")->written, "");
  for (const char* none : {"", "b", "e", "e\u0302", "\u00e9"}) {
    EXPECT_FALSE(map->Longest(none)) << none;
    EXPECT_FALSE(map->Shortest(none)) << none;
  }
  EXPECT_EQ(map->Longest(std::string_view("a\0bc", 4))->written, "x");
}

TEST(CharsmapTest, WhatIsNoCharsmapIsRefused) {
  const std::string good = Bytes({{"a", 0}}, Texts());
  const std::pair<std::string, const char*> cases[] = {
      {"", "no trie of 0 bytes in its 0"},
      {"abc", "no trie of 0 bytes in its 3"},
      {std::string(8, '\0'), "no trie of 0 bytes in its 8"},
      {std::string("\x06\0\0\0abcdef", 10), "no trie of 6 bytes in its 10"},
      {std::string("\x08\0\0\0abcd", 8), "no trie of 8 bytes in its 8"},
      {std::string("\xff\xff\xff\xff", 4), "no trie of 4294967295 bytes"},
      {good + "\xff", "texts not in UTF-8"},
      {good + std::string(65, 'a'), "a text of 65 bytes; allowed: 64"},
      {std::string(Charsmap::kMaxBytes + 1, '\0'), "allowed: 3145728"}};
  for (const auto& [bytes, message] : cases) {
    const absl::Status status = Charsmap::Parse(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(status.message()).find(message), std::string::npos)
        << message << " / " << status;
  }
  EXPECT_TRUE(Charsmap::Parse(good + std::string(64, 'a')).ok());
}

// What is rewritten stays valid UTF-8, whatever the map says.
TEST(CharsmapTest, PlacesThatAreNoneAreNoRule) {
  const std::pair<std::map<std::string, uint32_t>, const char*> cases[] = {
      {{{"a", 999}}, "a"},         // behind the texts
      {{{"a", 7}}, "a"},           // within a character
      {{{"\xC3", 0}}, "\u00e9"}};  // a key that ends within one
  for (const auto& [keys, text] : cases) {
    const auto map = Parsed(Bytes(keys, Texts()));
    ASSERT_NE(map, nullptr);
    EXPECT_FALSE(map->Longest(text)) << text;
    EXPECT_FALSE(map->Shortest(text)) << text;
  }
  // Units behind the trie.
  std::string bytes = Bytes({{"a", 0}}, Texts());
  for (size_t at = 4; at < bytes.size() - Texts().size(); ++at) {
    std::string spoilt = bytes;
    spoilt[at] = static_cast<char>(spoilt[at] ^ 0xFF);
    const auto map = Charsmap::Parse(spoilt);
    if (map.ok()) (*map)->Longest("ab");
  }
}

TEST(CharsmapTest, ThoseWhoApplyIt) {
  const auto map = Parsed(Bytes({{"a", 0}, {"ab", 2}, {"e\u0301", 6}, {"\r", 0}}, Texts()));
  ASSERT_NE(map, nullptr);
  const NormalizerStep sentencepiece{.kind = NormalizerStep::Kind::kCharsmap, .charsmap = map};
  const NormalizerStep hugging_face{.kind = NormalizerStep::Kind::kPrecompiled, .charsmap = map};
  // Text, what SentencePiece and what Hugging Face makes of it.
  const char* const cases[][3] = {
      {"", "", ""},
      {"aabc", "xtwoc", "xxbc"},           // letters are graphemes of their own
      {"e\u0301e", "\u00e9e", "\u00e9e"},  // a grapheme of three bytes
      {"a\u0301b", "x\u0301b", "xb"},      // a mark goes with what it stands on
      {"a\u0301\u0301", "x\u0301\u0301", "x"},
      {"a\u0301\u0301\u0301", "x\u0301\u0301\u0301", "x\u0301\u0301\u0301"},  // longer
      {"e\u0301\u0327\u0323", "\u00e9\u0327\u0323", "e\u0301\u0327\u0323"},
      {"\r\n", "x\n", "x"}};
  for (const auto& [text, one, other] : cases) {
    EXPECT_EQ(Applied(sentencepiece, text), one) << text;
    EXPECT_EQ(Applied(hugging_face, text), other) << text;
  }
  NormalizerStep keeping = sentencepiece;
  Vocabulary kept = {{"ba", 0}, {"bab", 1}};
  keeping.kept = std::make_shared<const PieceTrie>(*PieceTrie::Make(kept, {0, 1}));
  EXPECT_EQ(Applied(keeping, "abaxbaba"), "twoxxbabx");
}

TEST(CharsmapTest, TrustFollowsWhatIsWritten) {
  const auto map = Parsed(Bytes({{"ab", 2}}, Texts()));
  ASSERT_NE(map, nullptr);
  const Normalizer normalizer({{.kind = NormalizerStep::Kind::kCharsmap, .charsmap = map}});
  std::vector<bool> trusted;
  EXPECT_EQ(*normalizer.Apply("cabab", {true, true, true, true, false}, &trusted), "ctwotwo");
  EXPECT_EQ(trusted, (std::vector<bool>{true, true, true, true, false, false, false}));
}

TEST(CharsmapTest, LongTextsOfOneGraphemeTakeLinearTime) {
  const auto map = Parsed(Bytes({{"a", 0}}, Texts()));
  std::string text = "a";
  while (text.size() < 1 << 20) text += "\u0301";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Applied({.kind = NormalizerStep::Kind::kPrecompiled, .charsmap = map}, text)[0], 'x');
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

// Beside these, random text compares all graphemes of up to five bytes with the reference.
TEST(GraphemesTest, Ends) {
  const std::vector<std::string> clusters[] = {
      {"a", "b"},
      {"a\u0301\u0327", "b"},
      {"\r\n", "\n", "\r", "x"},
      {"\u1112\u1161\u11ab", "\u1100"},
      {"\U0001f469\u200d\U0001f467", "\U0001f466"},
      {"\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"},
      {"\u0915\u094d\u0937", "\u0915"},              // a conjunct
      {"\u0915\u094d\u200d\u0937\u0308", "\u0915"},  // with marks among its parts
      {"\u0915\u094d\u200c", "\u0937"},              // a non-joiner ends it
      {"\u0bb2\u0bcd", "\u0bb2"}};                   // Tamil has none
  for (const std::vector<std::string>& parts : clusters) {
    std::string text;
    for (const std::string& part : parts) text += part;
    size_t pos = 0;
    for (const std::string& part : parts) {
      const size_t end = GraphemeEnd(text, pos);
      EXPECT_EQ(text.substr(pos, end - pos), part);
      pos = end;
    }
  }
}

}  // namespace
}  // namespace sirocco
