// The norms between an output product that came in parts and gate and up: one block a row.
//
// Bytes: all parts and hidden once each, sum and normed once. Grid: R. Shared memory: 64 bytes.
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wide_product.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kThreads = 256;
constexpr int kHeldWide = 4;  // packs of four elements a thread: rows of 4,096

template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    PartsNormsKernel(const __grid_constant__ GateUpPartsParams p) {
  __shared__ float partial[2 * kThreads / kWarp];
  Norms norms(p, LayerOf(p.layer));
  norms.delta = p.parts_sums;
  norms.parts = p.parts;
  // Where nothing is normed before it joins, the product would have completed the stream.
  if (norms.post == nullptr) norms.sum = static_cast<float*>(p.hidden.data);
  const auto run = [&](const auto& norm) {
    // Early: the product that comes next has weights to ask for.
    LaunchDependents();
    WaitForDependency();
    norm(blockIdx.x, partial);
  };
  if (norms.IsAligned()) {
    run(RowNorm<T, kThreads, 4, kHeldWide, kMostParts>(norms, p.rows));
  } else {
    run(RowNorm<T, kThreads, 1, 1, kMostParts>(norms, p.rows));
  }
}

}  // namespace

cudaError_t LaunchPartsNorms(const GateUpPartsParams& p, const LaunchContext& context) {
  return WithType(p.normed.dtype, [&](auto zero) {
    const auto kernel = PartsNormsKernel<decltype(zero)>;
    if (const cudaError_t error = PreferShared(kernel); error != cudaSuccess) return error;
    return LaunchKernel(kernel, dim3(p.rows), dim3(kThreads), 0, context, p);
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
