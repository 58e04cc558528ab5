// The escapes of string literals.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sirocco::jinja {

// Python's escapes (\n, \x41, \u00e9, \101, ...); unknown ones stay as they are written. `content`
// is what stands between the quotes. INVALID_ARGUMENT: a truncated escape, or a surrogate.
absl::StatusOr<std::string> ResolveEscapes(std::string_view content);

}  // namespace sirocco::jinja
