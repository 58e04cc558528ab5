#include "server/api/json.h"

#include <gtest/gtest.h>

namespace sirocco {
namespace {

std::string Nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(ParseJsonField, KeepsOrderAndIntegers) {
  const std::string text =
      R"({"z":1,"a":-9223372036854775808,"m":18446744073709551615,"f":1.0,"s":"99999999999999999999"})";
  const auto json = ParseJsonField("f", text, JsonKind::kObject);
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->dump(), text);
}

TEST(ParseJsonField, NamesWhatIsWrong) {
  const struct {
    std::string text;
    JsonKind kind;
    std::string message;
  } cases[] = {
      {"{", JsonKind::kObject, "f: is not valid JSON at byte 2; allowed: a JSON object"},
      {"[1,]", JsonKind::kArray, "f: is not valid JSON at byte 4; allowed: a JSON array"},
      {"[]", JsonKind::kObject, "f: is a JSON array; allowed: a JSON object"},
      {"{}", JsonKind::kArray, "f: is a JSON object; allowed: a JSON array"},
      {"7", JsonKind::kArray, "f: is a JSON number; allowed: a JSON array"},
      {Nested(kMaxJsonDepth + 1), JsonKind::kArray, "f: is nested too deeply; allowed: 100"},
      {std::string(1'000'000, '['), JsonKind::kArray, "f: is nested too deeply; allowed: 100"},
      {"[18446744073709551616]", JsonKind::kArray,
       "f: holds the integer 18446744073709551616; allowed: integers of 64 bits"},
      {"[-9223372036854775809]", JsonKind::kArray,
       "f: holds the integer -9223372036854775809; allowed: integers of 64 bits"},
      {"[1e999]", JsonKind::kArray, "f: holds a number out of range; allowed: a JSON array"},
      {R"(["\ud800"])", JsonKind::kArray, "f: is not valid JSON at byte 9; allowed: a JSON array"},
  };
  for (const auto& [text, kind, message] : cases) {
    const auto json = ParseJsonField("f", text, kind);
    EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 40);
    EXPECT_EQ(std::string(json.status().message()), message);
  }
}

TEST(ParseJsonField, BracketsAndDigitsInStringsAreText) {
  const std::string text = R"(["[[[\"{{", "123456789012345678901234567890", "\\"])";
  EXPECT_TRUE(ParseJsonField("f", text, JsonKind::kArray).ok());
  EXPECT_TRUE(ParseJsonField("f", Nested(kMaxJsonDepth), JsonKind::kArray).ok());
}

}  // namespace
}  // namespace sirocco
