#include "kernels/cuda/mark_ring.h"

#include "absl/strings/str_cat.h"

namespace sirocco::cuda {
namespace {

// A mark is good for the next 1,000 (Device::Mark).
constexpr uint64_t kMarks = 4096;

}  // namespace

MarkRing::~MarkRing() {
  for (cudaEvent_t event : events_) cudaEventDestroy(event);
}

absl::Status MarkRing::Create() {
  events_.reserve(kMarks);
  while (events_.size() < kMarks) {
    cudaEvent_t event = nullptr;
    absl::Status status = context_.Check("cudaEventCreate", cudaEventCreate(&event));
    if (!status.ok()) return status;
    events_.push_back(event);
  }
  return absl::OkStatus();
}

absl::StatusOr<DeviceMark> MarkRing::Mark() {
  const DeviceMark mark{last_ + 1};
  absl::Status status = context_.Check(
      "cudaEventRecord", cudaEventRecord(events_[mark.value % kMarks], context_.stream()));
  if (!status.ok()) return status;
  last_ = mark.value;
  return mark;
}

absl::StatusOr<cudaEvent_t> MarkRing::EventOf(DeviceMark mark) const {
  if (mark.value == 0 || mark.value > last_ || last_ - mark.value >= kMarks) {
    return absl::InvalidArgumentError(absl::StrCat("mark ", mark.value, " is not among the last ",
                                                   kMarks, " that were set; the last is ", last_));
  }
  return events_[mark.value % kMarks];
}

absl::Status MarkRing::Wait(DeviceMark mark) {
  const absl::StatusOr<cudaEvent_t> event = EventOf(mark);
  if (!event.ok()) return event.status();
  return context_.Check("cudaEventSynchronize", cudaEventSynchronize(*event));
}

absl::StatusOr<double> MarkRing::Seconds(DeviceMark from, DeviceMark to) {
  const absl::StatusOr<cudaEvent_t> start = EventOf(from);
  if (!start.ok()) return start.status();
  const absl::StatusOr<cudaEvent_t> end = EventOf(to);
  if (!end.ok()) return end.status();
  float milliseconds = 0;
  const cudaError_t error = cudaEventElapsedTime(&milliseconds, *start, *end);
  if (error == cudaErrorNotReady) {
    cudaGetLastError();  // no fault of the device
    return absl::FailedPreconditionError("the time between marks that are not both reached");
  }
  if (absl::Status status = context_.Check("cudaEventElapsedTime", error); !status.ok()) {
    return status;
  }
  return static_cast<double>(milliseconds) * 1e-3;
}

}  // namespace sirocco::cuda
