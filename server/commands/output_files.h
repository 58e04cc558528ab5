// Files that a command reads and writes whole.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace sirocco {

absl::StatusOr<std::string> ReadFile(const std::string& path);

// Asked first: a file that cannot be written must not show after minutes of measuring. What is
// there stays as it is. An empty path is none, and fine.
absl::Status CheckWritable(const std::string& path);

// An empty path is none, and fine.
absl::Status WriteFile(const std::string& path, const std::string& text);

}  // namespace sirocco
