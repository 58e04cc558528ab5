// What the tokenizer tests share.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/gguf.h"
#include "engine/tokenizer/tokenizer.h"

namespace sirocco {

std::string ReadFile(const std::string& path);
std::vector<nlohmann::json> ReadJsonLines(const std::string& path);

// The tokenizer that a tokenizer.json with this text describes.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromJson(const std::string& text);

// The ids of a text to which nothing is added; fails the test where there are none.
std::vector<int32_t> Ids(const Tokenizer& tokenizer, std::string_view text, bool parse_special);

// Checks `ids`, `ids_special`, `ids_plain`, `decoded` and `decoded_skip` of a golden's
// tokenize.jsonl (their meaning stands in tests/goldens/tokenizers/README.md).
void ExpectTokenizeGoldens(const Tokenizer& tokenizer, const std::string& path);

// A GGUF file's metadata without the file.
class FakeGguf final : public GgufFile {
 public:
  // The tokenizer.json's vocabulary, merges and added tokens under GGUF's keys.
  static FakeGguf FromTokenizerJson(const nlohmann::json& tokenizer, const std::string& pre);

  std::map<std::string, int64_t, std::less<>> ints;
  std::map<std::string, bool, std::less<>> bools;
  std::map<std::string, std::string, std::less<>> strings;
  std::map<std::string, std::vector<std::string>, std::less<>> string_lists;
  std::map<std::string, std::vector<int64_t>, std::less<>> int_lists;
  std::map<std::string, std::vector<float>, std::less<>> float_lists;

  const std::string& path() const override { return path_; }
  uint32_t version() const override { return 3; }
  std::optional<int64_t> GetInt(std::string_view key) const override;
  std::optional<double> GetFloat(std::string_view) const override { return std::nullopt; }
  std::optional<bool> GetBool(std::string_view key) const override;
  std::optional<std::string_view> GetString(std::string_view key) const override;
  std::optional<std::vector<std::string_view>> GetStrings(std::string_view key) const override;
  std::optional<std::vector<int64_t>> GetInts(std::string_view key) const override;
  std::optional<std::vector<float>> GetFloats(std::string_view key) const override;
  std::optional<uint64_t> GetArraySize(std::string_view key) const override;
  std::vector<std::string_view> keys() const override { return {}; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }

 private:
  std::string path_ = "fake.gguf";
  std::vector<StoredTensor> tensors_;
};

}  // namespace sirocco
