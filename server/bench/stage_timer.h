// A device that times every operation of the device behind it: a mark stands between any two, so
// they do not overlap, and each costs a little more than in a step that nobody watches.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/forwarding_device.h"
#include "kernels/operation_ops.h"

namespace sirocco {

class StageTimer final : public ForwardingDevice, private OperationOps {
 public:
  struct Timed {
    Operation operation;
    double seconds = 0;
  };

  // `device` outlives it.
  explicit StageTimer(Device& device) : ForwardingDevice(device) {}

  // From here on operations are timed.
  void Begin();
  // Waits for them, and returns them in their order.
  absl::StatusOr<std::vector<Timed>> End();

  // One step at a time, so that its operations are only its own.
  bool runs_ahead() const override { return false; }
  Ops& ops() override { return *this; }

 private:
  struct Marked {
    Operation operation;
    DeviceMark before, after;
  };

  // From marks, which do not last long, to times.
  absl::Status Settle();
  absl::Status RunAny(const Operation& operation) override;

  bool timing_ = false;
  std::vector<Marked> marked_;
  std::vector<Timed> timed_;
};

}  // namespace sirocco
