// The tables of a path's launch functions.
#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ordered.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

template <typename Params>
size_t NoScratch(const Params& /*p*/) {
  return 0;
}

constexpr Launchers Kernels() {
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
    .add_bias = LaunchAddBias,
    // experts.cu
    .experts_scratch = ExpertsScratch,
    .experts = LaunchExperts,
    // read_stream.cu
    .read_stream = LaunchReadStream,
    // decode_attention.cu
    .decode_attention_scratch = DecodeAttentionScratch,
    .decode_attention = LaunchDecodeAttention,
    .qkv_attention_scratch = QkvAttentionScratch,
    .qkv_attention = LaunchQkvAttention,
    // qkv_end.cu
    .qkv_end = LaunchQkvEnd,
    // prefill_attention.cu
    .prefill_attention = LaunchPrefillAttention,
    // sample.cu, score.cu
    .sample_scratch = SampleScratch,
    .sample = LaunchSample,
    .score_tokens_scratch = ScoreTokensScratch,
    .score_tokens = LaunchScoreTokens,
    // product.cu
    .matmul_scratch = MatMulScratch,
    .matmul = LaunchMatMul,
    // fused_*.cu
    .norm_qkv_scratch = NormQkvScratch,
    .norm_qkv = LaunchNormQkv,
    .qkv_scratch = QkvScratch,
    .qkv = LaunchQkv,
    .output_residual_scratch = OutputResidualScratch,
    .output_residual = LaunchOutputResidual,
    .norm_gate_up_scratch = NormGateUpScratch,
    .norm_gate_up = LaunchNormGateUp,
    .down_residual_scratch = DownResidualScratch,
    .down_residual = LaunchDownResidual,
    .down_norm_scratch = DownNormScratch,
    .down_norm = LaunchDownNorm,
    // fused_norm.cu, gate_up_end.cu
    .norms_before_qkv = LaunchNorms,
    .norms_before_gate_up = LaunchNorms,
    .norms_after_down = LaunchNorms,
    .gate_up_end = LaunchGateUpEnd,
  };
}

// All but what would depend on the rows.
constexpr Launchers Ordered() {
  Launchers launchers = Kernels();
  launchers.decode_attention_scratch = OrderedDecodeAttentionScratch;
  launchers.decode_attention = LaunchOrderedDecodeAttention;
  launchers.qkv_attention_scratch = OrderedQkvAttentionScratch;
  launchers.qkv_attention = LaunchOrderedQkvAttention;
  launchers.qkv_end = LaunchOrderedQkvEnd;
  launchers.matmul_scratch = NoScratch<MatMulParams>;
  launchers.matmul = LaunchOrderedMatMul;
  launchers.norm_qkv_scratch = NoScratch<NormQkvParams>;
  launchers.norm_qkv = LaunchOrderedNormQkv;
  launchers.qkv_scratch = NoScratch<QkvParams>;
  launchers.qkv = LaunchOrderedQkv;
  launchers.output_residual_scratch = NoScratch<OutputResidualParams>;
  launchers.output_residual = LaunchOrderedOutputResidual;
  launchers.norm_gate_up_scratch = NoScratch<NormGateUpParams>;
  launchers.norm_gate_up = LaunchOrderedNormGateUp;
  launchers.down_residual_scratch = NoScratch<DownResidualParams>;
  launchers.down_residual = LaunchOrderedDownResidual;
  launchers.down_norm_scratch = NoScratch<DownNormParams>;
  launchers.down_norm = LaunchOrderedDownNorm;
  return launchers;
}

}  // namespace

const Launchers& KernelLaunchers() {
  static constexpr Launchers kLaunchers = Kernels();
  return kLaunchers;
}

const Launchers& OrderedLaunchers() {
  static constexpr Launchers kLaunchers = Ordered();
  return kLaunchers;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
