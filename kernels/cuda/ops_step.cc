// Attention, sampling, and the fused operations of the step plans.

#include "kernels/check_params.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/types.h"

namespace sirocco::cuda {

absl::Status CudaOps::Run(const DecodeAttentionParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.decode_attention,
                 launchers_.decode_attention_scratch, p);
}

absl::Status CudaOps::Run(const PrefillAttentionParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.prefill_attention, nullptr, p);
}

absl::Status CudaOps::Run(const SampleParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.sample, launchers_.sample_scratch, p);
}

absl::Status CudaOps::Run(const ScoreTokensParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.score_tokens, launchers_.score_tokens_scratch,
                 p);
}

// The last kernel of the layer before may still have the counter to move on: a layer's first one
// starts when that has ended, and so do all kernels of the layer, which may then read the counter
// at once.

absl::Status CudaOps::Run(const NormQkvParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.norm_qkv, launchers_.norm_qkv_scratch, p,
                 /*programmatic=*/p.layer.counter == nullptr);
}

absl::Status CudaOps::Run(const QkvParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.qkv, launchers_.qkv_scratch, p,
                 /*programmatic=*/p.layer.counter == nullptr);
}

absl::Status CudaOps::Run(const OutputResidualParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.output_residual,
                 launchers_.output_residual_scratch, p);
}

absl::Status CudaOps::Run(const NormGateUpParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.norm_gate_up, launchers_.norm_gate_up_scratch,
                 p);
}

absl::Status CudaOps::Run(const DownResidualParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.down_residual, launchers_.down_residual_scratch,
                 p);
}

absl::Status CudaOps::Run(const DownNormParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.down_norm, launchers_.down_norm_scratch, p);
}

}  // namespace sirocco::cuda
