// The lanes' arrays in device memory, and their filling when a sequence takes one.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "graphs/lane_staging.h"
#include "graphs/step.h"
#include "kernels/device.h"
#include "kernels/lanes.h"

namespace sirocco {

class LaneStore {
 public:
  static uint64_t Bytes(const ModelDescriptor& descriptor, const ExecutorOptions& options);
  static absl::StatusOr<LaneStore> Create(Device& device, const ModelDescriptor& descriptor,
                                          const ExecutorOptions& options);

  // INVALID_ARGUMENT names what is out of range; the lane is then as it was. Arrays as long as the
  // vocabulary are written only where the lane's flags ask for them. The copies take their place
  // in the device's order of work; the caller's views are free again when this returns.
  absl::Status Start(Device& device, const LaneStart& start);
  // The same for a lane that goes on from another; what a start alone sets stays as it is.
  absl::Status Fork(Device& device, const LaneFork& fork);
  // A step was launched, for which the lanes started since the last one may have been.
  void StepLaunched() { staging_.StepLaunched(); }

  const Lanes& lanes() const { return lanes_; }

  // Tokens known of a lane, as the device counts them; 0: never started.
  int32_t length(int32_t lane) const { return lengths_[lane]; }
  // A token was sampled. A full history stays as it is.
  void Advance(int32_t lane) { lengths_[lane] += lengths_[lane] < lanes_.max_length; }

 private:
  absl::Status Check(const LaneStart& start) const;
  absl::Status Check(const LaneFork& fork) const;
  bool KeepsCounts(int32_t lane) const { return (flags_[lane] & kLanePenalties) != 0; }
  // Its block tables; its tokens are zeros, as all memory is.
  absl::Status SetFillingLane(Device& device, const ExecutorOptions& options) const;
  // Without that one.
  int32_t sequence_lanes() const { return static_cast<int32_t>(lengths_.size()); }
  absl::Status CopyLane(Device& device, int64_t lane, int64_t parent) const;

  std::unique_ptr<Buffer> memory_;
  Lanes lanes_ = {};
  std::vector<int32_t> lengths_;
  std::vector<uint32_t> flags_;  // by lane
  LaneStaging staging_;
};

}  // namespace sirocco
