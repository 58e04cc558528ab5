#include "tests/faults/failing_device.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sirocco {

// The device behind it returns its reservations; this one's memory comes later, and may not come.
class FailingDevice::FailingReservation final : public Reservation {
 public:
  FailingReservation(std::unique_ptr<Reservation> behind, const FailingDevice& device)
      : Reservation(behind->data(), behind->bytes()), behind_(std::move(behind)), device_(device) {}

  absl::Status Map(size_t bytes) override {
    if (absl::Status status = device_.Check("allocate"); !status.ok()) return status;
    return behind_->Map(bytes);
  }

 private:
  const std::unique_ptr<Reservation> behind_;
  const FailingDevice& device_;
};

absl::Status FailingDevice::Check(std::string_view call) const {
  if (!fails_(call)) return absl::OkStatus();
  const std::string message = absl::StrCat("injected: device:", std::string(call));
  return call == "allocate" ? absl::ResourceExhaustedError(message) : absl::InternalError(message);
}

absl::StatusOr<std::unique_ptr<Buffer>> FailingDevice::Allocate(size_t bytes, MemoryUse use) {
  if (absl::Status status = Check("allocate"); !status.ok()) return status;
  return behind().Allocate(bytes, use);
}

absl::StatusOr<std::unique_ptr<Reservation>> FailingDevice::Reserve(size_t bytes, MemoryUse use) {
  if (absl::Status status = Check("allocate"); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Reservation>> reserved = behind().Reserve(bytes, use);
  if (!reserved.ok()) return reserved.status();
  return std::make_unique<FailingReservation>(*std::move(reserved), *this);
}

absl::StatusOr<std::unique_ptr<Buffer>> FailingDevice::AllocateHost(size_t bytes) {
  if (absl::Status status = Check("allocate"); !status.ok()) return status;
  return behind().AllocateHost(bytes);
}

absl::Status FailingDevice::CopyToDevice(void* device, const void* host, size_t bytes) {
  if (absl::Status status = Check("copy"); !status.ok()) return status;
  return behind().CopyToDevice(device, host, bytes);
}

absl::Status FailingDevice::CopyToHost(void* host, const void* device, size_t bytes) {
  if (absl::Status status = Check("copy"); !status.ok()) return status;
  return behind().CopyToHost(host, device, bytes);
}

absl::Status FailingDevice::CopyOnDevice(void* to, const void* from, size_t bytes) {
  if (absl::Status status = Check("move"); !status.ok()) return status;
  return behind().CopyOnDevice(to, from, bytes);
}

// A wait that fails is over all the same: of what was issued before it, nothing runs any more, so
// that whoever gave memory to it may take it back.
absl::Status FailingDevice::Synchronize() {
  const absl::Status waited = behind().Synchronize();
  if (absl::Status status = Check("wait"); !status.ok()) return status;
  return waited;
}

absl::StatusOr<DeviceMark> FailingDevice::Mark() {
  if (absl::Status status = Check("wait"); !status.ok()) return status;
  return behind().Mark();
}

absl::Status FailingDevice::Wait(DeviceMark mark) {
  const absl::Status waited = behind().Wait(mark);
  if (absl::Status status = Check("wait"); !status.ok()) return status;
  return waited;
}

absl::StatusOr<double> FailingDevice::Seconds(DeviceMark from, DeviceMark to) {
  if (absl::Status status = Check("wait"); !status.ok()) return status;
  return behind().Seconds(from, to);
}

absl::Status FailingDevice::Pack(const Matrix& matrix) {
  if (absl::Status status = Check("prepare"); !status.ok()) return status;
  return behind().Pack(matrix);
}

absl::Status FailingDevice::BeginPrepare() {
  if (absl::Status status = Check("prepare"); !status.ok()) return status;
  return behind().BeginPrepare();
}

absl::Status FailingDevice::EndPrepare() {
  // It has ended, well or not.
  const absl::Status ended = behind().EndPrepare();
  if (absl::Status status = Check("prepare"); !status.ok()) return status;
  return ended;
}

absl::Status FailingDevice::BeginRecord() {
  if (absl::Status status = Check("record"); !status.ok()) return status;
  return behind().BeginRecord();
}

absl::StatusOr<std::unique_ptr<Recording>> FailingDevice::EndRecord() {
  absl::StatusOr<std::unique_ptr<Recording>> ended = behind().EndRecord();
  if (absl::Status status = Check("record"); !status.ok()) return status;
  return ended;
}

absl::Status FailingDevice::Launch(const Recording& recording) {
  if (absl::Status status = Check("launch"); !status.ok()) return status;
  return behind().Launch(recording);
}

absl::Status FailingDevice::RunAny(const Operation& operation) {
  if (absl::Status status = Check("launch"); !status.ok()) return status;
  return RunOperation(behind().ops(), operation);
}

}  // namespace sirocco
