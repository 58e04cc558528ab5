#include "engine/tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace sirocco {
namespace {

const Normalizer kNfc(Normalizer::Form::kNfc);

TEST(NormalizerTest, Nfc) {
  const std::pair<std::string, std::string> cases[] = {
      {"", ""},
      {"plain text", "plain text"},
      {"\u00e9", "\u00e9"},
      {"e\u0301x", "\u00e9x"},
      {"q\u0307\u0323", "q\u0323\u0307"},  // marks in canonical order
      {"d\u0307\u0323", "\u1e0d\u0307"},
      {"\u212b\u2126", "\u00c5\u03a9"},                    // singletons
      {"\u0958", "\u0915\u093c"},                          // excluded from composition
      {"\u1100\u1161\u11a8\uac00\u11a8", "\uac01\uac01"},  // Hangul
      {"\u0344", "\u0308\u0301"},
      {"\u0301a", "\u0301a"},
      {"a\u0301\u0301", "\u00e1\u0301"},
      // Marks of later versions of Unicode stop composition, as in the reference.
      {"e\u1abf\u0301", "e\u1abf\u0301"},
      {"x\U0001e2ec\u0327", "x\U0001e2ec\u0327"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(kNfc.Apply(text), expected) << text;
}

TEST(NormalizerTest, NoneChangesNothing) {
  const Normalizer none(Normalizer::Form::kNone);
  EXPECT_EQ(none.Apply("e\u0301"), "e\u0301");
  EXPECT_FALSE(none.changes_text());
  EXPECT_TRUE(kNfc.changes_text());
}

TEST(NormalizerTest, TrustFollowsTheCharacters) {
  const std::string text = "ae\u0301b";  // 5 bytes
  std::vector<bool> result;
  EXPECT_EQ(kNfc.Apply(text, {true, true, true, true, false}, &result), "a\u00e9b");
  EXPECT_EQ(result, (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(kNfc.Apply(text, {true, true, false, false, true}, &result), "a\u00e9b");
  EXPECT_EQ(result, (std::vector<bool>{true, false, false, true}));
}

TEST(NormalizerTest, ManyMarksTakeNoQuadraticTime) {
  std::string text = "a";
  for (int i = 0; i < 200000; ++i) text += "\u0301\u0327";
  const auto start = std::chrono::steady_clock::now();
  const std::string result = kNfc.Apply(text);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  EXPECT_EQ(result.substr(0, 6), "\u00e1\u0327\u0327");
}

}  // namespace
}  // namespace sirocco
