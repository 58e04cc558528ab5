// The recordings of a decode plan by batch size: one of every part for every size from 1 on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/decode_plan.h"
#include "kernels/device.h"

namespace sirocco {

// Records `plan` for `rows` rows. The device is left not recording, also after a failure.
absl::StatusOr<std::unique_ptr<Recording>> Record(Device& device, const Plan& plan, int32_t rows);

// Device memory that all recordings hold, those that are gone included.
uint64_t GraphBytes(const Device& device);

// Has the device set up what `plan` needs for `rows` rows, without running it.
absl::Status Prepare(Device& device, const Plan& plan, int32_t rows);

// The same for every size from 1 to max_batch_size. All layers are shown at the most rows that
// their operations are for, which Device::BeginPrepare asks for; where a device chooses anew for
// fewer rows, the layers that differ show that.
absl::Status PrepareSizes(Device& device, const DecodePlan& plan, int32_t max_batch_size);

class GraphPool {
 public:
  using Progress = std::function<void(std::string_view phase, int done, int total)>;

  GraphPool() = default;

  // Records every part for every size, the largest first: what cannot be captured shows at once,
  // and on a GPU the small graphs fit where the large ones did. The buffers that `plan` refers to
  // must outlive the pool. `device` runs nothing.
  static absl::StatusOr<GraphPool> Capture(Device& device, const DecodePlan& plan,
                                           int32_t max_batch_size, const Progress& progress);

  // Launches the step for a batch of `rows`: 1 ... max_batch_size.
  absl::Status Replay(Device& device, int32_t rows) const;

  int graphs() const { return graphs_; }
  double seconds() const { return seconds_; }  // that capturing took
  uint64_t bytes() const { return bytes_; }    // device memory that the recordings hold

 private:
  std::vector<std::vector<std::unique_ptr<Recording>>> recordings_;  // [rows - 1][part]
  std::vector<int32_t> order_;
  int graphs_ = 0;
  double seconds_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace sirocco
