// JSON that came in a request: its size is bounded by the message; its nesting, how many values it
// holds, and its integers are checked here.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat/chat_template.h"

namespace sirocco {

inline constexpr int kMaxFieldDepth = 100;
// Of one object: the keys are kept in their order and looked up one by one.
inline constexpr int kMaxFieldKeys = 1024;
// In all fields of a request: two bytes of text may be a value of 32 in memory.
inline constexpr int64_t kMaxFieldValues = 131072;

enum class JsonKind { kObject, kArray };

// Keys in their order, integers as integers. Takes what it holds from `values_left`, which the
// fields of a request share; an empty list or object counts for two. INVALID_ARGUMENT names
// `field`: not JSON, not of that kind, beyond a bound above, or an integer that 64 bits cannot hold
// (it would silently become another number).
absl::StatusOr<OrderedJson> ParseJsonField(std::string_view field, std::string_view text,
                                           JsonKind kind, int64_t& values_left);

}  // namespace sirocco
