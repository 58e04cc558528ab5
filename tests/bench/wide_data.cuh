// What benches of products of many rows share: numbers that look random, memory, and the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/launch.h"

#define MUST(call)                                                                         \
  do {                                                                                     \
    const auto error_ = (call);                                                            \
    if (static_cast<int>(error_) != 0) {                                                   \
      std::printf("%s:%d: %s: %d\n", __FILE__, __LINE__, #call, static_cast<int>(error_)); \
      std::exit(1);                                                                        \
    }                                                                                      \
  } while (false)

namespace sirocco {

using Element = __nv_bfloat16;

// Of -1.5 to 1.5, nearly normal.
inline __device__ float Noise(uint64_t i, uint32_t seed) {
  uint64_t x = i * 0x9e3779b97f4a7c15u + seed * 0xd1b54a32d192ed03u + 1;
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  x ^= x >> 31;
  return (static_cast<float>(x & 0xffff) + static_cast<float>(x >> 16 & 0xffff) +
          static_cast<float>(x >> 32 & 0xffff)) /
             65536.0f -
         1.5f;
}
inline __device__ void Set(float& to, float x) { to = x; }
inline __device__ void Set(Element& to, float x) { to = __float2bfloat16_rn(x); }

template <typename T>
__global__ void FillKernel(T* to, int64_t count, float scale, uint32_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    Set(to[i], Noise(i, seed) * scale);
  }
}

inline void* Allocate(int64_t bytes) {
  void* p = nullptr;
  MUST(cudaMalloc(&p, bytes));
  return p;
}

// On the first device, which is told.
inline cuda::LaunchContext MakeContext() {
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  cuda::LaunchContext context;
  MUST(cudaStreamCreate(&context.stream));
  context.multiprocessors = properties.multiProcessorCount;
  context.programmatic = true;
  std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  return context;
}

}  // namespace sirocco
