// JSON of files that nobody vouches for: size, depth and the number of values are bounded, no key
// comes twice.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sirocco {

inline constexpr int kMaxJsonDepth = 32;

struct JsonLimits {
  uint64_t bytes = 0;
  uint64_t values = 0;  // scalars, arrays and objects; each takes some 100 bytes of memory
};

// INVALID_ARGUMENT names `path` and what is wrong: no JSON, no object, a bound exceeded.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view path,
                                               const JsonLimits& limits);

// The same of a file; also MappedFile's errors.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path, const JsonLimits& limits);

// The object's value of this key; nullptr: there is none, or it is null.
const nlohmann::json* FindValue(const nlohmann::json& object, std::string_view key);

// An integer of int64's range; nullopt: anything else (a float of integral value too).
std::optional<int64_t> JsonInt(const nlohmann::json& value);

}  // namespace sirocco
