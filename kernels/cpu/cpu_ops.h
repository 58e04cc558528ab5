// The operations on the CPU: each checks its parameters, splits its work and hands a Call to the
// device, which runs or records it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cpu/call.h"
#include "kernels/ops.h"

namespace sirocco::cpu {

// Where Calls go.
class CallSink {
 public:
  virtual ~CallSink() = default;
  virtual int threads() const = 0;
  // Scratch of at least so many bytes from now on: of each thread, and shared. RESOURCE_EXHAUSTED.
  virtual absl::Status NeedScratch(int64_t own_bytes, int64_t shared_bytes) = 0;
  virtual absl::Status Take(const Call& call) = 0;
};

class CpuOps final : public Ops {
 public:
  explicit CpuOps(CallSink& sink) : sink_(sink) {}

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
  absl::Status Run(const QkvAttentionParams& p) override;
  absl::Status Run(const OutputResidualParams& p) override;
  absl::Status Run(const NormGateUpParams& p) override;
  absl::Status Run(const DownResidualParams& p) override;
  absl::Status Run(const DownNormParams& p) override;
  absl::Status Run(const HeadNormParams& p) override;
  absl::Status Run(const AddNormParams& p) override;
  absl::Status Run(const AdjustLogitsParams& p) override;
  absl::Status Run(const NormQkParams& p) override;
  absl::Status Run(const QkvEndParams& p) override;
  absl::Status Run(const ExpertsParams& p) override;
  absl::Status Run(const DecoderLayersParams& p) override;
  absl::Status Run(const OutputGateUpParams& p) override;
  absl::Status Run(const DownQkvParams& p) override;

 private:
  // A call that needs so much scratch: of each thread, and shared.
  absl::Status TakeWith(int64_t own_bytes, const Call& call, int64_t shared_bytes = 0) {
    absl::Status status = sink_.NeedScratch(own_bytes, shared_bytes);
    return status.ok() ? sink_.Take(call) : status;
  }

  CallSink& sink_;
};

}  // namespace sirocco::cpu
