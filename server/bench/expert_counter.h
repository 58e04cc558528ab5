// How many of a model's experts its steps read: what rows share is read once, and which they take
// is seen only when they have run.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"

namespace sirocco {

class ExpertCounter {
 public:
  // Where the model has experts, executors of `options` leave their choices in memory of the
  // device: 4 bytes a layer, lane, position and expert of a row.
  static absl::StatusOr<ExpertCounter> Create(Device& device, const ModelDescriptor& descriptor,
                                              ExecutorOptions& options);
  // None: every share is 1.
  ExpertCounter() = default;

  bool counts() const { return trace_ != nullptr; }
  // Brings what was left up to now to the host. Nothing is in flight.
  absl::Status Read();
  // Which part of a layer's experts a step of these rows took, in the mean over the layers: one row
  // of each lane at `position`, or, of one lane, all positions [first, first + count).
  double ShareOfLanes(int32_t lanes, int32_t position) const;
  double ShareOfPositions(int32_t lane, int32_t first, int32_t count) const;

 private:
  double Share(int32_t first_lane, int32_t lanes, int32_t first, int32_t count) const;

  Device* device_ = nullptr;
  int32_t layers_ = 0, experts_ = 0, a_row_ = 0, lanes_ = 0, length_ = 0;
  std::unique_ptr<Buffer> trace_;  // [layer][lane][position][a_row]
  std::vector<int32_t> chosen_;    // the same
};

}  // namespace sirocco
