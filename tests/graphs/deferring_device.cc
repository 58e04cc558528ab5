#include "tests/graphs/deferring_device.h"

#include <algorithm>
#include <utility>

namespace sirocco {

absl::Status DeferringDevice::Queue(Work work) {
  if (passes_) return absl::InternalError("a copy or a launch while recording");
  queue_.push_back(std::move(work));
  if (pace_ == Pace::kAnyTime && random_() % 8 == 0) {
    DoUntil(done_ + random_() % (queue_.size() + 1));
  }
  return absl::OkStatus();
}

absl::Status DeferringDevice::Do(const Work& work) {
  if (until_broken_ <= 0) return absl::InternalError("the deferring device broke");
  --until_broken_;
  if (const Operation* operation = std::get_if<Operation>(&work)) {
    return RunOperation(behind().ops(), *operation);
  }
  if (const ToDevice* copy = std::get_if<ToDevice>(&work)) {
    return behind().CopyToDevice(copy->device, copy->host, copy->bytes);
  }
  if (const ToHost* copy = std::get_if<ToHost>(&work)) {
    return behind().CopyToHost(copy->host, copy->device, copy->bytes);
  }
  if (const Within* copy = std::get_if<Within>(&work)) {
    return behind().CopyOnDevice(copy->to, copy->from, copy->bytes);
  }
  return behind().Launch(*std::get<const Recording*>(work));
}

void DeferringDevice::DoUntil(uint64_t count) {
  for (; done_ < count; ++done_) {
    const absl::Status status = Do(queue_.front());
    queue_.pop_front();
    if (fault_.ok()) fault_ = status;
  }
}

absl::Status DeferringDevice::Fault() {
  const absl::Status status = behind().Synchronize();
  if (fault_.ok()) fault_ = status;
  return fault_;
}

absl::Status DeferringDevice::CopyToDevice(void* device, const void* host, size_t bytes) {
  ++copies;
  return Queue(ToDevice{device, host, bytes});
}

absl::Status DeferringDevice::CopyToHost(void* host, const void* device, size_t bytes) {
  return Queue(ToHost{host, device, bytes});
}

absl::Status DeferringDevice::CopyOnDevice(void* to, const void* from, size_t bytes) {
  return Queue(Within{to, from, bytes});
}

absl::Status DeferringDevice::Synchronize() {
  ++waits;
  DoUntil(done_ + queue_.size());
  return Fault();
}

absl::StatusOr<DeviceMark> DeferringDevice::Mark() { return DeviceMark{done_ + queue_.size()}; }

absl::Status DeferringDevice::Wait(DeviceMark mark) {
  ++waits;
  DoUntil(mark.value);
  return Fault();
}

absl::StatusOr<double> DeferringDevice::Seconds(DeviceMark from, DeviceMark to) {
  if (std::max(from.value, to.value) > done_) {
    return absl::FailedPreconditionError("a mark that was not reached");
  }
  return static_cast<double>(to.value - from.value) * 1e-6;
}

absl::StatusOr<std::unique_ptr<Recording>> DeferringDevice::EndRecord() {
  passes_ = false;
  return behind().EndRecord();
}

absl::Status DeferringDevice::Launch(const Recording& recording) { return Queue(&recording); }

}  // namespace sirocco
