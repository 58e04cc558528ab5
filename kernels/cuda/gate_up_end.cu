// The activation after a library's products of gate and up.
//
// Reads gate and up once, writes out once; the biases stay in caches. Grid: a row, and kRowThreads
// * kCount columns. No shared memory.
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// Zeros where there is no bias.
template <int kCount>
__device__ __forceinline__ void LoadBias(const float* bias, int column, float (&to)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = 0;
  if (bias != nullptr) LoadFloats<float, kCount>(bias + column, to);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kRowThreads)
    GateUpEndKernel(const __grid_constant__ GateUpEndParams p) {
  const int64_t row = blockIdx.x;
  const int column = static_cast<int>(blockIdx.y * kRowThreads + threadIdx.x) * kCount;
  const bool exists = column < p.out.width;
  float gate_bias[kCount], up_bias[kCount];
  if (exists) {
    LoadBias(p.gate_bias, column, gate_bias);
    LoadBias(p.up_bias, column, up_bias);
  }
  WaitForDependency();
  LaunchDependents();
  if (!exists) return;
  float gate[kCount], up[kCount];
  LoadFloats<T, kCount>(static_cast<const T*>(p.gate.data) + row * p.gate.pitch + column, gate);
  LoadFloats<T, kCount>(static_cast<const T*>(p.up.data) + row * p.up.pitch + column, up);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    gate[i] = Activate(p.activation, gate[i] + gate_bias[i]) * (up[i] + up_bias[i]);
  }
  StoreFloats<T, kCount>(gate, static_cast<T*>(p.out.data) + row * p.out.width + column);
}

}  // namespace

cudaError_t LaunchGateUpEnd(const GateUpEndParams& p, const LaunchContext& context) {
  return WithType(p.out.dtype, [&](auto zero) {
    using T = decltype(zero);
    return WithCount<8>(
        {p.out.width, p.gate.pitch, p.up.pitch},
        {p.gate.data, p.up.data, p.gate_bias, p.up_bias, p.out.data}, [&](auto count) {
          constexpr int kCount = decltype(count)::value;
          const dim3 grid(static_cast<uint32_t>(p.rows), Blocks(p.out.width, kRowThreads * kCount));
          return LaunchKernel(GateUpEndKernel<T, kCount>, grid, dim3(kRowThreads), 0, context, p);
        });
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
