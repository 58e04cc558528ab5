// JSON that came in a request: its size is bounded by the message, its nesting and its integers
// are checked here.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat/chat_template.h"

namespace sirocco {

inline constexpr int kMaxJsonDepth = 100;

enum class JsonKind { kObject, kArray };

// Keys in their order, integers as integers. INVALID_ARGUMENT names `field`: not JSON, not of that
// kind, nested deeper than kMaxJsonDepth, or an integer that 64 bits cannot hold (it would
// silently become another number).
absl::StatusOr<OrderedJson> ParseJsonField(std::string_view field, std::string_view text,
                                           JsonKind kind);

}  // namespace sirocco
