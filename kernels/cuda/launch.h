// What the kernels offer to the host side of the backend: one launch function an operation.
//
// Every .cu file is compiled twice, into the namespaces `hopper` (sm_90a: clusters of blocks,
// programmatic dependent launch) and `portable` (sm_80 and later); each has its own Launchers, two
// of them. Launch functions take parameters that have been checked, enqueue, and return what the
// launch returned; cudaErrorNotSupported, with nothing enqueued, for a shape that no kernel takes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/fused_products.h"
#include "kernels/params.h"

namespace sirocco::cuda {

// What a step found wrong in device memory: in host memory, which the device writes and the host
// reads when the step has ended. The first stays until the host has taken it.
struct StepFault {
  volatile uint32_t count;  // 1: the others are set
  int32_t index;            // of the block update
  BlockUpdate update;
};

struct LaunchContext {
  cudaStream_t stream = nullptr;
  int multiprocessors = 0;
  // The kernel may be launched while the one before it still runs (programmatic dependent launch):
  // every kernel waits for it before it reads what others write, and before it writes. A no-op in
  // the portable path.
  bool programmatic = false;
  // Kernels are loaded, and not launched: nothing is then loaded by a step, nor by a capture.
  bool load_only = false;
  // Scratch of the operation: at least as many bytes as its *Scratch function asked for, aligned to
  // 256. Its contents are undefined before and after.
  void* scratch = nullptr;
  // [kCounters], zero before and after every operation: arrival counters of cooperating CTAs.
  uint32_t* counters = nullptr;
  StepFault* fault = nullptr;
};

inline constexpr int kCounters = 65536;

struct Launchers {
  // step_rows.cu, norms.cu, rows.cu
  cudaError_t (*begin_step)(const BeginStepParams&, const LaunchContext&);
  cudaError_t (*embed)(const EmbedParams&, const LaunchContext&);
  cudaError_t (*rms_norm)(const RmsNormParams&, const LaunchContext&);
  cudaError_t (*head_norm)(const HeadNormParams&, const LaunchContext&);
  cudaError_t (*add_norm)(const AddNormParams&, const LaunchContext&);
  cudaError_t (*norm_qk)(const NormQkParams&, const LaunchContext&);
  cudaError_t (*rotary)(const RotaryParams&, const LaunchContext&);
  cudaError_t (*write_kv)(const WriteKvParams&, const LaunchContext&);
  cudaError_t (*add)(const AddParams&, const LaunchContext&);
  cudaError_t (*gated_activation)(const GatedActivationParams&, const LaunchContext&);
  cudaError_t (*gather_rows)(const GatherRowsParams&, const LaunchContext&);
  cudaError_t (*adjust_logits)(const AdjustLogitsParams&, const LaunchContext&);
  // out[r] += bias, for products of a library that adds none.
  cudaError_t (*add_bias)(int32_t rows, const Rows& out, const float* bias, const LaunchContext&);

  // experts.cu
  size_t (*experts_scratch)(const ExpertsParams&);
  cudaError_t (*experts)(const ExpertsParams&, const LaunchContext&);

  // read_stream.cu: reads `bytes` (of 16 each) and keeps nothing; sink: [1].
  cudaError_t (*read_stream)(const void* data, size_t bytes, uint32_t* sink, const LaunchContext&);

  // decode_attention.cu
  size_t (*decode_attention_scratch)(const DecodeAttentionParams&);
  cudaError_t (*decode_attention)(const DecodeAttentionParams&, const LaunchContext&);
  size_t (*qkv_attention_scratch)(const QkvAttentionParams&);
  cudaError_t (*qkv_attention)(const QkvAttentionParams&, const LaunchContext&);
  // qkv_end.cu
  cudaError_t (*qkv_end)(const QkvEndParams&, const LaunchContext&);
  // prefill_attention.cu
  cudaError_t (*prefill_attention)(const PrefillAttentionParams&, const LaunchContext&);

  // sample.cu, score.cu
  size_t (*sample_scratch)(const SampleParams&);
  cudaError_t (*sample)(const SampleParams&, const LaunchContext&);
  size_t (*score_tokens_scratch)(const ScoreTokensParams&);
  cudaError_t (*score_tokens)(const ScoreTokensParams&, const LaunchContext&);

  // product.cu, fused_*.cu
  size_t (*matmul_scratch)(const MatMulParams&);
  cudaError_t (*matmul)(const MatMulParams&, const LaunchContext&);
  size_t (*norm_qkv_scratch)(const NormQkvParams&);
  cudaError_t (*norm_qkv)(const NormQkvParams&, const LaunchContext&);
  size_t (*qkv_scratch)(const QkvParams&);
  cudaError_t (*qkv)(const QkvParams&, const LaunchContext&);
  size_t (*output_residual_scratch)(const OutputResidualParams&);
  cudaError_t (*output_residual)(const OutputResidualParams&, const LaunchContext&);
  size_t (*norm_gate_up_scratch)(const NormGateUpParams&);
  cudaError_t (*norm_gate_up)(const NormGateUpParams&, const LaunchContext&);
  size_t (*down_residual_scratch)(const DownResidualParams&);
  cudaError_t (*down_residual)(const DownResidualParams&, const LaunchContext&);
  size_t (*down_norm_scratch)(const DownNormParams&);
  cudaError_t (*down_norm)(const DownNormParams&, const LaunchContext&);

  // fused_norm.cu, gate_up_end.cu: what stands around the products of a library.
  cudaError_t (*norms_before_qkv)(const NormQkvParams&, const LaunchContext&);
  cudaError_t (*norms_before_gate_up)(const NormGateUpParams&, const LaunchContext&);
  cudaError_t (*norms_after_down)(const DownEndParams&, const LaunchContext&);
  cudaError_t (*gate_up_end)(const GateUpEndParams&, const LaunchContext&);
};

// OrderedLaunchers: those of `batch_invariant` (ordered.h).
namespace hopper {
const Launchers& KernelLaunchers();
const Launchers& OrderedLaunchers();
}  // namespace hopper
namespace portable {
const Launchers& KernelLaunchers();
const Launchers& OrderedLaunchers();
}  // namespace portable

}  // namespace sirocco::cuda
