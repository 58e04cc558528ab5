#include "graphs/lane_staging.h"

#include <utility>

namespace sirocco {

absl::StatusOr<LaneStaging> LaneStaging::Create(Device& device, uint64_t largest, int steps) {
  LaneStaging staging;
  for (int i = 0; i < steps + 1; ++i) {
    absl::StatusOr<std::unique_ptr<Buffer>> area = device.AllocateHost(largest);
    if (!area.ok()) return area.status();
    staging.areas_.push_back(*std::move(area));
  }
  return staging;
}

absl::StatusOr<std::byte*> LaneStaging::Take(Device& device, uint64_t bytes) {
  if (used_ + bytes > areas_[area_]->bytes()) {
    if (absl::Status status = device.Synchronize(); !status.ok()) return status;
    used_ = 0;
  }
  std::byte* const place = areas_[area_]->as<std::byte>() + used_;
  used_ += bytes;
  return place;
}

void LaneStaging::StepLaunched() {
  if (used_ == 0) return;
  area_ = (area_ + 1) % areas_.size();
  used_ = 0;
}

}  // namespace sirocco
