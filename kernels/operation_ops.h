// Operations as values: for devices that note, delay or time them, whatever they are.
#pragma once

#include <variant>

#include "absl/status/status.h"
#include "kernels/ops.h"

namespace sirocco {

// Whatever is run goes to one function.
class OperationOps : public Ops {
 public:
  absl::Status Run(const BeginStepParams& p) final { return RunAny(p); }
  absl::Status Run(const EmbedParams& p) final { return RunAny(p); }
  absl::Status Run(const RmsNormParams& p) final { return RunAny(p); }
  absl::Status Run(const MatMulParams& p) final { return RunAny(p); }
  absl::Status Run(const RotaryParams& p) final { return RunAny(p); }
  absl::Status Run(const WriteKvParams& p) final { return RunAny(p); }
  absl::Status Run(const DecodeAttentionParams& p) final { return RunAny(p); }
  absl::Status Run(const PrefillAttentionParams& p) final { return RunAny(p); }
  absl::Status Run(const AddParams& p) final { return RunAny(p); }
  absl::Status Run(const GatedActivationParams& p) final { return RunAny(p); }
  absl::Status Run(const GatherRowsParams& p) final { return RunAny(p); }
  absl::Status Run(const SampleParams& p) final { return RunAny(p); }
  absl::Status Run(const ScoreTokensParams& p) final { return RunAny(p); }
  absl::Status Run(const NormQkvParams& p) final { return RunAny(p); }
  absl::Status Run(const QkvParams& p) final { return RunAny(p); }
  absl::Status Run(const QkvAttentionParams& p) final { return RunAny(p); }
  absl::Status Run(const OutputResidualParams& p) final { return RunAny(p); }
  absl::Status Run(const NormGateUpParams& p) final { return RunAny(p); }
  absl::Status Run(const DownResidualParams& p) final { return RunAny(p); }
  absl::Status Run(const DownNormParams& p) final { return RunAny(p); }
  absl::Status Run(const HeadNormParams& p) final { return RunAny(p); }
  absl::Status Run(const AddNormParams& p) final { return RunAny(p); }
  absl::Status Run(const AdjustLogitsParams& p) final { return RunAny(p); }
  absl::Status Run(const NormQkParams& p) final { return RunAny(p); }
  absl::Status Run(const ExpertsParams& p) final { return RunAny(p); }
  absl::Status Run(const QkvEndParams& p) final { return RunAny(p); }
  absl::Status Run(const DecoderLayersParams& p) final { return RunAny(p); }
  absl::Status Run(const OutputGateUpParams& p) final { return RunAny(p); }
  absl::Status Run(const DownQkvParams& p) final { return RunAny(p); }

 protected:
  virtual absl::Status RunAny(const Operation& operation) = 0;
};

// The way back.
inline absl::Status RunOperation(Ops& ops, const Operation& operation) {
  return std::visit([&](const auto& params) { return ops.Run(params); }, operation);
}

}  // namespace sirocco
