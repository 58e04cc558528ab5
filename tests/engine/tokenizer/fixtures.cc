#include "tests/engine/tokenizer/fixtures.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "engine/tokenizer/pipeline.h"
#include "engine/tokenizer/tokenizer_json.h"

namespace sirocco {

using nlohmann::json;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<json> ReadJsonLines(const std::string& path) {
  std::istringstream text(ReadFile(path));
  std::vector<json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
  EXPECT_FALSE(lines.empty()) << path;
  return lines;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromJson(const std::string& text) {
  absl::StatusOr<TokenizerParts> parts = ParseTokenizerJson(text);
  if (!parts.ok()) return parts.status();
  return MakeTokenizer(*std::move(parts));
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, std::string_view text, bool parse_special) {
  absl::StatusOr<std::vector<int32_t>> ids =
      tokenizer.Encode(text, {.add_special_tokens = false, .parse_special_tokens = parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status() << ": " << text;
  return ids.ok() ? *ids : std::vector<int32_t>{};
}

void ExpectTokenizeGoldens(const Tokenizer& tokenizer, const std::string& path) {
  for (const json& line : ReadJsonLines(path)) {
    const std::string text = line["text"];
    SCOPED_TRACE(text);
    const std::vector<int32_t> ids = line["ids"];
    EXPECT_EQ(Ids(tokenizer, text, true), ids);
    EXPECT_EQ(Ids(tokenizer, text, false), line.value("ids_plain", ids));
    if (line.contains("ids_special")) {
      absl::StatusOr<std::vector<int32_t>> special =
          tokenizer.Encode(text, {.add_special_tokens = true, .parse_special_tokens = true});
      ASSERT_TRUE(special.ok()) << special.status();
      EXPECT_EQ(*special, line["ids_special"].get<std::vector<int32_t>>());
    }
    const std::string decoded = line["decoded"];
    EXPECT_EQ(tokenizer.Decode(ids, false), decoded);
    EXPECT_EQ(tokenizer.Decode(ids, true), line.value("decoded_skip", decoded));
  }
}

FakeGguf FakeGguf::FromTokenizerJson(const json& tokenizer, const std::string& pre) {
  FakeGguf file;
  file.strings["tokenizer.ggml.model"] = "gpt2";
  file.strings["tokenizer.ggml.pre"] = pre;
  std::map<int32_t, std::pair<std::string, int64_t>> tokens;  // content and type by id
  for (const auto& [content, id] : tokenizer["model"]["vocab"].items()) tokens[id] = {content, 1};
  for (const json& added : tokenizer["added_tokens"]) {
    tokens[added["id"]] = {added["content"], added["special"] ? 3 : 4};
  }
  for (const auto& [id, token] : tokens) {
    file.string_lists["tokenizer.ggml.tokens"].push_back(token.first);
    file.int_lists["tokenizer.ggml.token_type"].push_back(token.second);
  }
  for (const json& merge : tokenizer["model"]["merges"]) {
    file.string_lists["tokenizer.ggml.merges"].push_back(merge[0].get<std::string>() + " " +
                                                         merge[1].get<std::string>());
  }
  return file;
}

namespace {

template <typename Map>
auto Find(const Map& map, std::string_view key) {
  const auto it = map.find(key);
  return it == map.end() ? std::nullopt : std::make_optional(it->second);
}

}  // namespace

std::optional<int64_t> FakeGguf::GetInt(std::string_view key) const { return Find(ints, key); }
std::optional<bool> FakeGguf::GetBool(std::string_view key) const { return Find(bools, key); }

std::optional<std::string_view> FakeGguf::GetString(std::string_view key) const {
  const auto it = strings.find(key);
  if (it == strings.end()) return std::nullopt;
  return it->second;
}

std::optional<std::vector<std::string_view>> FakeGguf::GetStrings(std::string_view key) const {
  const auto it = string_lists.find(key);
  if (it == string_lists.end()) return std::nullopt;
  return std::vector<std::string_view>(it->second.begin(), it->second.end());
}

std::optional<std::vector<int64_t>> FakeGguf::GetInts(std::string_view key) const {
  return Find(int_lists, key);
}

std::optional<std::vector<float>> FakeGguf::GetFloats(std::string_view key) const {
  return Find(float_lists, key);
}

std::optional<uint64_t> FakeGguf::GetArraySize(std::string_view key) const {
  if (const auto numbers = GetFloats(key)) return numbers->size();
  if (const auto texts = GetStrings(key)) return texts->size();
  if (const auto numbers = GetInts(key)) return numbers->size();
  return std::nullopt;
}

}  // namespace sirocco
