#include "engine/tokenizer/regex.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/tokenizer/oniguruma.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

absl::StatusOr<Regex> CompileOniguruma(const std::string& pattern) {
  absl::StatusOr<std::string> translated = TranslateOniguruma(pattern);
  if (!translated.ok()) return translated.status();
  return Regex::Compile(*translated);
}

std::vector<std::string> Matches(const Regex& regex, std::string_view text) {
  std::vector<std::string> matches;
  Regex::Finder finder(regex);
  finder.Start(text);
  while (true) {
    auto span = finder.Next();
    EXPECT_TRUE(span.ok()) << span.status();
    if (!span.ok() || !span->has_value()) return matches;
    matches.emplace_back(text.substr((*span)->begin, (*span)->end - (*span)->begin));
  }
}

// PCRE2's own \s has U+180E too.
TEST(OnigurumaTest, WhiteSpaceIsThePropertyOnEveryCharacter) {
  absl::StatusOr<Regex> space = CompileOniguruma(R"(\s)");
  absl::StatusOr<Regex> other = CompileOniguruma(R"([\S])");
  ASSERT_TRUE(space.ok() && other.ok());
  size_t count = 0;
  for (char32_t first = 0; first < 0x110000; first += 0x1000) {
    std::string text;
    std::vector<std::string> spaces, others;
    for (char32_t c = first; c < first + 0x1000; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      std::string character;
      AppendUtf8(c, &character);
      text += character;
      (IsWhiteSpace(c) ? spaces : others).push_back(character);
    }
    ASSERT_EQ(Matches(*space, text), spaces) << static_cast<uint32_t>(first);
    ASSERT_EQ(Matches(*other, text), others) << static_cast<uint32_t>(first);
    count += spaces.size();
  }
  EXPECT_EQ(count, 25u);
}

TEST(OnigurumaTest, RefusesWhatWouldMeanSomethingElse) {
  const std::pair<std::string, std::string> cases[] = {
      {R"(a\h)", R"(\\h at offset 1)"},
      {"(?i)a", "(?i) at offset 0"},
      {"(?<n>a)", "(?<n at offset 0"},
      {R"(\p{N}{1,3}+)", "{1,3}+ at offset 5"},
      {"a{2}?", "{2}? at offset 1"},
      {"a{,3}", "this brace at offset 1"},
      {"a**", "a quantifier without an operand at offset 2"},
      {"[a&&b]", "a set operation in a class at offset 2"},
      {"[a[bc]]", "a set operation in a class at offset 2"},
      {"[[:alpha:]]", "a set operation in a class at offset 1"},
      {"[]a]", "an empty or open class at offset 0"},
      {"[a", "an empty or open class at offset 0"},
      {R"([a-\s])", "a range to a set at offset 3"},
      {R"([\s-a])", "a hyphen without a range at offset 3"},
      {"(?i:stop)", "'st' under (?i: at offset 5"},
      {"(?i:\u00e9)", "a character beyond ASCII under (?i: at offset 4"},
      {R"((?i:\p{Lu}))", "a property under (?i: at offset 4"},
      {R"(\p{Emoji})", "property 'Emoji' at offset 0"},
      {R"(\xE9)", "this escaped code point at offset 0"},
      {R"(\bword)", R"(\\b at offset 0)"},
      {R"((a)\1)", R"(\\1 at offset 3)"},
      {R"(\)", "a lone backslash at offset 0"},
      {R"(\p)", "a property without braces at offset 0"},
  };
  for (const auto& [pattern, what] : cases) {
    const absl::Status status = TranslateOniguruma(pattern).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << pattern;
    std::string expected = what;
    if (expected.substr(0, 2) == "\\\\") expected.erase(0, 1);
    EXPECT_NE(std::string(status.message()).find("regex: " + expected), std::string::npos)
        << pattern << ": " << status;
  }
  EXPECT_EQ(TranslateOniguruma("\xff").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RegexTest, SyntaxErrorsAndEmptyMatchesAreRefused) {
  for (const char* pattern : {"(a", "a)", "[b-a]", "(?<=a+)b"}) {
    EXPECT_EQ(CompileOniguruma(pattern).status().code(), absl::StatusCode::kInvalidArgument)
        << pattern;
  }
  for (const char* pattern : {"a*", "", "a|", "(?=a)"}) {
    EXPECT_EQ(CompileOniguruma(pattern).status().code(), absl::StatusCode::kInvalidArgument)
        << pattern;
  }
  EXPECT_FALSE(Regex::CompileLiteral("").ok());
}

TEST(RegexTest, LiteralsAreNoPatterns) {
  absl::StatusOr<Regex> literal = Regex::CompileLiteral("a.(");
  ASSERT_TRUE(literal.ok()) << literal.status();
  EXPECT_EQ(Matches(*literal, "a.(abca.("), (std::vector<std::string>{"a.(", "a.("}));
}

// Matches are found wherever they stand: the search goes on in stretches.
TEST(RegexTest, FindsFarAway) {
  absl::StatusOr<Regex> regex = CompileOniguruma("(?<=\u00e9)x");
  ASSERT_TRUE(regex.ok()) << regex.status();
  for (size_t distance = 0; distance < 300; ++distance) {
    std::string text;
    for (size_t i = 0; i < distance; ++i) text += "\u65e5";
    EXPECT_EQ(Matches(*regex, text + "x\u00e9xx").size(), 1u) << distance;
  }
}

TEST(RegexTest, EndlessBacktrackingIsAnError) {
  absl::StatusOr<Regex> regex = CompileOniguruma("(a+)+b");
  ASSERT_TRUE(regex.ok());
  Regex::Finder finder(*regex);
  const std::string text = std::string(10000, 'a') + "cb";
  finder.Start(text);
  EXPECT_EQ(finder.Next().status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace sirocco
