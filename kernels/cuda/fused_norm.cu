// The norms of the fused operations: one block a row.
//
// Bytes: hidden, delta and sum once each, normed once. Grid: R. Shared memory: 32 KiB of the row.
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/cuda/ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kThreads = 256;
constexpr int kKept = 8192;  // floats

template <typename T, typename Op>
__global__ void __launch_bounds__(kThreads, 2) NormsKernel(const __grid_constant__ Op p) {
  __shared__ __align__(16) float kept[kKept];
  __shared__ float partial[2 * kThreads / kWarp];
  const Norms norms(p, LayerOf(p.layer));
  WaitForDependency();
  LaunchDependents();
  if (norms.IsAligned()) {
    NormRow<T, kThreads, 4, kKept>(norms, blockIdx.x, kept, partial);
  } else {
    NormRow<T, kThreads, 1, kKept>(norms, blockIdx.x, kept, partial);
  }
}

template <typename Op>
cudaError_t Launch(const Op& p, const LaunchContext& context) {
  return WithType(p.normed.dtype, [&](auto zero) {
    return LaunchKernel(NormsKernel<decltype(zero), Op>, dim3(p.rows), dim3(kThreads), 0, context,
                        p);
  });
}

}  // namespace

cudaError_t LaunchNorms(const NormQkvParams& p, const LaunchContext& context) {
  return Launch(p, context);
}
cudaError_t LaunchNorms(const NormGateUpParams& p, const LaunchContext& context) {
  return Launch(p, context);
}
cudaError_t LaunchNorms(const DownNormParams& p, const LaunchContext& context) {
  return Launch(p, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
