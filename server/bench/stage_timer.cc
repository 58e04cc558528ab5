#include "server/bench/stage_timer.h"

#include <utility>

namespace sirocco {
namespace {

constexpr size_t kUnsettled = 256;  // operations; two marks each, of the 1,000 that a device keeps

}  // namespace

void StageTimer::Begin() {
  marked_.clear();
  timed_.clear();
  timing_ = true;
}

absl::StatusOr<std::vector<StageTimer::Timed>> StageTimer::End() {
  timing_ = false;
  if (absl::Status status = Settle(); !status.ok()) return status;
  return std::exchange(timed_, {});
}

absl::Status StageTimer::Settle() {
  if (absl::Status status = Synchronize(); !status.ok()) return status;
  for (const Marked& marked : marked_) {
    absl::StatusOr<double> seconds = Seconds(marked.before, marked.after);
    if (!seconds.ok()) return seconds.status();
    timed_.push_back({marked.operation, *seconds});
  }
  marked_.clear();
  return absl::OkStatus();
}

absl::Status StageTimer::RunAny(const Operation& operation) {
  if (!timing_) return RunOperation(behind().ops(), operation);
  if (marked_.size() == kUnsettled) {
    if (absl::Status status = Settle(); !status.ok()) return status;
  }
  const absl::StatusOr<DeviceMark> before = Mark();
  if (!before.ok()) return before.status();
  if (absl::Status status = RunOperation(behind().ops(), operation); !status.ok()) return status;
  const absl::StatusOr<DeviceMark> after = Mark();
  if (!after.ok()) return after.status();
  marked_.push_back({operation, *before, *after});
  return absl::OkStatus();
}

}  // namespace sirocco
