// Rows of elements of any type as float32, several at a time where their widths allow.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kRowThreads = 256;

// kCount elements, by accesses of up to 16 bytes: `from` is aligned to 16 bytes, or to kCount
// elements where those are fewer.
template <typename T, int kCount>
__device__ __forceinline__ void LoadFloats(const T* from, float (&to)[kCount]) {
  constexpr int kMost = static_cast<int>(16 / sizeof(T));
  constexpr int kPack = kCount < kMost ? kCount : kMost;
#pragma unroll
  for (int i = 0; i < kCount; i += kPack) {
    const Pack<T, kPack> pack = LoadPack<T, kPack>(from + i);
#pragma unroll
    for (int j = 0; j < kPack; ++j) to[i + j] = ToFloat(pack.at[j]);
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

template <int kCount>
using Count = std::integral_constant<int, kCount>;

// Calls `body` with Count<kWide> where all of `sizes` (elements) are multiples of it and all of
// `pointers` are aligned to 16 bytes, else with Count<1>.
template <int kWide, typename Body>
auto WithCount(std::initializer_list<int64_t> sizes, std::initializer_list<const void*> pointers,
               const Body& body) {
  bool wide = true;
  for (const int64_t size : sizes) wide = wide && size % kWide == 0;
  for (const void* pointer : pointers) {
    wide = wide && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
  }
  return wide ? body(Count<kWide>{}) : body(Count<1>{});
}

inline uint32_t Blocks(int64_t items, int64_t a_block) {
  return static_cast<uint32_t>(CeilDiv(items, a_block));
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
