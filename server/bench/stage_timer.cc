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
  if (absl::Status status = device_.Synchronize(); !status.ok()) return status;
  for (const Marked& marked : marked_) {
    absl::StatusOr<double> seconds = device_.Seconds(marked.before, marked.after);
    if (!seconds.ok()) return seconds.status();
    timed_.push_back({marked.operation, *seconds});
  }
  marked_.clear();
  return absl::OkStatus();
}

template <typename Params>
absl::Status StageTimer::Time(const Params& params) {
  if (!timing_) return device_.ops().Run(params);
  if (marked_.size() == kUnsettled) {
    if (absl::Status status = Settle(); !status.ok()) return status;
  }
  absl::StatusOr<DeviceMark> before = device_.Mark();
  if (!before.ok()) return before.status();
  if (absl::Status status = device_.ops().Run(params); !status.ok()) return status;
  absl::StatusOr<DeviceMark> after = device_.Mark();
  if (!after.ok()) return after.status();
  marked_.push_back({params, *before, *after});
  return absl::OkStatus();
}

absl::Status StageTimer::Run(const BeginStepParams& p) { return Time(p); }
absl::Status StageTimer::Run(const EmbedParams& p) { return Time(p); }
absl::Status StageTimer::Run(const RmsNormParams& p) { return Time(p); }
absl::Status StageTimer::Run(const MatMulParams& p) { return Time(p); }
absl::Status StageTimer::Run(const RotaryParams& p) { return Time(p); }
absl::Status StageTimer::Run(const WriteKvParams& p) { return Time(p); }
absl::Status StageTimer::Run(const DecodeAttentionParams& p) { return Time(p); }
absl::Status StageTimer::Run(const PrefillAttentionParams& p) { return Time(p); }
absl::Status StageTimer::Run(const AddParams& p) { return Time(p); }
absl::Status StageTimer::Run(const GatedActivationParams& p) { return Time(p); }
absl::Status StageTimer::Run(const GatherRowsParams& p) { return Time(p); }
absl::Status StageTimer::Run(const SampleParams& p) { return Time(p); }
absl::Status StageTimer::Run(const ScoreTokensParams& p) { return Time(p); }
absl::Status StageTimer::Run(const NormQkvParams& p) { return Time(p); }
absl::Status StageTimer::Run(const QkvParams& p) { return Time(p); }
absl::Status StageTimer::Run(const OutputResidualParams& p) { return Time(p); }
absl::Status StageTimer::Run(const NormGateUpParams& p) { return Time(p); }
absl::Status StageTimer::Run(const DownResidualParams& p) { return Time(p); }
absl::Status StageTimer::Run(const DownNormParams& p) { return Time(p); }
absl::Status StageTimer::Run(const HeadNormParams& p) { return Time(p); }
absl::Status StageTimer::Run(const AddNormParams& p) { return Time(p); }

}  // namespace sirocco
