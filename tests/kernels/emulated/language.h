// What kernels take of CUDA C++ itself, for the emulated GPU.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/path.h"
#include "tests/kernels/emulated/gpu.h"

// NOLINTBEGIN: the names are the language's.
#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __shared__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static thread_local
#define threadIdx sirocco::emulated::thread_index
#define blockIdx sirocco::emulated::block_index
#define gridDim sirocco::emulated::grid_size

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

using std::max;
using std::min;

// ---- Of threads --------------------------------------------------------------------------------

inline void __syncthreads() { emulated::Barrier(0, 0, true); }
inline void __syncwarp() { emulated::Exchange(0xffffffffu, nullptr, 0); }
inline void __threadfence() {}
inline unsigned Lane() { return threadIdx.x % 32; }
template <typename T>
T __shfl_sync(uint32_t lanes, T x, int lane) {
  return emulated::Exchange(lanes, x)[lane % 32];
}
template <typename T>
T __shfl_xor_sync(uint32_t lanes, T x, int with) {
  return emulated::Exchange(lanes, x)[Lane() ^ with];
}
template <typename T>
T __shfl_up_sync(uint32_t lanes, T x, unsigned by) {
  return emulated::Exchange(lanes, x)[Lane() < by ? Lane() : Lane() - by];
}
inline bool __any_sync(uint32_t lanes, bool x) {
  const bool* const all = emulated::Exchange(lanes, x);
  return std::any_of(all, all + 32, [](bool one) { return one; });
}
inline uint32_t __reduce_max_sync(uint32_t lanes, uint32_t x) {
  const uint32_t* const all = emulated::Exchange(lanes, x);
  return *std::max_element(all, all + 32);
}
// No other fiber runs in between.
inline uint32_t atomicAdd(uint32_t* at, uint32_t x) {
  const uint32_t before = *at;
  *at += x;
  return before;
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}

// ---- Of numbers --------------------------------------------------------------------------------

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(uint64_t{a} * b >> 32);
}
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t select) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<uint32_t>(bytes >> (select >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
  }
  return result;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
// NOLINTEND
