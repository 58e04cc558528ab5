// Norms of rows, of heads, and of q and k whole, one by one: x / sqrt(mean(x^2) + epsilon) * weight
// (Zhang and Sennrich, 2019). Sums in float32, in one order: AddNormParams without a weight and then
// RmsNormParams give what AddNormParams gives.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// Of a row, each thread keeps this many groups of elements in registers; what a row has beyond
// them is read again.
constexpr int kKept = 4;

__device__ __forceinline__ float InverseRms(float squares, int width, float epsilon) {
  return rsqrtf(fmaf(squares, 1.0f / static_cast<float>(width), epsilon));
}

// A row of kCount elements at a time, for the thread whose turn it is: body(i, k) for group k at
// element i, in the same order wherever it is called. k >= kKept: not kept.
template <int kCount, typename Body>
__device__ __forceinline__ void EachGroup(int width, const Body& body) {
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    const int i = (k * kRowThreads + static_cast<int>(threadIdx.x)) * kCount;
    if (i < width) body(i, k);
  }
  for (int i = (kKept * kRowThreads + static_cast<int>(threadIdx.x)) * kCount; i < width;
       i += kRowThreads * kCount) {
    body(i, kKept);
  }
}

template <int kCount>
__device__ __forceinline__ float Squares(const float (&x)[kCount]) {
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kCount; ++j) squares = fmaf(x[j], x[j], squares);
  return squares;
}

// Reads in, writes out; the weight stays in caches. Without a weight the row goes through as it is.
// Grid: a row a block. Shared: 32 bytes.
template <typename In, typename Out, int kCount>
__global__ void __launch_bounds__(kRowThreads)
    RmsNormKernel(const __grid_constant__ RmsNormParams p) {
  __shared__ float shared[kRowThreads / kWarp];
  WaitForDependency();
  LaunchDependents();
  const int width = p.in.width;
  const In* const in = static_cast<const In*>(p.in.data) + int64_t{blockIdx.x} * width;
  Out* const out = static_cast<Out*>(p.out.data) + int64_t{blockIdx.x} * width;
  const bool norms = p.weight != nullptr;
  float kept[kKept][kCount];
  float squares = 0;
  EachGroup<kCount>(width, [&](int i, int k) {
    float x[kCount];
    LoadFloats<In, kCount>(in + i, x);
    squares += Squares(x);
    if (k == kKept) return;
#pragma unroll
    for (int j = 0; j < kCount; ++j) kept[k][j] = x[j];
  });
  const float inverse = InverseRms(BlockSum<kRowThreads>(squares, shared), width, p.epsilon);
  EachGroup<kCount>(width, [&](int i, int k) {
    float x[kCount], weight[kCount];
    if (k == kKept) {
      LoadFloats<In, kCount>(in + i, x);
    } else {
#pragma unroll
      for (int j = 0; j < kCount; ++j) x[j] = kept[k][j];
    }
    if (norms) {
      LoadFloats<float, kCount>(p.weight + i, weight);
#pragma unroll
      for (int j = 0; j < kCount; ++j) x[j] = x[j] * inverse * weight[j];
    }
    StoreFloats<Out, kCount>(x, out + i);
  });
}

// Reads sum and delta, writes sum and, where there is a weight, normed. Grid: a row a block.
// Shared: 64 bytes.
template <typename T, int kCount>
__global__ void __launch_bounds__(kRowThreads)
    AddNormKernel(const __grid_constant__ AddNormParams p) {
  __shared__ float shared[2][kRowThreads / kWarp];
  WaitForDependency();
  LaunchDependents();
  const int width = p.sum.width;
  const int64_t row = int64_t{blockIdx.x} * width;
  float* const sum = static_cast<float*>(p.sum.data) + row;
  const float* const delta = static_cast<const float*>(p.delta.data) + row;
  float delta_inverse = 1;
  if (p.post_norm != nullptr) {
    float squares = 0;
    EachGroup<kCount>(width, [&](int i, int) {
      float d[kCount];
      LoadFloats<float, kCount>(delta + i, d);
      squares += Squares(d);
    });
    delta_inverse = InverseRms(BlockSum<kRowThreads>(squares, shared[0]), width, p.epsilon);
  }
  float kept[kKept][kCount];
  float squares = 0;
  EachGroup<kCount>(width, [&](int i, int k) {
    float s[kCount], d[kCount];
    LoadFloats<float, kCount>(sum + i, s);
    LoadFloats<float, kCount>(delta + i, d);
    if (p.post_norm != nullptr) {
      float post[kCount];
      LoadFloats<float, kCount>(p.post_norm + i, post);
#pragma unroll
      for (int j = 0; j < kCount; ++j) s[j] = fmaf(__fmul_rn(d[j], delta_inverse), post[j], s[j]);
    } else {
#pragma unroll
      for (int j = 0; j < kCount; ++j) s[j] += d[j];
    }
    StoreFloats<float, kCount>(s, sum + i);
    squares += Squares(s);
    if (k == kKept) return;
#pragma unroll
    for (int j = 0; j < kCount; ++j) kept[k][j] = s[j];
  });
  if (p.weight == nullptr) return;
  const float inverse = InverseRms(BlockSum<kRowThreads>(squares, shared[1]), width, p.epsilon);
  T* const normed = static_cast<T*>(p.normed.data) + row;
  EachGroup<kCount>(width, [&](int i, int k) {
    float s[kCount], weight[kCount];
    if (k == kKept) {
      LoadFloats<float, kCount>(sum + i, s);
    } else {
#pragma unroll
      for (int j = 0; j < kCount; ++j) s[j] = kept[k][j];
    }
    LoadFloats<float, kCount>(p.weight + i, weight);
#pragma unroll
    for (int j = 0; j < kCount; ++j) s[j] = s[j] * inverse * weight[j];
    StoreFloats<T, kCount>(s, normed + i);
  });
}

