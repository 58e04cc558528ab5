#include "absl/strings/str_cat.h"
#include "graphs/executor.h"

namespace sirocco {
namespace {

absl::Status NoneInFlight(const Executor& executor) {
  if (executor.in_flight() == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("steps in flight: ", executor.in_flight(), "; this call needs none"));
}

}  // namespace

absl::StatusOr<PrefillResult> Executor::Prefill(const PrefillStep& step) {
  absl::Status status = NoneInFlight(*this);
  if (status.ok()) status = Launch({.prefill = step});
  if (!status.ok()) return status;
  absl::StatusOr<StepResult> result = Collect();
  if (!result.ok()) return result.status();
  return result->prefill;
}

absl::StatusOr<DecodeResult> Executor::Decode(const DecodeStep& step) {
  absl::Status status = NoneInFlight(*this);
  if (status.ok()) status = Launch({.decode = step});
  if (!status.ok()) return status;
  absl::StatusOr<StepResult> result = Collect();
  if (!result.ok()) return result.status();
  return result->decode;
}

}  // namespace sirocco
