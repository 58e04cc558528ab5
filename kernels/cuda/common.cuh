// What kernels share: element types as float32, wide loads and stores, reductions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/float8.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kWarp = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }

// Rounds to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ Float8 FromFloat<Float8>(float x) {
  return ToFloat8(x);
}

// kCount elements that are loaded and stored as one: kCount * sizeof(T) is 4, 8 or 16 bytes, and
// the address a multiple of it.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T at[kCount];
};

// Plain loads and stores. Coherent with what other kernels have written, and not moved above
// WaitForDependency, since the pointers come from a struct: never mark one __restrict__, never use
// __ldg for anything that a kernel writes.
template <typename T, int kCount>
__device__ __forceinline__ Pack<T, kCount> LoadPack(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}
template <typename T, int kCount>
__device__ __forceinline__ void StorePack(const Pack<T, kCount>& pack, T* to) {
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

// Asks kThreads threads' L2 cache for the floats from[0] ... from[count - 1].
template <int kThreads>
__device__ __forceinline__ void PrefetchFloats(const float* from, int count) {
  constexpr int kLine = 128 / sizeof(float);
  for (int i = static_cast<int>(threadIdx.x) * kLine; i < count; i += kThreads * kLine) {
    PrefetchL2(from + i);
  }
}

// kCount elements, by accesses of up to 16 bytes: `from` is aligned to 16 bytes, or to kCount
// elements where those are fewer.
template <typename T, int kCount>
__device__ __forceinline__ void LoadFloats(const T* from, float (&to)[kCount]) {
  constexpr int kMost = static_cast<int>(16 / sizeof(T));
  constexpr int kPack = kCount < kMost ? kCount : kMost;
#pragma unroll
  for (int i = 0; i < kCount; i += kPack) {
    const Pack<T, kPack> pack = LoadPack<T, kPack>(from + i);
    if constexpr (std::is_same_v<T, Float8>) {
      static_assert(kPack % 2 == 0);
#pragma unroll
      for (int j = 0; j < kPack; j += 2) {
        const float2 two = WidenTwo(pack.at[j].bits | uint32_t{pack.at[j + 1].bits} << 8);
        to[i + j] = two.x;
        to[i + j + 1] = two.y;
      }
    } else {
#pragma unroll
      for (int j = 0; j < kPack; ++j) to[i + j] = ToFloat(pack.at[j]);
    }
  }
}

template <typename T, int kCount>
__device__ __forceinline__ void StoreFloats(const float (&from)[kCount], T* to) {
  constexpr int kMost = static_cast<int>(16 / sizeof(T));
  constexpr int kPack = kCount < kMost ? kCount : kMost;
#pragma unroll
  for (int i = 0; i < kCount; i += kPack) {
    Pack<T, kPack> pack;
#pragma unroll
    for (int j = 0; j < kPack; ++j) pack.at[j] = FromFloat<T>(from[i + j]);
    StorePack<T, kPack>(pack, to + i);
  }
}

// Of a warp's lanes, for all of them; sums in one fixed order.
template <typename V>
__device__ __forceinline__ V WarpSum(V x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

template <typename V>
__device__ __forceinline__ V WarpMax(V x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    x = max(x, __shfl_xor_sync(kAllLanes, x, offset));
  }
  return x;
}

// Of this lane and those before it in the warp.
template <typename V>
__device__ __forceinline__ V WarpPrefixSum(V x) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const V other = __shfl_up_sync(kAllLanes, x, offset);
    if (lane >= offset) x += other;
  }
  return x;
}

// The sum over the block's kThreads threads, in one fixed order, for all of them. `shared`:
// [kThreads / 32] floats, free again after the next __syncthreads.
template <int kThreads>
__device__ __forceinline__ float BlockSum(float x, float* shared) {
  static_assert(kThreads % kWarp == 0);
  x = WarpSum(x);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kThreads / kWarp; ++i) sum += shared[i];
  return sum;
}

// Calls `body` with a zero of the element type, which is not float8: `using T = decltype(zero)`.
template <typename Body>
auto WithType(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kBFloat16:
      return body(__nv_bfloat16{});
    case DType::kFloat16:
      return body(__half{});
    default:  // float32
      break;
  }
  return body(float{});
}

__host__ __device__ constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A multiple of `bytes`; null too.
__host__ __device__ inline bool IsAligned(const void* pointer, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// The layer that a reference names. The counter stands still from a layer's first kernel to its
// last, and the first is launched without the programmatic attribute: it may be read before
// WaitForDependency.
__device__ __forceinline__ const LayerParams& LayerOf(const LayerRef& ref) {
  return ref.table[ref.counter != nullptr ? *ref.counter : ref.index];
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
