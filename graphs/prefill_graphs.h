// The recordings of a prefill pass, one a number of rows.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/plan.h"
#include "kernels/device.h"

namespace sirocco {

class PrefillGraphs {
 public:
  PrefillGraphs() = default;  // none

  // Records `pass` for each of `sizes`, which ascend, the largest first. The device has prepared
  // it; the buffers that it refers to outlive the recordings.
  static absl::StatusOr<PrefillGraphs> Capture(Device& device, const Plan& pass,
                                               std::span<const int32_t> sizes);

  // Null: there is none of so many rows.
  const Recording* Find(int32_t rows) const;

  int graphs() const { return static_cast<int>(graphs_.size()); }
  double seconds() const { return seconds_; }  // that capturing took
  uint64_t bytes() const { return bytes_; }    // device memory that the recordings hold

 private:
  struct Graph {
    int32_t rows;
    std::unique_ptr<Recording> recording;
  };

  std::vector<Graph> graphs_;  // by rows
  double seconds_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace sirocco
