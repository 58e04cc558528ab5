// The launch functions of `batch_invariant`, in place of those of kernels.h: a row's results are
// the same bits however many rows there are and whatever they are, and DecodeAttentionParams after
// QkvEndParams gives what QkvAttentionParams gives.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// product.cu, fused_*.cu: sums in the order of ordered_product.cuh. They need no scratch.
cudaError_t LaunchOrderedMatMul(const MatMulParams& p, const LaunchContext& context);
cudaError_t LaunchOrderedNormQkv(const NormQkvParams& p, const LaunchContext& context);
cudaError_t LaunchOrderedQkv(const QkvParams& p, const LaunchContext& context);
cudaError_t LaunchOrderedOutputResidual(const OutputResidualParams& p,
                                        const LaunchContext& context);
cudaError_t LaunchOrderedNormGateUp(const NormGateUpParams& p, const LaunchContext& context);
cudaError_t LaunchOrderedDownResidual(const DownResidualParams& p, const LaunchContext& context);
cudaError_t LaunchOrderedDownNorm(const DownNormParams& p, const LaunchContext& context);

// qkv_end.cu
cudaError_t LaunchOrderedQkvEnd(const QkvEndParams& p, const LaunchContext& context);

// ordered_attention.cu: of head dimensions 64, 128 and 256, where there are clusters. Any number of
// rows. What it does not take is decode_attention.cu's, in splits of 256 slots.
#if SIROCCO_HOPPER
bool OrderedAttentionTakes(const DecodeRows& p);
size_t OrderedAttentionScratch(const DecodeRows& p);
cudaError_t LaunchOrderedAttention(const DecodeRows& p, const LaunchContext& context);
#else
inline bool OrderedAttentionTakes(const DecodeRows&) { return false; }
inline size_t OrderedAttentionScratch(const DecodeRows&) { return 0; }
inline cudaError_t LaunchOrderedAttention(const DecodeRows&, const LaunchContext&) {
  return cudaErrorNotSupported;
}
#endif

// decode_attention.cu
size_t OrderedDecodeAttentionScratch(const DecodeAttentionParams& p);
cudaError_t LaunchOrderedDecodeAttention(const DecodeAttentionParams& p,
                                         const LaunchContext& context);
size_t OrderedQkvAttentionScratch(const QkvAttentionParams& p);
cudaError_t LaunchOrderedQkvAttention(const QkvAttentionParams& p, const LaunchContext& context);

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
