// Errors about a file's contents: always one line, whatever bytes the file holds.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace sirocco {

// `text` of a file, for an error message: in quotes, escaped, cut after 80 bytes.
std::string Shown(std::string_view text);

// INVALID_ARGUMENT "path: what"; the file is malformed.
absl::Status InvalidFile(std::string_view path, std::string_view what);
// UNIMPLEMENTED "path: what"; well-formed, but not supported. `what` says what is.
absl::Status UnsupportedFile(std::string_view path, std::string_view what);

}  // namespace sirocco
