// Certificates, keys and tokens: small files, read whole.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sirocco {

// `key`: what of the configuration names the file; errors begin with both. NOT_FOUND,
// PERMISSION_DENIED, or INVALID_ARGUMENT: no plain file (a pipe could hold the reader up), empty,
// or larger than 1 MiB.
absl::StatusOr<std::string> ReadSmallFile(std::string_view key, const std::string& path);

}  // namespace sirocco
