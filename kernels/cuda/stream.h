// Products of few rows as a stream of the weights (stream_product.cuh): for the launch functions of
// the operations, which choose between it and the kernel of many rows.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"
#include "kernels/cuda/stream_plan.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// cudaErrorNotSupported, with nothing enqueued, for what another kernel must do: the stream takes 1
// ... kStreamRows rows whose width is a multiple of 8 elements and that fit the shared memory. The
// matrices of a layer's table cannot be asked: there each begins at a multiple of 16 bytes.
cudaError_t LaunchStream(const MatMulParams& p, const LaunchContext& context,
                         const StreamTuning& tuning = {});
cudaError_t LaunchStream(const NormQkvParams& p, const LaunchContext& context,
                         const StreamTuning& tuning = {});
cudaError_t LaunchStream(const QkvParams& p, const LaunchContext& context,
                         const StreamTuning& tuning = {});
cudaError_t LaunchStream(const OutputResidualParams& p, const LaunchContext& context,
                         const StreamTuning& tuning = {});
cudaError_t LaunchStream(const NormGateUpParams& p, const LaunchContext& context,
                         const StreamTuning& tuning = {});
cudaError_t LaunchStream(const DownResidualParams& p, const LaunchContext& context,
                         const StreamTuning& tuning = {});
cudaError_t LaunchStream(const DownNormParams& p, const LaunchContext& context,
                         const StreamTuning& tuning = {});

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
