// Bytes with provenance, and characters as Python sees them.
#include "engine/chat/text.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "engine/chat/print.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

TEST(TextTest, RunsMerge) {
  Text text("ab", true);
  text.Append("c", true);
  text.Append("", false);
  EXPECT_EQ(text.runs().size(), 1u);
  EXPECT_TRUE(text.trusted());
  text.Append("d", false);
  text.Append(Text("e", false));
  EXPECT_EQ(text.runs().size(), 2u);
  EXPECT_FALSE(text.trusted());
  EXPECT_EQ(text.bytes(), "abcde");
  EXPECT_TRUE(text.TrustedAt(2));
  EXPECT_FALSE(text.TrustedAt(3));
  EXPECT_TRUE(Text().trusted());
}

// Against one flag a byte.
TEST(TextTest, SlicesAndAppendsKeepProvenance) {
  std::mt19937 random(7);
  Text text;
  std::vector<bool> flags;
  for (int i = 0; i < 200; ++i) {
    const bool trusted = random() % 2 == 0;
    const size_t size = random() % 4;
    text.Append(std::string(size, 'x'), trusted);
    flags.insert(flags.end(), size, trusted);
  }
  for (int i = 0; i < 1000; ++i) {
    const size_t begin = random() % (text.size() + 1);
    const size_t end = begin + random() % (text.size() + 1 - begin);
    Text part("y", true);
    part.Append(text, begin, end);
    ASSERT_EQ(part.size(), 1 + end - begin);
    for (size_t at = begin; at < end; ++at) {
      ASSERT_EQ(part.TrustedAt(1 + at - begin), flags[at]) << begin << " " << end << " " << at;
    }
    const Text slice = text.Slice(begin, end);
    ASSERT_EQ(slice.size(), end - begin);
    size_t covered = 0;
    for (const Text::Run& run : slice.runs()) {
      ASSERT_GT(run.end, covered);
      covered = run.end;
    }
    ASSERT_EQ(covered, slice.size());
  }
}

TEST(UnicodeTest, Utf8) {
  EXPECT_TRUE(IsValidUtf8("aé\xF0\x9F\x98\x80\xEF\xBF\xBF"));
  for (const char* bad : {"\xFF", "\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xE2\x82", "\x80", "a\xF0\x9F\x98"}) {
    EXPECT_FALSE(IsValidUtf8(bad)) << bad;
  }
  const std::string text = "aé\xF0\x9F\x98\x80z";
  EXPECT_EQ(CountCharacters(text), 4u);
  EXPECT_EQ(CharacterOffset(text, 2), 3u);
  EXPECT_EQ(CharacterOffset(text, 9), text.size());
  EXPECT_EQ(CharacterAt(text, 3).code, 0x1F600);
  EXPECT_EQ(PreviousCharacter(text, 7), 3u);
}

TEST(UnicodeTest, FullCaseMappings) {
  const auto mapped = [](void (*append)(int32_t, std::string*), int32_t code) {
    std::string out;
    append(code, &out);
    return out;
  };
  EXPECT_EQ(mapped(AppendUpper, 0xDF), "SS");
  EXPECT_EQ(mapped(AppendTitle, 0xDF), "Ss");
  EXPECT_EQ(mapped(AppendUpper, 0x149), "ʼN");
  EXPECT_EQ(mapped(AppendLower, 0x130), "i\xCC\x87");
  EXPECT_EQ(mapped(AppendUpper, 0xE9), "É");
  EXPECT_EQ(mapped(AppendTitle, 0x1C6), "ǅ");
}

TEST(PrintTest, FloatsAsPythonWritesThem) {
  EXPECT_EQ(FloatRepr(0.1), "0.1");
  EXPECT_EQ(FloatRepr(1e15), "1000000000000000.0");
  EXPECT_EQ(FloatRepr(1e16), "1e+16");
  EXPECT_EQ(FloatRepr(-0.0), "-0.0");
  EXPECT_EQ(FloatRepr(0.00001), "1e-05");
  EXPECT_EQ(FloatRepr(123456789012345680.0), "1.2345678901234568e+17");
}

}  // namespace
}  // namespace sirocco::jinja
