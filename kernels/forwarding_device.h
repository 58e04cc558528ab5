// A device that asks another one for all that is asked of it: the base of those that watch, time
// or delay a device, which override what they have to do with.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace sirocco {

class ForwardingDevice : public Device {
 public:
  std::string_view backend() const override { return behind_.backend(); }
  uint64_t FreeBytes() const override { return behind_.FreeBytes(); }
  uint64_t TotalBytes() const override { return behind_.TotalBytes(); }
  std::string name() const override { return behind_.name(); }
  bool Offers(DType dtype) const override { return behind_.Offers(dtype); }
  DType ActivationDType(DType weights) const override { return behind_.ActivationDType(weights); }
  bool ComputesFromBlocks(DType type) const override { return behind_.ComputesFromBlocks(type); }
  absl::Status Pack(const Matrix& matrix) override { return behind_.Pack(matrix); }
  bool runs_ahead() const override { return behind_.runs_ahead(); }
  int32_t norms_where_read_rows() const override { return behind_.norms_where_read_rows(); }
  int32_t paired_rows() const override { return behind_.paired_rows(); }
  bool prefill_as_decode() const override { return behind_.prefill_as_decode(); }
  bool fills_prefill() const override { return behind_.fills_prefill(); }
  DecoderLayersOffer OfferDecoderLayers(const DecoderLayersShape& shape) const override {
    return behind_.OfferDecoderLayers(shape);
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes, MemoryUse use) override {
    return behind_.Allocate(bytes, use);
  }
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t bytes, MemoryUse use) override {
    return behind_.Reserve(bytes, use);
  }
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override {
    return behind_.AllocateHost(bytes);
  }

  absl::Status CopyToDevice(void* device, const void* host, size_t bytes) override {
    return behind_.CopyToDevice(device, host, bytes);
  }
  absl::Status CopyToHost(void* host, const void* device, size_t bytes) override {
    return behind_.CopyToHost(host, device, bytes);
  }
  absl::Status CopyOnDevice(void* to, const void* from, size_t bytes) override {
    return behind_.CopyOnDevice(to, from, bytes);
  }
  absl::Status Synchronize() override { return behind_.Synchronize(); }
  absl::StatusOr<DeviceMark> Mark() override { return behind_.Mark(); }
  absl::Status Wait(DeviceMark mark) override { return behind_.Wait(mark); }
  absl::StatusOr<double> Seconds(DeviceMark from, DeviceMark to) override {
    return behind_.Seconds(from, to);
  }

  absl::Status BeginPrepare() override { return behind_.BeginPrepare(); }
  absl::Status EndPrepare() override { return behind_.EndPrepare(); }
  absl::Status BeginRecord() override { return behind_.BeginRecord(); }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecord() override { return behind_.EndRecord(); }
  absl::Status Launch(const Recording& recording) override { return behind_.Launch(recording); }

  absl::StatusOr<double> MeasureReadBandwidth(size_t bytes) override {
    return behind_.MeasureReadBandwidth(bytes);
  }
  std::vector<std::string> notes() const override { return behind_.notes(); }
  absl::StatusOr<std::vector<std::string>> TuneProducts(
      std::span<const MatMulParams> products) override {
    return behind_.TuneProducts(products);
  }
  Ops& ops() override { return behind_.ops(); }
  const DeviceCounters& counters() const override { return behind_.counters(); }

 protected:
  // `behind` outlives it.
  explicit ForwardingDevice(Device& behind) : behind_(behind) {}
  Device& behind() const { return behind_; }

 private:
  Device& behind_;
};

}  // namespace sirocco
