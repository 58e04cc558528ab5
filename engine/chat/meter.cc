#include "engine/chat/meter.h"

#include "absl/strings/str_cat.h"

namespace sirocco::jinja {

absl::Status Meter::StepsExhausted() const {
  return absl::ResourceExhaustedError(
      absl::StrCat("the chat template takes more than max_steps = ", max_steps_, " steps"));
}

absl::Status Meter::MemoryExhausted() const {
  return absl::ResourceExhaustedError(absl::StrCat(
      "the chat template needs more than max_memory_bytes = ", max_memory_bytes_, " at a time"));
}

absl::Status Meter::DepthExhausted() const {
  return absl::ResourceExhaustedError(
      absl::StrCat("the chat template nests deeper than max_depth = ", max_depth_));
}

}  // namespace sirocco::jinja