struct HeadNormWork {
  void* heads;          // [count, head_dim]
  const float* weight;  // [head_dim]
  int64_t count;
  int32_t head_dim;
  float epsilon;
};

// Reads and writes each head. Grid: a head a warp.
template <typename T, int kCount>
__global__ void __launch_bounds__(kRowThreads)
    HeadNormKernel(const __grid_constant__ HeadNormWork p) {
  WaitForDependency();
  LaunchDependents();
  const int64_t number =
      int64_t{blockIdx.x} * (kRowThreads / kWarp) + static_cast<int>(threadIdx.x) / kWarp;
  if (number >= p.count) return;  // the whole warp
  T* const head = static_cast<T*>(p.heads) + number * p.head_dim;
  const int first = static_cast<int>(threadIdx.x) % kWarp * kCount;
  float squares = 0;
  for (int i = first; i < p.head_dim; i += kWarp * kCount) {
    float x[kCount];
    LoadFloats<T, kCount>(head + i, x);
    squares += Squares(x);
  }
  const float inverse = InverseRms(WarpSum(squares), p.head_dim, p.epsilon);
  for (int i = first; i < p.head_dim; i += kWarp * kCount) {
    float x[kCount], weight[kCount];
    LoadFloats<T, kCount>(head + i, x);
    LoadFloats<float, kCount>(p.weight + i, weight);
#pragma unroll
    for (int j = 0; j < kCount; ++j) x[j] = x[j] * inverse * weight[j];
    StoreFloats<T, kCount>(x, head + i);
  }
}

// Reads and writes q's and k's part of each row twice; the weights stay in caches. Grid: (rows, q
// and k). Shared: 32 bytes.
__global__ void __launch_bounds__(kRowThreads)
    NormQkKernel(const __grid_constant__ NormQkParams p) {
  __shared__ float shared[kRowThreads / kWarp];
  const LayerParams& layer = LayerOf(p.layer);
  const bool is_k = blockIdx.y == 1;
  const int width = is_k ? p.layer.kv_rows : p.layer.q_rows;
  float* const x = static_cast<float*>(p.qkv.data) + int64_t{blockIdx.x} * p.qkv.width +
                   (is_k ? p.layer.q_rows : 0);
  WaitForDependency();
  LaunchDependents();
  const float* const weight = is_k ? layer.k_whole_norm : layer.q_whole_norm;
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kRowThreads) squares += x[i] * x[i];
  const float inverse =
      InverseRms(BlockSum<kRowThreads>(squares, shared), width, layer.norm_epsilon);
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kRowThreads) {
    x[i] = x[i] * inverse * weight[i];
  }
}

template <typename In, typename Out>
cudaError_t LaunchRmsNormOf(const RmsNormParams& p, const LaunchContext& context) {
  return WithCount<8>({p.in.width}, {p.in.data, p.out.data, p.weight}, [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    return LaunchKernel(RmsNormKernel<In, Out, kCount>, dim3(static_cast<uint32_t>(p.rows)),
                        dim3(kRowThreads), 0, context, p);
  });
}

}  // namespace

// Of the two types at least one is float32, or they are the same.
cudaError_t LaunchRmsNorm(const RmsNormParams& p, const LaunchContext& context) {
  if (p.in.dtype == p.out.dtype) {
    return WithType(p.in.dtype, [&](auto zero) {
      return LaunchRmsNormOf<decltype(zero), decltype(zero)>(p, context);
    });
  }
  if (p.in.dtype == DType::kFloat32) {
    return WithType(p.out.dtype,
                    [&](auto zero) { return LaunchRmsNormOf<float, decltype(zero)>(p, context); });
  }
  return WithType(p.in.dtype,
                  [&](auto zero) { return LaunchRmsNormOf<decltype(zero), float>(p, context); });
}

cudaError_t LaunchHeadNorm(const HeadNormParams& p, const LaunchContext& context) {
  const HeadNormWork work = {p.heads.data, p.weight, int64_t{p.rows} * (p.heads.width / p.head_dim),
                             p.head_dim, p.epsilon};
  return WithType(p.heads.dtype, [&](auto zero) {
    using T = decltype(zero);
    // Four elements a lane: one access for the usual 128 of a head.
    return WithCount<4>({p.head_dim}, {p.heads.data, p.weight}, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      return LaunchKernel(HeadNormKernel<T, kCount>, dim3(Blocks(work.count, kRowThreads / kWarp)),
                          dim3(kRowThreads), 0, context, work);
    });
  });
}

cudaError_t LaunchNormQk(const NormQkParams& p, const LaunchContext& context) {
  return LaunchKernel(NormQkKernel, dim3(static_cast<uint32_t>(p.rows), 2), dim3(kRowThreads), 0,
                      context, p);
}

cudaError_t LaunchAddNorm(const AddNormParams& p, const LaunchContext& context) {
  const DType out = p.weight != nullptr ? p.normed.dtype : DType::kFloat32;
  return WithType(out, [&](auto zero) {
    using T = decltype(zero);
    return WithCount<8>(
        {p.sum.width}, {p.sum.data, p.delta.data, p.post_norm, p.weight, p.normed.data},
        [&](auto count) {
          constexpr int kCount = decltype(count)::value;
          return LaunchKernel(AddNormKernel<T, kCount>, dim3(static_cast<uint32_t>(p.rows)),
                              dim3(kRowThreads), 0, context, p);
        });
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
