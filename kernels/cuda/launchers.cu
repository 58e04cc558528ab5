// The tables of a path's launch functions.
#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ordered.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// What does the same to a row whatever stands beside it, and however many rows there are.
constexpr Launchers OfSingleRows() {
  return {
      // step_rows.cu, norms.cu, rows.cu
      .begin_step = LaunchBeginStep,
      .embed = LaunchEmbed,
      .rms_norm = LaunchRmsNorm,
      .head_norm = LaunchHeadNorm,
      .add_norm = LaunchAddNorm,
      .norm_qk = LaunchNormQk,
      .rotary = LaunchRotary,
      .write_kv = LaunchWriteKv,
      .add = LaunchAdd,
      .gated_activation = LaunchGatedActivation,
      .gather_rows = LaunchGatherRows,
      .adjust_logits = LaunchAdjustLogits,
      // experts.cu
      .experts_scratch = ExpertsScratch,
      .experts = LaunchExperts,
      // read_stream.cu
      .read_stream = LaunchReadStream,
      // sample.cu, score.cu
      .sample_scratch = SampleScratch,
      .sample = LaunchSample,
      .score_tokens_scratch = ScoreTokensScratch,
      .score_tokens = LaunchScoreTokens,
  };
}

constexpr Launchers Fastest() {
  Launchers kernels = OfSingleRows();
  // decode_attention.cu
  kernels.decode_attention_scratch = DecodeAttentionScratch;
  kernels.decode_attention = LaunchDecodeAttention;
  kernels.qkv_attention_scratch = QkvAttentionScratch;
  kernels.qkv_attention = LaunchQkvAttention;
  // qkv_end.cu
  kernels.qkv_end = LaunchQkvEnd;
  // prefill_attention.cu
  kernels.prefill_attention = LaunchPrefillAttention;
  // product.cu
  kernels.matmul_scratch = MatMulScratch;
  kernels.matmul = LaunchMatMul;
  // rows.cu
  kernels.add_bias = LaunchAddBias;
  // fused_*.cu
  kernels.norm_qkv_scratch = NormQkvScratch;
  kernels.norm_qkv = LaunchNormQkv;
  kernels.qkv_scratch = QkvScratch;
  kernels.qkv = LaunchQkv;
  kernels.output_residual_scratch = OutputResidualScratch;
  kernels.output_residual = LaunchOutputResidual;
  kernels.norm_gate_up_scratch = NormGateUpScratch;
  kernels.norm_gate_up = LaunchNormGateUp;
  kernels.down_residual_scratch = DownResidualScratch;
  kernels.down_residual = LaunchDownResidual;
  kernels.down_norm_scratch = DownNormScratch;
  kernels.down_norm = LaunchDownNorm;
  // fused_norm.cu, gate_up_end.cu
  kernels.norms_before_qkv = LaunchNorms;
  kernels.norms_before_gate_up = LaunchNorms;
  kernels.norms_after_down = LaunchNorms;
  kernels.gate_up_end = LaunchGateUpEnd;
  return kernels;
}

// Whatever is not named here, or above, is null: batch_invariant does not have it.
constexpr Launchers Ordered() {
  Launchers kernels = OfSingleRows();
  kernels.decode_attention_scratch = OrderedDecodeAttentionScratch;
  kernels.decode_attention = LaunchOrderedDecodeAttention;
  kernels.qkv_attention_scratch = OrderedQkvAttentionScratch;
  kernels.qkv_attention = LaunchOrderedQkvAttention;
  kernels.qkv_end = LaunchOrderedQkvEnd;
  kernels.matmul = LaunchOrderedMatMul;
  kernels.norm_qkv = LaunchOrderedNormQkv;
  kernels.qkv = LaunchOrderedQkv;
  kernels.output_residual = LaunchOrderedOutputResidual;
  kernels.norm_gate_up = LaunchOrderedNormGateUp;
  kernels.down_residual = LaunchOrderedDownResidual;
  kernels.down_norm = LaunchOrderedDownNorm;
  // Around panels: a block a row.
  kernels.norms_before_qkv = LaunchNorms;
  kernels.norms_before_gate_up = LaunchNorms;
  kernels.norms_after_down = LaunchNorms;
  return kernels;
}

}  // namespace

const Launchers& KernelLaunchers() {
  static constexpr Launchers kLaunchers = Fastest();
  return kLaunchers;
}

const Launchers& OrderedLaunchers() {
  static constexpr Launchers kLaunchers = Ordered();
  return kLaunchers;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
