// A device that times every operation of the device behind it: a mark stands between any two, so
// they do not overlap, and each costs a little more than in a step that nobody watches.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace sirocco {

class StageTimer final : public Device, private Ops {
 public:
  struct Timed {
    Operation operation;
    double seconds = 0;
  };

  // `device` outlives it.
  explicit StageTimer(Device& device) : device_(device) {}

  // From here on operations are timed.
  void Begin();
  // Waits for them, and returns them in their order.
  absl::StatusOr<std::vector<Timed>> End();

  std::string_view backend() const override { return device_.backend(); }
  uint64_t FreeBytes() const override { return device_.FreeBytes(); }
  uint64_t TotalBytes() const override { return device_.TotalBytes(); }
  std::string name() const override { return device_.name(); }
  DType ActivationDType(DType weights) const override { return device_.ActivationDType(weights); }
  // One step at a time, so that its operations are only its own.
  bool runs_ahead() const override { return false; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes, MemoryUse use) override {
    return device_.Allocate(bytes, use);
  }
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t bytes, MemoryUse use) override {
    return device_.Reserve(bytes, use);
  }
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override {
    return device_.AllocateHost(bytes);
  }
  absl::Status CopyToDevice(void* device, const void* host, size_t bytes) override {
    return device_.CopyToDevice(device, host, bytes);
  }
  absl::Status CopyToHost(void* host, const void* device, size_t bytes) override {
    return device_.CopyToHost(host, device, bytes);
  }
  absl::Status Synchronize() override { return device_.Synchronize(); }
  absl::StatusOr<DeviceMark> Mark() override { return device_.Mark(); }
  absl::Status Wait(DeviceMark mark) override { return device_.Wait(mark); }
  absl::StatusOr<double> Seconds(DeviceMark from, DeviceMark to) override {
    return device_.Seconds(from, to);
  }
  absl::Status BeginPrepare() override { return device_.BeginPrepare(); }
  absl::Status EndPrepare() override { return device_.EndPrepare(); }
  absl::Status BeginRecord() override { return device_.BeginRecord(); }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecord() override { return device_.EndRecord(); }
  absl::Status Launch(const Recording& recording) override { return device_.Launch(recording); }
  Ops& ops() override { return *this; }

 private:
  struct Marked {
    Operation operation;
    DeviceMark before, after;
  };

  // From marks, which do not last long, to times.
  absl::Status Settle();
  template <typename Params>
  absl::Status Time(const Params& params);

  absl::Status Run(const BeginStepParams& p) override;
  absl::Status Run(const EmbedParams& p) override;
  absl::Status Run(const RmsNormParams& p) override;
  absl::Status Run(const MatMulParams& p) override;
  absl::Status Run(const RotaryParams& p) override;
  absl::Status Run(const WriteKvParams& p) override;
  absl::Status Run(const DecodeAttentionParams& p) override;
  absl::Status Run(const PrefillAttentionParams& p) override;
  absl::Status Run(const AddParams& p) override;
  absl::Status Run(const GatedActivationParams& p) override;
  absl::Status Run(const GatherRowsParams& p) override;
  absl::Status Run(const SampleParams& p) override;
  absl::Status Run(const ScoreTokensParams& p) override;
  absl::Status Run(const NormQkvParams& p) override;
  absl::Status Run(const QkvParams& p) override;
  absl::Status Run(const OutputResidualParams& p) override;
  absl::Status Run(const NormGateUpParams& p) override;
  absl::Status Run(const DownResidualParams& p) override;
  absl::Status Run(const DownNormParams& p) override;
  absl::Status Run(const HeadNormParams& p) override;
  absl::Status Run(const AddNormParams& p) override;

  Device& device_;
  bool timing_ = false;
  std::vector<Marked> marked_;
  std::vector<Timed> timed_;
};

}  // namespace sirocco
