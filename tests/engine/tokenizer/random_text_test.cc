// Long random text of all that Unicode 14 assigns, against Hugging Face's tokenizers:
// tests/goldens/tokenizers/make_random.py made the answers, and shows any of them.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/gguf_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using nlohmann::json;
using Ranges = std::vector<std::pair<uint32_t, uint32_t>>;

// SplitMix64, as in make_random.py.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Below(uint64_t bound) {
    state_ += 0x9E3779B97F4A7C15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return (z ^ (z >> 31)) % bound;
  }

 private:
  uint64_t state_;
};

Ranges ReadRanges() {
  std::istringstream lines(ReadFile(GoldenPath("tokenizers/random/assigned.txt")));
  Ranges ranges;
  for (uint32_t first = 0, last = 0; lines >> std::hex >> first >> last;) {
    ranges.emplace_back(first, last);
  }
  EXPECT_GT(ranges.size(), 600u);
  return ranges;
}

char32_t AnyAssigned(const Ranges& ranges, Random& random) {
  uint64_t all = 0;
  for (const auto& [first, last] : ranges) all += last - first + 1;
  uint64_t at = random.Below(all);
  for (const auto& [first, last] : ranges) {
    if (at <= last - first) return static_cast<char32_t>(first + at);
    at -= last - first + 1;
  }
  return 0;
}

// A piece of make_random.py's `text`.
void AppendPiece(const Ranges& ranges, const std::vector<std::string>& words, Random& random,
                 std::string* out) {
  static const char* const kSpaces[] = {" ",    "  ",  "\n",     "\t",    "\r\n",
                                        "\n\n", "   ", "\u00a0", "\u3000"};
  const uint64_t kind = random.Below(16);
  if (kind < 4) {
    std::string word;
    for (uint64_t n = 1 + random.Below(9); n > 0; --n) word += "etaoinshrdlu"[random.Below(12)];
    const bool upper = random.Below(4) == 0;
    for (const char c : word) *out += static_cast<char>(upper ? c - 'a' + 'A' : c);
  } else if (kind == 4) {
    for (uint64_t n = 1 + random.Below(6); n > 0; --n)
      *out += static_cast<char>('0' + random.Below(10));
  } else if (kind < 7) {
    *out += kSpaces[random.Below(std::size(kSpaces))];
  } else if (kind == 7) {
    *out += static_cast<char>(33 + random.Below(94));
  } else if (kind < 13) {
    const auto& [first, last] = ranges[random.Below(ranges.size())];
    for (uint64_t n = 1 + random.Below(8); n > 0; --n) {
      AppendUtf8(static_cast<char32_t>(first + random.Below(last - first + 1)), out);
    }
  } else if (kind == 13) {
    AppendUtf8(AnyAssigned(ranges, random), out);
  } else if (kind == 14) {
    AppendUtf8(static_cast<char32_t>(0x300 + random.Below(0x70)), out);
  } else {
    *out += words[random.Below(words.size())];
  }
}

std::string Text(uint64_t seed, const Ranges& ranges, const std::vector<std::string>& words) {
  Random random(seed);
  std::string text;
  for (int i = 0; i < 300; ++i) AppendPiece(ranges, words, random, &text);
  return text;
}

std::string Fnv(std::string_view bytes) {
  uint64_t value = 0xCBF29CE484222325;
  for (const char byte : bytes) value = (value ^ static_cast<uint8_t>(byte)) * 0x100000001B3;
  return absl::StrCat(absl::Hex(value, absl::kZeroPad16));
}

std::string Fnv(const std::vector<int32_t>& ids) {
  std::string bytes;
  for (const int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(id >> shift));
  }
  return Fnv(bytes);
}

void ExpectCases(const Tokenizer& tokenizer, const Ranges& ranges, const json& line) {
  const std::vector<std::string> words = line["words"];
  for (size_t seed = 0; seed < line["cases"].size(); ++seed) {
    SCOPED_TRACE(seed);
    const json& expected = line["cases"][seed];
    const std::string text = Text(seed, ranges, words);
    const std::vector<int32_t> ids = Ids(tokenizer, text, true);
    EXPECT_EQ(ids.size(), expected[0].get<size_t>());
    EXPECT_EQ(Fnv(ids), expected[1].get<std::string>());
    EXPECT_EQ(Fnv(Ids(tokenizer, text, false)), expected[2].get<std::string>());
    EXPECT_EQ(Fnv(tokenizer.Decode(ids, false)), expected[3].get<std::string>());
  }
}

TEST(RandomTextTest, AgreesWithTheReference) {
  const Ranges ranges = ReadRanges();
  size_t lines = 0;
  for (const json& line : ReadJsonLines(GoldenPath("tokenizers/random/cases.jsonl"))) {
    const std::string folder = line["tokenizer"];
    SCOPED_TRACE(absl::StrCat("line ", lines++, ", ", folder));
    json file = json::parse(ReadFile(GoldenPath("tokenizers/" + folder + "/tokenizer.json")));
    for (const auto& [pointer, value] : line["set"].items()) {
      file[json::json_pointer(pointer)] = value;
    }
    const auto tokenizer = TokenizerFromJson(file.dump());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    ExpectCases(**tokenizer, ranges, line);
    if (!line.contains("pre")) continue;
    SCOPED_TRACE(line["pre"].get<std::string>());
    auto parts = ParseGgufTokenizer(FakeGguf::FromTokenizerJson(file, line["pre"]));
    ASSERT_TRUE(parts.ok()) << parts.status();
    const auto from_gguf = MakeTokenizer(*std::move(parts));
    ASSERT_TRUE(from_gguf.ok()) << from_gguf.status();
    ExpectCases(**from_gguf, ranges, line);
  }
  EXPECT_GE(lines, 36u);
}

}  // namespace
}  // namespace sirocco
