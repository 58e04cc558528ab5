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
#include <string>
#include <utility>
#include <variant>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace sirocco {

class DeferringDevice final : public Device, private Ops {
 public:
  enum class Pace {
    kWhenWaitedFor,  // nothing before
    kAnyTime,        // some of it whenever something is asked for
  };

  DeferringDevice(std::unique_ptr<Device> device, Pace pace, uint64_t seed)
      : device_(std::move(device)), pace_(pace), random_(seed) {}

  std::string_view backend() const override { return device_->backend(); }
  std::string name() const override { return device_->name(); }
  uint64_t FreeBytes() const override { return device_->FreeBytes(); }
  DType ActivationDType(DType weights) const override { return device_->ActivationDType(weights); }
  bool runs_ahead() const override { return true; }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes, MemoryUse use) override {
    return device_->Allocate(bytes, use);
  }
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t bytes, MemoryUse use) override {
    return device_->Reserve(bytes, use);
  }
  absl::Status CopyToDevice(void* device, const void* host, size_t bytes) override;
  absl::Status CopyToHost(void* host, const void* device, size_t bytes) override;
  absl::Status Synchronize() override;
  absl::StatusOr<DeviceMark> Mark() override;
  absl::Status Wait(DeviceMark mark) override;
  absl::StatusOr<double> Seconds(DeviceMark from, DeviceMark to) override;
  absl::Status BeginPrepare() override { return Setting(device_->BeginPrepare(), true); }
  absl::Status EndPrepare() override { return Setting(device_->EndPrepare(), false); }
  absl::Status BeginRecord() override { return Setting(device_->BeginRecord(), true); }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecord() override;
  absl::Status Launch(const Recording& recording) override;
  Ops& ops() override { return *this; }

  // From the next piece of work on nothing works. Any thread.
  void Break() { broken_ = true; }

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
  using Work = std::variant<Operation, ToDevice, ToHost, const Recording*>;

  absl::Status Queue(Work work);
  absl::Status Do(const Work& work);
  void DoUntil(uint64_t count);  // pieces of work, since the beginning
  absl::Status Fault();
  // Between the two the operations go to the device at once: they run nothing.
  absl::Status Setting(absl::Status status, bool begins) {
    passes_ = begins && status.ok();
    return status;
  }
  template <typename Params>
  absl::Status Take(const Params& p) {
    return passes_ ? device_->ops().Run(p) : Queue(Operation(p));
  }

  absl::Status Run(const BeginStepParams& p) override { return Take(p); }
  absl::Status Run(const EmbedParams& p) override { return Take(p); }
  absl::Status Run(const RmsNormParams& p) override { return Take(p); }
  absl::Status Run(const MatMulParams& p) override { return Take(p); }
  absl::Status Run(const RotaryParams& p) override { return Take(p); }
  absl::Status Run(const WriteKvParams& p) override { return Take(p); }
  absl::Status Run(const DecodeAttentionParams& p) override { return Take(p); }
  absl::Status Run(const PrefillAttentionParams& p) override { return Take(p); }
  absl::Status Run(const AddParams& p) override { return Take(p); }
  absl::Status Run(const GatedActivationParams& p) override { return Take(p); }
  absl::Status Run(const GatherRowsParams& p) override { return Take(p); }
  absl::Status Run(const SampleParams& p) override { return Take(p); }
  absl::Status Run(const ScoreTokensParams& p) override { return Take(p); }
  absl::Status Run(const NormQkvParams& p) override { return Take(p); }
  absl::Status Run(const QkvParams& p) override { return Take(p); }
  absl::Status Run(const OutputResidualParams& p) override { return Take(p); }
  absl::Status Run(const NormGateUpParams& p) override { return Take(p); }
  absl::Status Run(const DownResidualParams& p) override { return Take(p); }
  absl::Status Run(const DownNormParams& p) override { return Take(p); }
  absl::Status Run(const HeadNormParams& p) override { return Take(p); }
  absl::Status Run(const AddNormParams& p) override { return Take(p); }

  std::unique_ptr<Device> device_;
  const Pace pace_;
  std::mt19937_64 random_;
  std::deque<Work> queue_;
  uint64_t done_ = 0;  // pieces of work
  bool passes_ = false;
  std::atomic<bool> broken_{false};
  absl::Status fault_;
};

}  // namespace sirocco
