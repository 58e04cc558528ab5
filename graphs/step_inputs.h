// What a step is given, checked and brought to the device: block updates and the rows' lanes. What
// already stands there is not copied again. Nothing is allocated by a step that passes the checks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "graphs/executor.h"
#include "graphs/lane_store.h"
#include "graphs/step_buffers.h"
#include "graphs/step_host.h"
#include "kernels/device.h"

namespace sirocco {

// INVALID_ARGUMENT: "<what> is <value>; allowed are <low> to <high>".
absl::Status StepRangeError(const char* what, int64_t value, int64_t low, int64_t high);

class StepInputs {
 public:
  // All outlive it.
  StepInputs(Device& device, const StepBuffers& buffers, const LaneStore& lanes,
             const ExecutorOptions& options);

  // Begins a step's checks: lanes named from here on must be distinct.
  void BeginCheck() { ++stamp_; }
  // In range, started, and not named in this step before.
  absl::Status CheckLane(int32_t lane);
  absl::Status CheckUpdates(std::span<const BlockUpdate> updates) const;

  // Leaves the updates, by way of `host`, for the next operation that begins a step to apply. What
  // exceeds kBlockUpdates is applied at once, and waits for the device (rare: a long cached
  // prompt).
  absl::Status UploadUpdates(std::span<const BlockUpdate> updates,
                             const Counted<BlockUpdate>& host);
  // The decode rows' lanes, by way of `host` [max_batch_size].
  absl::Status UploadLanes(std::span<const int32_t> lanes, int32_t* host);
  // A prefill part has other rows in the row map.
  void RowsOverwritten() { lanes_there_.clear(); }

 private:
  Device& device_;
  const StepBuffers& buffers_;
  const LaneStore& lanes_;
  const ExecutorOptions& options_;
  uint64_t stamp_ = 0;
  std::vector<uint64_t> seen_;        // by lane: the last check that named it
  std::vector<int32_t> lanes_there_;  // what the row map begins with, as far as it is known
  int32_t count_there_ = 0;           // of StepBuffers::updates
};

}  // namespace sirocco
