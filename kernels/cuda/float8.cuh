// Elements of a KV cache in float8 (E4M3, kernels/kv_scale.h) to float32 and back. Hopper has
// instructions for it; elsewhere it is integer arithmetic.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/dtype.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Two elements, the low bytes of `two`, without their scale. Exact.
__device__ __forceinline__ float2 WidenTwo(uint32_t two) {
#if SIROCCO_HOPPER
  const uint32_t bits = HalvesOfFloat8(two);
#else
  // As the upper bytes of two float16. Below the sign everything moves down by one, since a float16
  // has one more bit of exponent; its bias of 15 in place of 7 makes it 2^-8 of the value. NaN, which
  // is stored where the scale is NaN too, becomes 480.
  const uint32_t apart = (two & 0xffu) << 8 | (two & 0xff00u) << 16;
  const uint32_t bits = (apart & 0x80008000u) | (apart >> 1 & 0x3f803f80u);
#endif
  __half2 halves;
  memcpy(&halves, &bits, sizeof(halves));
  float2 values = __half22float2(halves);
#if !SIROCCO_HOPPER
  values.x *= 256;
  values.y *= 256;
#endif
  return values;
}

__device__ __forceinline__ float ToFloat(Float8 x) { return WidenTwo(x.bits).x; }

// Rounds to nearest, ties to even; of a magnitude of 448 at most.
__device__ __forceinline__ Float8 ToFloat8(float x) {
#if SIROCCO_HOPPER
  return {static_cast<uint8_t>(Float8OfTwo(x, 0))};
#else
  return Float8::FromFloat(x);
#endif
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
