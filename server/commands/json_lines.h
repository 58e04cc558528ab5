// JSON lines in, JSON lines out: how the offline commands work.
#pragma once

#include <istream>
#include <string>

#include "absl/status/status.h"

namespace sirocco {

// {"error": MESSAGE} as a line's text.
std::string ErrorLine(const absl::Status& status);

// The next line that is not blank. False at the end. Lines are bounded by `max_bytes`: what is
// longer is read to its end and reported as RESOURCE_EXHAUSTED in *status.
bool NextLine(std::istream& in, size_t max_bytes, std::string* line, absl::Status* status);

}  // namespace sirocco
