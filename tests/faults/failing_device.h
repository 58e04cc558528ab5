// A device whose calls fail when they are told to, before they do anything: the kind `device` of a
// schedule.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "kernels/forwarding_device.h"
#include "kernels/operation_ops.h"

namespace sirocco {

class FailingDevice final : public ForwardingDevice, private OperationOps {
 public:
  // Whether the call fails: "allocate" (RESOURCE_EXHAUSTED), "copy" (from or to the host), "move"
  // (within the device), "launch" (an operation or a recording), "prepare", "record", or "wait"
  // (marks, and waits for them). Asked once a call.
  using Fails = std::function<bool(std::string_view call)>;

  FailingDevice(std::unique_ptr<Device> device, Fails fails)
      : ForwardingDevice(*device), device_(std::move(device)), fails_(std::move(fails)) {}

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes, MemoryUse use) override;
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t bytes, MemoryUse use) override;
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override;
  absl::Status CopyToDevice(void* device, const void* host, size_t bytes) override;
  absl::Status CopyToHost(void* host, const void* device, size_t bytes) override;
  absl::Status CopyOnDevice(void* to, const void* from, size_t bytes) override;
  absl::Status Synchronize() override;
  absl::StatusOr<DeviceMark> Mark() override;
  absl::Status Wait(DeviceMark mark) override;
  absl::StatusOr<double> Seconds(DeviceMark from, DeviceMark to) override;
  absl::Status Pack(const Matrix& matrix) override;
  absl::Status BeginPrepare() override;
  absl::Status EndPrepare() override;
  absl::Status BeginRecord() override;
  absl::StatusOr<std::unique_ptr<Recording>> EndRecord() override;
  absl::Status Launch(const Recording& recording) override;
  Ops& ops() override { return *this; }

 private:
  class FailingReservation;

  absl::Status Check(std::string_view call) const;
  absl::Status RunAny(const Operation& operation) override;

  const std::unique_ptr<Device> device_;
  const Fails fails_;
};

}  // namespace sirocco
