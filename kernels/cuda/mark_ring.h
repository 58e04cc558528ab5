// Points in a stream's order, as timing events that are used in turn.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/device.h"

namespace sirocco::cuda {

class MarkRing {
 public:
  explicit MarkRing(CudaContext& context) : context_(context) {}
  ~MarkRing();
  MarkRing(const MarkRing&) = delete;
  MarkRing& operator=(const MarkRing&) = delete;

  absl::Status Create();
  absl::StatusOr<DeviceMark> Mark();
  // INVALID_ARGUMENT for a mark that was never set, or too long ago.
  absl::Status Wait(DeviceMark mark);
  absl::StatusOr<double> Seconds(DeviceMark from, DeviceMark to);

 private:
  absl::StatusOr<cudaEvent_t> EventOf(DeviceMark mark) const;

  CudaContext& context_;
  std::vector<cudaEvent_t> events_;  // mark n is in [n % size]
  uint64_t last_ = 0;                // the first mark is 1
};

}  // namespace sirocco::cuda
