// The launch functions of one code path, by the file that has them: launchers.cu puts them into the
// path's Launchers. What each takes and does: launch.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// step_rows.cu
cudaError_t LaunchBeginStep(const BeginStepParams& p, const LaunchContext& context);
cudaError_t LaunchEmbed(const EmbedParams& p, const LaunchContext& context);
cudaError_t LaunchRotary(const RotaryParams& p, const LaunchContext& context);
cudaError_t LaunchWriteKv(const WriteKvParams& p, const LaunchContext& context);

// norms.cu
cudaError_t LaunchRmsNorm(const RmsNormParams& p, const LaunchContext& context);
cudaError_t LaunchHeadNorm(const HeadNormParams& p, const LaunchContext& context);
cudaError_t LaunchAddNorm(const AddNormParams& p, const LaunchContext& context);
cudaError_t LaunchNormQk(const NormQkParams& p, const LaunchContext& context);

// rows.cu
cudaError_t LaunchAdd(const AddParams& p, const LaunchContext& context);
cudaError_t LaunchGatedActivation(const GatedActivationParams& p, const LaunchContext& context);
cudaError_t LaunchGatherRows(const GatherRowsParams& p, const LaunchContext& context);
cudaError_t LaunchAdjustLogits(const AdjustLogitsParams& p, const LaunchContext& context);
cudaError_t LaunchAddBias(int32_t rows, const Rows& out, const float* bias,
                          const LaunchContext& context);

// read_stream.cu
cudaError_t LaunchReadStream(const void* data, size_t bytes, uint32_t* sink,
                             const LaunchContext& context);

// The rows of a decode step's attention, of either operation: q, shape and kv are given, or stand
// in `qkv` and in the layer's table.
struct DecodeRows {
  int32_t rows = 0;
  RowMap map;
  Lanes lanes;
  Rows q;
  AttentionShape shape;
  KvLayer kv;
  LayerRef layer;  // where its table is set, `shape` and `kv` come from there
  Rows qkv;        // where it is set, q, k and v are still to be ended (params.h)
  Rows out;
};

// cluster_attention.cu. What it does not take, for any number of rows up to these,
// decode_attention.cu must do: other head dimensions, and all of it where there are no clusters.
#if SIROCCO_HOPPER
bool ClusterAttentionTakes(const DecodeRows& p);
size_t ClusterAttentionScratch(const DecodeRows& p);
cudaError_t LaunchClusterAttention(const DecodeRows& p, const LaunchContext& context);
#else
inline bool ClusterAttentionTakes(const DecodeRows&) { return false; }
inline size_t ClusterAttentionScratch(const DecodeRows&) { return 0; }
inline cudaError_t LaunchClusterAttention(const DecodeRows&, const LaunchContext&) {
  return cudaErrorNotSupported;
}
#endif

// decode_attention.cu
size_t DecodeAttentionScratch(const DecodeAttentionParams& p);
cudaError_t LaunchDecodeAttention(const DecodeAttentionParams& p, const LaunchContext& context);
size_t QkvAttentionScratch(const QkvAttentionParams& p);
cudaError_t LaunchQkvAttention(const QkvAttentionParams& p, const LaunchContext& context);

// prefill_attention.cu
cudaError_t LaunchPrefillAttention(const PrefillAttentionParams& p, const LaunchContext& context);

// sample.cu
size_t SampleScratch(const SampleParams& p);
cudaError_t LaunchSample(const SampleParams& p, const LaunchContext& context);

// score.cu
size_t ScoreTokensScratch(const ScoreTokensParams& p);
cudaError_t LaunchScoreTokens(const ScoreTokensParams& p, const LaunchContext& context);

// product.cu
size_t MatMulScratch(const MatMulParams& p);
cudaError_t LaunchMatMul(const MatMulParams& p, const LaunchContext& context);

// fused_*.cu
size_t NormQkvScratch(const NormQkvParams& p);
cudaError_t LaunchNormQkv(const NormQkvParams& p, const LaunchContext& context);
size_t QkvScratch(const QkvParams& p);
cudaError_t LaunchQkv(const QkvParams& p, const LaunchContext& context);
size_t OutputResidualScratch(const OutputResidualParams& p);
cudaError_t LaunchOutputResidual(const OutputResidualParams& p, const LaunchContext& context);
size_t NormGateUpScratch(const NormGateUpParams& p);
cudaError_t LaunchNormGateUp(const NormGateUpParams& p, const LaunchContext& context);
size_t DownResidualScratch(const DownResidualParams& p);
cudaError_t LaunchDownResidual(const DownResidualParams& p, const LaunchContext& context);
size_t DownNormScratch(const DownNormParams& p);
cudaError_t LaunchDownNorm(const DownNormParams& p, const LaunchContext& context);

// expert_choice.cu, expert_products.cu: the two parts of an operation of at most kExpertRows rows.
struct ExpertWork;
cudaError_t LaunchExpertChoice(const ExpertWork& work, const LaunchContext& context);
cudaError_t LaunchExpertProducts(const ExpertWork& work, const LaunchContext& context);

// experts.cu
size_t ExpertsScratch(const ExpertsParams& p);
cudaError_t LaunchExperts(const ExpertsParams& p, const LaunchContext& context);

// qkv_end.cu
cudaError_t LaunchQkvEnd(const QkvEndParams& p, const LaunchContext& context);

// gate_up_end.cu
cudaError_t LaunchGateUpEnd(const GateUpEndParams& p, const LaunchContext& context);

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
