// Operations element by element: addition, gated activation, gathering of rows, logits' scale and
// soft-cap, bias. Each moves its operands once; no shared memory.
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

struct FlatAddParams {
  float* sum;         // [count]
  const void* delta;  // [count]
  int64_t count;
};

// Reads sum and delta, writes sum. Grid: kRowThreads * kCount elements a block.
template <typename T, int kCount>
__global__ void __launch_bounds__(kRowThreads) AddKernel(const __grid_constant__ FlatAddParams p) {
  WaitForDependency();
  LaunchDependents();
  const int64_t i = (int64_t{blockIdx.x} * kRowThreads + threadIdx.x) * kCount;
  if (i >= p.count) return;
  float sum[kCount], delta[kCount];
  LoadFloats<float, kCount>(p.sum + i, sum);
  LoadFloats<T, kCount>(static_cast<const T*>(p.delta) + i, delta);
#pragma unroll
  for (int j = 0; j < kCount; ++j) sum[j] += delta[j];
  StoreFloats<float, kCount>(sum, p.sum + i);
}

struct FlatActivationParams {
  const void* gate;  // [count]
  const void* up;    // [count]
  void* out;         // [count]
  int64_t count;
  Activation activation;
};

// Reads gate and up, writes out. Grid: kRowThreads * kCount elements a block.
template <typename T, int kCount>
__global__ void __launch_bounds__(kRowThreads)
    GatedActivationKernel(const __grid_constant__ FlatActivationParams p) {
  WaitForDependency();
  LaunchDependents();
  const int64_t i = (int64_t{blockIdx.x} * kRowThreads + threadIdx.x) * kCount;
  if (i >= p.count) return;
  float gate[kCount], up[kCount];
  LoadFloats<T, kCount>(static_cast<const T*>(p.gate) + i, gate);
  LoadFloats<T, kCount>(static_cast<const T*>(p.up) + i, up);
#pragma unroll
  for (int j = 0; j < kCount; ++j) gate[j] = Activate(p.activation, gate[j]) * up[j];
  StoreFloats<T, kCount>(gate, static_cast<T*>(p.out) + i);
}

struct GatherParams {
  const void* in;        // [any, units]
  const int32_t* index;  // [R]
  void* out;             // [R, units]
  int32_t units;         // a row
};

// Copies rows in units of whatever size they are a multiple of. Grid: a row, and kRowThreads units.
template <typename Unit>
__global__ void __launch_bounds__(kRowThreads)
    GatherKernel(const __grid_constant__ GatherParams p) {
  WaitForDependency();
  LaunchDependents();
  const int i = static_cast<int>(blockIdx.y * kRowThreads + threadIdx.x);
  if (i >= p.units) return;
  const int64_t from = int64_t{p.index[blockIdx.x]} * p.units + i;
  static_cast<Unit*>(p.out)[int64_t{blockIdx.x} * p.units + i] =
      static_cast<const Unit*>(p.in)[from];
}

struct FlatLogitsParams {
  float* logits;  // [count]
  int64_t count;
  float scale;
  float soft_cap;  // 0: none
};

// Reads and writes the logits. Grid: kRowThreads * kCount elements a block.
template <int kCount>
__global__ void __launch_bounds__(kRowThreads)
    AdjustLogitsKernel(const __grid_constant__ FlatLogitsParams p) {
  WaitForDependency();
  LaunchDependents();
  const int64_t i = (int64_t{blockIdx.x} * kRowThreads + threadIdx.x) * kCount;
  if (i >= p.count) return;
  float x[kCount];
  LoadFloats<float, kCount>(p.logits + i, x);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    x[j] *= p.scale;
    if (p.soft_cap > 0) x[j] = p.soft_cap * tanhf(x[j] / p.soft_cap);
  }
  StoreFloats<float, kCount>(x, p.logits + i);
}

struct AddBiasParams {
  void* out;          // [R, width]
  const float* bias;  // [width]
  int32_t width;
};

