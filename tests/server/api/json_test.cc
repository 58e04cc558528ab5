#include "server/api/json.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace sirocco {
namespace {

std::string Nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

absl::StatusOr<OrderedJson> Parse(std::string_view text, JsonKind kind) {
  int64_t values_left = kMaxFieldValues;
  return ParseJsonField("f", text, kind, values_left);
}

std::string Keys(int count) {
  std::string text = "{";
  for (int i = 0; i < count; ++i) text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":{}";
  return text + "}";
}

std::string Zeros(int64_t count) {
  std::string text = "[0";
  for (int64_t i = 1; i < count; ++i) text += ",0";
  return text + "]";
}

TEST(ParseJsonField, KeepsOrderAndIntegers) {
  const std::string text =
      R"({"z":1,"a":-9223372036854775808,"m":18446744073709551615,"f":1.0,"s":"99999999999999999999"})";
  const auto json = Parse(text, JsonKind::kObject);
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
      {Nested(kMaxFieldDepth + 1), JsonKind::kArray, "f: is nested too deeply; allowed: 100"},
      {std::string(1'000'000, '['), JsonKind::kArray, "f: is nested too deeply; allowed: 100"},
      {Keys(kMaxFieldKeys + 1), JsonKind::kObject,
       "f: has an object of too many keys; allowed: 1024"},
      {Zeros(kMaxFieldValues), JsonKind::kArray,
       "f: holds too many values, with those of other fields; allowed: 131072"},
      {"]]],::[", JsonKind::kArray, "f: is not valid JSON at byte 1; allowed: a JSON array"},
      {"[18446744073709551616]", JsonKind::kArray,
       "f: holds the integer 18446744073709551616; allowed: integers of 64 bits"},
      {"[-9223372036854775809]", JsonKind::kArray,
       "f: holds the integer -9223372036854775809; allowed: integers of 64 bits"},
      {"[1e999]", JsonKind::kArray, "f: holds a number out of range; allowed: a JSON array"},
      {R"(["\ud800"])", JsonKind::kArray, "f: is not valid JSON at byte 9; allowed: a JSON array"},
  };
  for (const auto& [text, kind, message] : cases) {
    const auto json = Parse(text, kind);
    EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 40);
    EXPECT_EQ(std::string(json.status().message()), message);
  }
}

TEST(ParseJsonField, BracketsAndDigitsInStringsAreText) {
  const std::string text = R"(["[[[\"{{", "123456789012345678901234567890", "\\"])";
  EXPECT_TRUE(Parse(text, JsonKind::kArray).ok());
  EXPECT_TRUE(Parse(Nested(kMaxFieldDepth), JsonKind::kArray).ok());
}

// Of the list itself and its elements.
TEST(ParseJsonField, UpToTheBounds) {
  EXPECT_TRUE(Parse(Zeros(kMaxFieldValues - 1), JsonKind::kArray).ok());
  const auto object = Parse(Keys(kMaxFieldKeys), JsonKind::kObject);
  ASSERT_TRUE(object.ok()) << object.status();
  EXPECT_EQ(object->size(), kMaxFieldKeys);
  // Keys count for each object alone.
  const std::string list = "[" + Keys(kMaxFieldKeys) + "," + Keys(kMaxFieldKeys) + "]";
  EXPECT_TRUE(Parse(list, JsonKind::kArray).ok());
}

TEST(ParseJsonField, FieldsShareTheirValues) {
  int64_t values_left = 7;
  EXPECT_TRUE(ParseJsonField("f", "[1,2,3]", JsonKind::kArray, values_left).ok());
  EXPECT_EQ(values_left, 3);
  EXPECT_TRUE(ParseJsonField("g", R"({"a,:[{":"[[,,"})", JsonKind::kObject, values_left).ok());
  EXPECT_EQ(values_left, 1);
  EXPECT_FALSE(ParseJsonField("h", "[1]", JsonKind::kArray, values_left).ok());
}

}  // namespace
}  // namespace sirocco
