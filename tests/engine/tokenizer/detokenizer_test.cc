#include "engine/tokenizer/detokenizer.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

// Ids are bytes; 256 is special, 257 is the text "<t>".
class ByteTokenizer final : public Tokenizer {
 public:
  ByteTokenizer() {
    for (int b = 0; b < 256; ++b) bytes_.push_back(static_cast<char>(b));
  }
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view,
                                              const TokenizerOptions&) const override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::vector<int32_t>> EncodeChat(const ProvenText&) const override {
    return absl::UnimplementedError("");
  }
  std::string_view TokenBytes(int32_t id) const override {
    if (id >= 0 && id < 256) return std::string_view(bytes_).substr(id, 1);
    return id == 256 ? "<s>" : id == 257 ? "<t>" : "";
  }
  bool IsSpecial(int32_t id) const override { return id == 256; }
  int32_t vocab_size() const override { return 258; }
  std::optional<int32_t> bos_token_id() const override { return std::nullopt; }
  std::vector<int32_t> end_token_ids() const override { return {}; }
  std::string_view bos_token() const override { return ""; }
  std::string_view eos_token() const override { return ""; }
  const std::optional<std::string>& chat_template() const override { return chat_template_; }

 private:
  std::string bytes_;
  std::optional<std::string> chat_template_;
};

std::vector<int32_t> Bytes(std::string_view text) {
  std::vector<int32_t> ids;
  for (char byte : text) ids.push_back(static_cast<uint8_t>(byte));
  return ids;
}

// Answers of Rust's String::from_utf8_lossy.
TEST(DetokenizerTest, ReplacesMaximalSubparts) {
  const ByteTokenizer tokenizer;
  const std::string r = "\uFFFD";
  const std::pair<std::string, std::string> cases[] = {
      {"plain \u00e9 \u65e5 \U0001f389", "plain \u00e9 \u65e5 \U0001f389"},
      {"\xC3", r},
      {"\xC3(", r + "("},
      {"\x80\x80", r + r},
      {"\xE6\x97", r},
      {"\xE6\x97x", r + "x"},
      {"\xF0\x9F\x8E", r},
      {"\xF0\x9F\x8E\xF0\x9F\x8E\x89", r + "\U0001f389"},
      {"\xC0\xAF", r + r},
      {"\xE0\x80\xAF", r + r + r},
      {"\xED\xA0\x80", r + r + r},
      {"\xF4\x90\x80\x80", r + r + r + r},
      {"\xF0\x80\x80\x80", r + r + r + r},
      {"\xFF\xFE", r + r},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
       "A",
       r + r + r + r + "A"},
  };
  for (const auto& [bytes, text] : cases) EXPECT_EQ(tokenizer.Decode(Bytes(bytes), false), text);
}

TEST(DetokenizerTest, HoldsBackUntilWhole) {
  const ByteTokenizer tokenizer;
  Detokenizer detokenizer(tokenizer, true, false);
  EXPECT_EQ(detokenizer.Append(0xF0), "");
  EXPECT_EQ(detokenizer.Append(0x9F), "");
  EXPECT_EQ(detokenizer.Append(256), "");  // skipped: the character goes on behind it
  EXPECT_EQ(detokenizer.Append(0x8E), "");
  EXPECT_EQ(detokenizer.Append(0x89), "\U0001f389");
  EXPECT_EQ(detokenizer.Append(0xE6), "");
  EXPECT_EQ(detokenizer.Append(257), "\uFFFD<t>");
  EXPECT_EQ(detokenizer.Append(0xC3), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(DetokenizerTest, UnknownIdsAreNoText) {
  const ByteTokenizer tokenizer;
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{-1, 'a', 258, 1 << 30}, false), "a");
}

// One U+FFFD for each maximal subpart, from the table of well-formed sequences (Unicode, 3-7).
std::string Lossy(const std::string& bytes) {
  const auto well_formed_prefix = [](const std::string& s) {
    const std::string tails[] = {std::string(3, '\x80'), "\xA0\x80\x80", "\x90\x80\x80"};
    for (size_t length = s.size(); length <= 4; ++length) {
      for (const std::string& tail : tails) {
        const std::string whole = s + tail.substr(0, length - s.size());
        const Utf8Unit unit = ScanUtf8(whole, 0);
        if (unit.kind == Utf8Unit::Kind::kValid && unit.length == whole.size()) return true;
      }
    }
    return false;
  };
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    size_t n = 1;
    while (i + n < bytes.size() && n < 4 && well_formed_prefix(bytes.substr(i, n + 1))) ++n;
    const Utf8Unit unit = ScanUtf8(bytes, i);
    out += unit.kind == Utf8Unit::Kind::kValid ? bytes.substr(i, unit.length) : "\uFFFD";
    i += unit.kind == Utf8Unit::Kind::kValid ? unit.length : n;
  }
  return out;
}

TEST(DetokenizerTest, PiecesAreTheWholeOnRandomBytes) {
  const ByteTokenizer tokenizer;
  std::mt19937 random(5);
  const uint8_t kBytes[] = {0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2, 0xE0,
                            0xE6, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF};
  for (int round = 0; round < 20000; ++round) {
    std::string bytes;
    for (size_t n = random() % 10; n > 0; --n) {
      bytes.push_back(static_cast<char>(kBytes[random() % std::size(kBytes)]));
    }
    Detokenizer detokenizer(tokenizer, false, false);
    std::string joined;
    for (int32_t id : Bytes(bytes)) {
      const std::string piece = detokenizer.Append(id);
      EXPECT_EQ(FindInvalidUtf8(piece), piece.size());
      joined += piece;
    }
    joined += detokenizer.Finish();
    ASSERT_EQ(joined, tokenizer.Decode(Bytes(bytes), false));
    ASSERT_EQ(joined, Lossy(bytes));
  }
}

TEST(Utf8Test, EveryCharacterGoesThereAndBack) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    ASSERT_EQ(FindInvalidUtf8(text), text.size()) << static_cast<uint32_t>(c);
    size_t pos = 0;
    ASSERT_EQ(ReadUtf8(text, &pos), c);
    ASSERT_EQ(pos, text.size());
    ASSERT_EQ(PreviousUtf8(text, pos), 0u);
  }
}

}  // namespace
}  // namespace sirocco
