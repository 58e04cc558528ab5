// A device that does late what another does at once: work is queued when it is asked for and done
// when somebody waits for it, or at random moments before. Host memory is read and written only
// then, so memory that is used again too early, and results that are read too early, show in the
// answers.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <utility>
#include <variant>

#include "kernels/forwarding_device.h"
#include "kernels/operation_ops.h"

namespace sirocco {

class DeferringDevice final : public ForwardingDevice, private OperationOps {
 public:
  enum class Pace {
    kWhenWaitedFor,  // nothing before
    kAnyTime,        // some of it whenever something is asked for
  };

  DeferringDevice(std::unique_ptr<Device> device, Pace pace, uint64_t seed)
      : ForwardingDevice(*device), device_(std::move(device)), pace_(pace), random_(seed) {}

  bool runs_ahead() const override { return true; }
  absl::Status CopyToDevice(void* device, const void* host, size_t bytes) override;
  absl::Status CopyToHost(void* host, const void* device, size_t bytes) override;
  absl::Status CopyOnDevice(void* to, const void* from, size_t bytes) override;
  absl::Status Synchronize() override;
  absl::StatusOr<DeviceMark> Mark() override;
  absl::Status Wait(DeviceMark mark) override;
  absl::StatusOr<double> Seconds(DeviceMark from, DeviceMark to) override;
  absl::Status BeginPrepare() override { return Setting(behind().BeginPrepare(), true); }
  absl::Status EndPrepare() override { return Setting(behind().EndPrepare(), false); }
  absl::Status BeginRecord() override { return Setting(behind().BeginRecord(), true); }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecord() override;
  absl::Status Launch(const Recording& recording) override;
  Ops& ops() override { return *this; }

  // From the piece of work behind the next `pieces` on nothing works. Any thread.
  void BreakAfter(int64_t pieces) { until_broken_ = pieces; }

  int waits = 0;   // Synchronize and Wait
  int copies = 0;  // to the device

 private:
  struct ToDevice {
    void* device;
    const void* host;
    size_t bytes;
  };
  struct ToHost {
    void* host;
    const void* device;
    size_t bytes;
  };
  struct Within {
    void* to;
    const void* from;
    size_t bytes;
  };
  using Work = std::variant<Operation, ToDevice, ToHost, Within, const Recording*>;

  absl::Status Queue(Work work);
  absl::Status Do(const Work& work);
  void DoUntil(uint64_t count);  // pieces of work, since the beginning
  absl::Status Fault();
  // Between the two the operations go to the device at once: they run nothing.
  absl::Status Setting(absl::Status status, bool begins) {
    passes_ = begins && status.ok();
    return status;
  }
  absl::Status RunAny(const Operation& operation) override {
    return passes_ ? RunOperation(behind().ops(), operation) : Queue(operation);
  }

  const std::unique_ptr<Device> device_;
  const Pace pace_;
  std::mt19937_64 random_;
  std::deque<Work> queue_;
  uint64_t done_ = 0;  // pieces of work
  bool passes_ = false;
  std::atomic<int64_t> until_broken_{INT64_MAX};  // pieces of work that will still be done
  absl::Status fault_;
};

}  // namespace sirocco
