// The operations. Each is a struct of parameters (params.h) and one overload of Ops::Run; the CPU
// and the CUDA backend implement them all, under one test body; but for DecoderLayersParams, which
// a device may offer.
//
// Run returns INVALID_ARGUMENT or UNIMPLEMENTED for a shape or type that the backend does not take,
// naming it; a device fault may show only in Device::Synchronize. While recording, Run only
// records; while preparing, it only sets up what the shape needs.
#pragma once

#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "kernels/decoder_layers.h"
#include "kernels/operation_pairs.h"
#include "kernels/params.h"

namespace sirocco {

using Operation =
    std::variant<BeginStepParams, EmbedParams, RmsNormParams, MatMulParams, RotaryParams,
                 WriteKvParams, DecodeAttentionParams, PrefillAttentionParams, AddParams,
                 GatedActivationParams, GatherRowsParams, SampleParams, ScoreTokensParams,
                 NormQkvParams, QkvParams, QkvAttentionParams, OutputResidualParams,
                 NormGateUpParams, DownResidualParams, DownNormParams, HeadNormParams,
                 AddNormParams, AdjustLogitsParams, NormQkParams, ExpertsParams, QkvEndParams,
                 DecoderLayersParams, OutputGateUpParams, DownQkvParams>;

// "rms_norm", "norm_qkv", ...: for plans as people read them, and for the device's timings.
std::string_view NameOf(const Operation& operation);

class Ops {
 public:
  virtual ~Ops() = default;
  virtual absl::Status Run(const BeginStepParams& p) = 0;
  virtual absl::Status Run(const EmbedParams& p) = 0;
  virtual absl::Status Run(const RmsNormParams& p) = 0;
  virtual absl::Status Run(const MatMulParams& p) = 0;
  virtual absl::Status Run(const RotaryParams& p) = 0;
  virtual absl::Status Run(const WriteKvParams& p) = 0;
  virtual absl::Status Run(const DecodeAttentionParams& p) = 0;
  virtual absl::Status Run(const PrefillAttentionParams& p) = 0;
  virtual absl::Status Run(const AddParams& p) = 0;
  virtual absl::Status Run(const GatedActivationParams& p) = 0;
  virtual absl::Status Run(const GatherRowsParams& p) = 0;
  virtual absl::Status Run(const SampleParams& p) = 0;
  virtual absl::Status Run(const ScoreTokensParams& p) = 0;
  virtual absl::Status Run(const NormQkvParams& p) = 0;
  virtual absl::Status Run(const QkvParams& p) = 0;
  virtual absl::Status Run(const QkvAttentionParams& p) = 0;
  virtual absl::Status Run(const OutputResidualParams& p) = 0;
  virtual absl::Status Run(const NormGateUpParams& p) = 0;
  virtual absl::Status Run(const DownResidualParams& p) = 0;
  virtual absl::Status Run(const DownNormParams& p) = 0;
  virtual absl::Status Run(const HeadNormParams& p) = 0;
  virtual absl::Status Run(const AddNormParams& p) = 0;
  virtual absl::Status Run(const AdjustLogitsParams& p) = 0;
  virtual absl::Status Run(const NormQkParams& p) = 0;
  virtual absl::Status Run(const ExpertsParams& p) = 0;
  virtual absl::Status Run(const QkvEndParams& p) = 0;
  // UNIMPLEMENTED where the device does not offer it.
  virtual absl::Status Run(const DecoderLayersParams& p) = 0;
  virtual absl::Status Run(const OutputGateUpParams& p) = 0;
  virtual absl::Status Run(const DownQkvParams& p) = 0;

  // The matrix products that an operation comes to for which a device may have a choice of kernels
  // (Device::TuneProducts): a matmul itself; of a fused operation whatever the backend makes of it,
  // on the operands and the device's own memory. The operation has been run; they hold until
  // another one is prepared or run.
  virtual std::vector<MatMulParams> ProductsOf(const Operation& operation);
};

// A pair as what it means.
template <typename Pair>
absl::Status RunInTurn(Ops& ops, const Pair& p) {
  if (absl::Status status = ops.Run(FirstOf(p)); !status.ok()) return status;
  return ops.Run(SecondOf(p));
}

}  // namespace sirocco