// Reads and writes out; the bias stays in caches. Grid: a row, and kRowThreads * kCount elements.
template <typename T, int kCount>
__global__ void __launch_bounds__(kRowThreads)
    AddBiasKernel(const __grid_constant__ AddBiasParams p) {
  WaitForDependency();
  LaunchDependents();
  const int i = static_cast<int>(blockIdx.y * kRowThreads + threadIdx.x) * kCount;
  if (i >= p.width) return;
  T* const at = static_cast<T*>(p.out) + int64_t{blockIdx.x} * p.width + i;
  float values[kCount], bias[kCount];
  LoadFloats<T, kCount>(at, values);
  LoadFloats<float, kCount>(p.bias + i, bias);
#pragma unroll
  for (int j = 0; j < kCount; ++j) values[j] += bias[j];
  StoreFloats<T, kCount>(values, at);
}

}  // namespace

cudaError_t LaunchAdd(const AddParams& p, const LaunchContext& context) {
  const FlatAddParams flat = {static_cast<float*>(p.sum.data), p.delta.data,
                              int64_t{p.rows} * p.sum.width};
  return WithType(p.delta.dtype, [&](auto zero) {
    using T = decltype(zero);
    return WithCount<8>({flat.count}, {flat.sum, flat.delta}, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      return LaunchKernel(AddKernel<T, kCount>, dim3(Blocks(flat.count, kRowThreads * kCount)),
                          dim3(kRowThreads), 0, context, flat);
    });
  });
}

cudaError_t LaunchGatedActivation(const GatedActivationParams& p, const LaunchContext& context) {
  const FlatActivationParams flat = {p.gate.data, p.up.data, p.out.data,
                                     int64_t{p.rows} * p.out.width, p.activation};
  return WithType(p.out.dtype, [&](auto zero) {
    using T = decltype(zero);
    return WithCount<8>({flat.count}, {flat.gate, flat.up, flat.out}, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      return LaunchKernel(GatedActivationKernel<T, kCount>,
                          dim3(Blocks(flat.count, kRowThreads * kCount)), dim3(kRowThreads), 0,
                          context, flat);
    });
  });
}

cudaError_t LaunchGatherRows(const GatherRowsParams& p, const LaunchContext& context) {
  const int64_t bytes = int64_t{p.in.width} * static_cast<int64_t>(BytesOf(p.in.dtype));
  const uintptr_t places =
      reinterpret_cast<uintptr_t>(p.in.data) | reinterpret_cast<uintptr_t>(p.out.data) | bytes;
  const auto launch = [&](auto unit) {
    using Unit = decltype(unit);
    const GatherParams gather = {p.in.data, p.index, p.out.data,
                                 static_cast<int32_t>(bytes / sizeof(Unit))};
    const dim3 grid(static_cast<uint32_t>(p.rows), Blocks(gather.units, kRowThreads));
    return LaunchKernel(GatherKernel<Unit>, grid, dim3(kRowThreads), 0, context, gather);
  };
  if (places % 16 == 0) return launch(uint4{});
  if (places % 4 == 0) return launch(uint32_t{});
  return launch(uint16_t{});
}

cudaError_t LaunchAdjustLogits(const AdjustLogitsParams& p, const LaunchContext& context) {
  const FlatLogitsParams flat = {static_cast<float*>(p.logits.data),
                                 int64_t{p.rows} * p.logits.width, p.scale, p.soft_cap};
  return WithCount<4>({flat.count}, {flat.logits}, [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    return LaunchKernel(AdjustLogitsKernel<kCount>, dim3(Blocks(flat.count, kRowThreads * kCount)),
                        dim3(kRowThreads), 0, context, flat);
  });
}

cudaError_t LaunchAddBias(int32_t rows, const Rows& out, const float* bias,
                          const LaunchContext& context) {
  const AddBiasParams params = {out.data, bias, out.width};
  return WithType(out.dtype, [&](auto zero) {
    using T = decltype(zero);
    return WithCount<8>({out.width}, {out.data, bias}, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      const dim3 grid(static_cast<uint32_t>(rows), Blocks(out.width, kRowThreads * kCount));
      return LaunchKernel(AddBiasKernel<T, kCount>, grid, dim3(kRowThreads), 0, context, params);
    });
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
