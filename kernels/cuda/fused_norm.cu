// The norms of the fused operations: one block a row.
//
// Bytes: hidden, delta and sum once each, normed once; the parts of wider rows than 4,096 elements
// beyond them once a pass. Grid: R. Shared memory: 64 bytes.
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/cuda/ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kThreads = 256;
constexpr int kHeldWide = 4;  // packs of four elements a thread: rows of 4,096

template <typename T, typename Op>
__global__ void __launch_bounds__(kThreads, 2) NormsKernel(const __grid_constant__ Op p) {
  __shared__ float partial[2 * kThreads / kWarp];
  constexpr int kParts = std::is_same_v<Op, DownEndParams> ? kMostParts : 1;
  const Norms norms(p, LayerOf(p.layer));
  const auto run = [&](const auto& norm) {
    // Early: the product that comes next has weights to ask for.
    LaunchDependents();
    WaitForDependency();
    norm(blockIdx.x, partial);
  };
  if (norms.IsAligned()) {
    run(RowNorm<T, kThreads, 4, kHeldWide, kParts>(norms, p.rows));
  } else {
    run(RowNorm<T, kThreads, 1, 1, kParts>(norms, p.rows));
  }
}

template <typename Op>
cudaError_t Launch(const Op& p, const LaunchContext& context) {
  return WithType(p.normed.dtype, [&](auto zero) {
    const auto kernel = NormsKernel<decltype(zero), Op>;
    if (const cudaError_t error = PreferShared(kernel); error != cudaSuccess) return error;
    return LaunchKernel(kernel, dim3(p.rows), dim3(kThreads), 0, context, p);
  });
}

}  // namespace

cudaError_t LaunchNorms(const NormQkvParams& p, const LaunchContext& context) {
  return Launch(p, context);
}
cudaError_t LaunchNorms(const NormGateUpParams& p, const LaunchContext& context) {
  return Launch(p, context);
}
cudaError_t LaunchNorms(const DownEndParams& p, const LaunchContext& context) {
  return Launch(p, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
