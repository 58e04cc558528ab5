#include "engine/tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace sirocco {
namespace {

using Kind = NormalizerStep::Kind;

const Normalizer kNfc({{.kind = Kind::kNfc}});

std::string Applied(const Normalizer& normalizer, std::string_view text) {
  const absl::StatusOr<std::string> result = normalizer.Apply(text);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.value_or("");
}

NormalizerStep Replace(const char* pattern, const char* text) {
  absl::StatusOr<Regex> compiled = Regex::Compile(pattern);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return {.kind = Kind::kReplace, .text = text, .pattern = *compiled};
}

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
  for (const auto& [text, expected] : cases) EXPECT_EQ(Applied(kNfc, text), expected) << text;
}

TEST(NormalizerTest, NoneChangesNothing) {
  const Normalizer none;
  EXPECT_EQ(Applied(none, "e\u0301"), "e\u0301");
  EXPECT_FALSE(none.changes_text());
  EXPECT_TRUE(kNfc.changes_text());
}

TEST(NormalizerTest, TrustFollowsTheCharacters) {
  const std::string text = "ae\u0301b";  // 5 bytes
  std::vector<bool> result;
  EXPECT_EQ(*kNfc.Apply(text, {true, true, true, true, false}, &result), "a\u00e9b");
  EXPECT_EQ(result, (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(*kNfc.Apply(text, {true, true, false, false, true}, &result), "a\u00e9b");
  EXPECT_EQ(result, (std::vector<bool>{true, false, false, true}));
}

TEST(NormalizerTest, TrustOfWhatIsWritten) {
  std::vector<bool> result;
  const Normalizer prepend({{.kind = Kind::kPrepend, .text = "__"}});
  EXPECT_EQ(*prepend.Apply("ab", {true, false}, &result), "__ab");
  EXPECT_EQ(result, (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(*prepend.Apply("ab", {false, true}, &result), "__ab");
  EXPECT_EQ(result, (std::vector<bool>{false, false, false, true}));
  const Normalizer replace({Replace("b+", "xyz")});
  EXPECT_EQ(*replace.Apply("abbc", {true, true, false, true}, &result), "axyzc");
  EXPECT_EQ(result, (std::vector<bool>{true, false, false, false, true}));
  const Normalizer strip({{.kind = Kind::kStrip, .left = true}});
  EXPECT_EQ(*strip.Apply(" a", {false, true}, &result), "a");
  EXPECT_EQ(result, (std::vector<bool>{true}));
}

TEST(NormalizerTest, OtherForms) {
  const Normalizer nfd({{.kind = Kind::kNfd}});
  const Normalizer nfkc({{.kind = Kind::kNfkc}});
  const Normalizer nfkd({{.kind = Kind::kNfkd}});
  EXPECT_EQ(Applied(nfd, "\u00e9\uac01\U00011938"), "e\u0301\u1100\u1161\u11a8\U00011938");
  EXPECT_EQ(Applied(nfkc, "\u00a0\u00b2\ufb01e\u0301\uff21"), " 2fi\u00e9A");
  EXPECT_EQ(Applied(nfkd, "\ufb01\u00e9"), "fie\u0301");
  // Decompositions of later versions of Unicode are not made, as in the reference.
  EXPECT_EQ(Applied(nfkc, "\u32ff\U0001fbf0"), "\u32ff\U0001fbf0");
}

TEST(NormalizerTest, StepsFollowEachOther) {
  const Normalizer normalizer({{.kind = Kind::kStrip, .left = true, .right = true},
                               {.kind = Kind::kLowercase},
                               Replace("  +", " "),
                               {.kind = Kind::kPrepend, .text = "<"}});
  EXPECT_EQ(Applied(normalizer, " \u3000\u0130 A    b\n "), "<i\u0307 a b");
  EXPECT_EQ(Applied(normalizer, "  \n"), "");  // nothing is put in front of nothing
}

TEST(NormalizerTest, TextThatGrowsTooMuchIsRefused) {
  const std::string content(60, 'a');
  const Normalizer normalizer({Replace("a", content.c_str()), Replace("a", content.c_str())});
  const absl::Status status = normalizer.Apply(std::string(1000, 'a')).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(Applied(normalizer, "b"), "b");
}

TEST(NormalizerTest, ManyMarksTakeNoQuadraticTime) {
  std::string text = "a";
  for (int i = 0; i < 200000; ++i) text += "\u0301\u0327";
  const auto start = std::chrono::steady_clock::now();
  const std::string result = Applied(kNfc, text);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  EXPECT_EQ(result.substr(0, 6), "\u00e1\u0327\u0327");
}

}  // namespace
}  // namespace sirocco
