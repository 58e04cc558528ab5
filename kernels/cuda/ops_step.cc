// Attention, sampling and scoring.

#include "kernels/check_params.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/types.h"

namespace sirocco::cuda {

absl::Status CudaOps::Run(const DecodeAttentionParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.decode_attention,
                 launchers_.decode_attention_scratch, p);
}

absl::Status CudaOps::Run(const QkvEndParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.qkv_end, nullptr, p);
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

}  // namespace sirocco::cuda
