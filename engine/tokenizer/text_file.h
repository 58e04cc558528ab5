// A small file as a string.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace sirocco {

// MappedFile's errors, and INVALID_ARGUMENT where the file has more than `most` bytes.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t most);

}  // namespace sirocco
