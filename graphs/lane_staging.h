// Host memory for what lanes start with, on its way to the device behind the steps in flight.
//
// One area is filled before each launch. It is filled again only when that launch's step has been
// collected, which its place behind the copies in the order of work makes safe, so no start waits
// for the device. Where more starts than an area's bytes come before one launch (several with
// arrays as long as the vocabulary), filling it waits for all that is issued: rare, and then right
// rather than fast.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace sirocco {

class LaneStaging {
 public:
  // `largest`: bytes of the largest start. `steps`: that can be in flight at once.
  static absl::StatusOr<LaneStaging> Create(Device& device, uint64_t largest, int steps);

  // Memory for one start of at most `largest` bytes, as Carver counts them.
  absl::StatusOr<std::byte*> Take(Device& device, uint64_t bytes);

  // What was taken until now is read before the step that was just launched.
  void StepLaunched();

 private:
  std::vector<std::unique_ptr<Buffer>> areas_;
  size_t area_ = 0;    // that is being filled
  uint64_t used_ = 0;  // bytes of it
};

}  // namespace sirocco
