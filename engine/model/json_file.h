// JSON of files that nobody vouches for: size, depth and memory are bounded, no key comes twice.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace sirocco {

inline constexpr int kMaxJsonDepth = 32;

// What a tree may take beside as many bytes as its text has. Text of three bytes can ask for a
// value of fifty; no file in use does so over megabytes.
inline constexpr uint64_t kMaxJsonOverhead = 24 << 20;

// A string, a number or white space of this size: what a parser's buffers may take.
inline constexpr size_t kMaxJsonToken = 4 << 20;

// Puts a tree together from a parser's events, and stops at the first thing that it may not hold.
class JsonTree {
 public:
  // `text_bytes`: of the text that is read.
  explicit JsonTree(uint64_t text_bytes) : memory_left_(text_bytes + kMaxJsonOverhead) {}

  // Each is false, or nullptr, where error() says why.
  bool Key(std::string key);
  nlohmann::json* Place(nlohmann::json value);
  bool Open(nlohmann::json container);
  bool Close();
  bool Fail(std::string error);

  const std::string& error() const { return error_; }
  const std::string& key() const { return key_; }
  nlohmann::json& root() { return root_; }
  // Containers that are open, outermost first.
  const std::vector<nlohmann::json*>& open() const { return open_; }

 private:
  uint64_t memory_left_;
  nlohmann::json root_;
  std::vector<nlohmann::json*> open_;
  std::string key_;
  std::string error_;
};

// INVALID_ARGUMENT names the place of a token of more than kMaxJsonToken bytes. To be asked before
// a parser sees the text.
absl::Status CheckJsonTokens(std::string_view text);

// INVALID_ARGUMENT names `path` and what is wrong: no JSON, no object, more than `most_bytes`, or
// another bound exceeded.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view path,
                                               uint64_t most_bytes);

// The same of a file; also MappedFile's errors.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path, uint64_t most_bytes);

// The object's value of this key; nullptr: there is none, or it is null.
const nlohmann::json* FindValue(const nlohmann::json& object, std::string_view key);

// An integer of int64's range; nullopt: anything else (a float of integral value too).
std::optional<int64_t> JsonInt(const nlohmann::json& value);

}  // namespace sirocco
