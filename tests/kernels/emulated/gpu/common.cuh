// kernels/cuda/common.cuh for the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/cuda/path.h"
#include "kernels/params.h"
#include "tests/kernels/emulated/gpu/gpu.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

using std::max;
using std::min;

inline constexpr int kWarp = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T at[kCount];
};
template <typename T, int kCount>
Pack<T, kCount> LoadPack(const T* from) {
  emulated::CheckAccess(from, sizeof(T) * kCount, sizeof(T) * kCount);
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}
template <typename T, int kCount>
void StorePack(const Pack<T, kCount>& pack, T* to) {
  emulated::CheckAccess(to, sizeof(T) * kCount, sizeof(T) * kCount);
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}
template <typename T>
T FromFloat(float x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    return __float2half_rn(x);
  }
}
template <typename T, int kCount>
void StoreFloats(const float (&from)[kCount], T* to) {
  Pack<T, kCount> pack;
  for (int i = 0; i < kCount; ++i) pack.at[i] = FromFloat<T>(from[i]);
  StorePack<T, kCount>(pack, to);
}
constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline bool IsAligned(const void* pointer, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline void __syncwarp() { emulated::WarpBarrier(kAllLanes); }
inline void __syncthreads() { emulated::Barrier(0, 0, true); }
inline float __shfl_xor_sync(uint32_t lanes, float x, int with) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = emulated::Exchange(lanes, bits, with);
  std::memcpy(&x, &bits, 4);
  return x;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
