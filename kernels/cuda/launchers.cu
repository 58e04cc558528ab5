// The table of a path's launch functions.
#include "kernels/cuda/kernels.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

const Launchers& KernelLaunchers() {
  // Null: the operation has no kernel yet, and the backend says so by name.
  static constexpr Launchers kLaunchers = {
      // step_rows.cu, norm_rows.cu, rows.cu
      .begin_step = nullptr,
      .embed = nullptr,
      .rms_norm = nullptr,
      .head_norm = nullptr,
      .add_norm = nullptr,
      .rotary = nullptr,
      .write_kv = nullptr,
      .add = nullptr,
      .gated_activation = nullptr,
      .gather_rows = nullptr,
      .add_bias = nullptr,
      // decode_attention.cu
      .decode_attention_scratch = DecodeAttentionScratch,
      .decode_attention = LaunchDecodeAttention,
      // prefill_attention.cu
      .prefill_attention = LaunchPrefillAttention,
      // sample.cu, score.cu
      .sample_scratch = SampleScratch,
      .sample = LaunchSample,
      .score_tokens_scratch = ScoreTokensScratch,
      .score_tokens = LaunchScoreTokens,
      // product.cu
      .matmul_scratch = nullptr,
      .matmul = nullptr,
      // fused*.cu
      .norm_qkv_scratch = nullptr,
      .norm_qkv = nullptr,
      .qkv_scratch = nullptr,
      .qkv = nullptr,
      .output_residual_scratch = nullptr,
      .output_residual = nullptr,
      .norm_gate_up_scratch = nullptr,
      .norm_gate_up = nullptr,
      .down_residual_scratch = nullptr,
      .down_residual = nullptr,
      .down_norm_scratch = nullptr,
      .down_norm = nullptr,
  };
  return kLaunchers;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
