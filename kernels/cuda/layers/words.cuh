// What blocks of one running kernel leave for each other: words of 8 or 16 bytes, values and a tag,
// stored and loaded whole. Who needs a word reads it until its tag is the one that is wanted: no
// flag beside it, no fence, one way through the L2 cache. As NCCL's low-latency protocol does it.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

__device__ __forceinline__ void StoreWord(uint64_t* to, uint32_t value, uint32_t tag) {
  const uint64_t word = uint64_t{tag} << 32 | value;
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"(word) : "memory");
}
__device__ __forceinline__ void StoreWord(uint64_t* to, float value, uint32_t tag) {
  StoreWord(to, __float_as_uint(value), tag);
}
struct TwoWords {
  uint64_t at[2];

  __device__ __forceinline__ bool Has(uint32_t tag) const {
    return static_cast<uint32_t>(at[0] >> 32) == tag && static_cast<uint32_t>(at[1] >> 32) == tag;
  }
  __device__ __forceinline__ uint32_t bits(int i) const { return static_cast<uint32_t>(at[i]); }
  __device__ __forceinline__ float value(int i) const { return __uint_as_float(bits(i)); }
};
// Of two words that lie together, aligned to 16 bytes.
__device__ __forceinline__ TwoWords LoadTwoWords(const uint64_t* from) {
  TwoWords words;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];"
               : "=l"(words.at[0]), "=l"(words.at[1])
               : "l"(from)
               : "memory");
  return words;
}

__device__ __forceinline__ void StoreTwoWords(uint64_t* to, float a, float b, uint32_t tag) {
  const uint64_t low = uint64_t{tag} << 32 | __float_as_uint(a);
  const uint64_t high = uint64_t{tag} << 32 | __float_as_uint(b);
  asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(to), "l"(low), "l"(high)
               : "memory");
}

// 16 bytes as one: three values of 32 bits and a tag.
struct WideWord {
  uint64_t at[2];

  __device__ __forceinline__ bool Has(uint32_t tag) const {
    return static_cast<uint32_t>(at[1] >> 32) == tag;
  }
  __device__ __forceinline__ uint32_t bits(int i) const {
    return static_cast<uint32_t>(i == 1 ? at[0] >> 32 : at[i / 2]);
  }
};
__device__ __forceinline__ WideWord LoadWideWord(const uint64_t* from) {
  WideWord word;
  asm volatile(
      "{\n.reg .b128 t;\n"
      "ld.relaxed.gpu.global.b128 t, [%2];\n"
      "mov.b128 {%0, %1}, t;\n}"
      : "=l"(word.at[0]), "=l"(word.at[1])
      : "l"(from)
      : "memory");
  return word;
}
__device__ __forceinline__ void StoreWideWord(uint64_t* to, uint32_t a, uint32_t b, uint32_t c,
                                              uint32_t tag) {
  const uint64_t low = uint64_t{b} << 32 | a;
  const uint64_t high = uint64_t{tag} << 32 | c;
  asm volatile(
      "{\n.reg .b128 t;\n"
      "mov.b128 t, {%1, %2};\n"
      "st.relaxed.gpu.global.b128 [%0], t;\n}" ::"l"(to),
      "l"(low), "l"(high)
      : "memory");
}

// How many blocks have left their words: only a hint, without order, so that not all who wait read
// all words again and again.
__device__ __forceinline__ void Count(uint32_t* counter) {
  asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
__device__ __forceinline__ void WaitForCount(const uint32_t* counter, uint32_t count) {
  uint32_t value;
  do {
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  } while (static_cast<int32_t>(value - count) < 0);
}

// 16 bytes as one: four floats, rounded to 28 bits, and 16 bits of a tag.
struct FourWord {
  uint32_t at[4];

  __device__ __forceinline__ bool Has(uint32_t tag) const { return at[3] >> 16 == (tag & 0xffff); }
  __device__ __forceinline__ float value(int i) const {
    const uint32_t bits = i == 0   ? at[0] << 4
                          : i == 1 ? __funnelshift_r(at[0], at[1], 28) << 4
                          : i == 2 ? __funnelshift_r(at[1], at[2], 24) << 4
                                   : __funnelshift_r(at[2], at[3], 20) << 4;
    return __uint_as_float(bits);
  }
};
__device__ __forceinline__ FourWord LoadFourWord(const uint64_t* from) {
  const WideWord word = LoadWideWord(from);
  return {{word.bits(0), word.bits(1), word.bits(2), static_cast<uint32_t>(word.at[1] >> 32)}};
}
__device__ __forceinline__ void StoreFourWord(uint64_t* to, const float (&values)[4],
                                              uint32_t tag) {
  uint32_t v[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = (__float_as_uint(values[i]) + 8) >> 4;
  StoreWideWord(to, v[0] | v[1] << 28, v[1] >> 4 | v[2] << 24, v[2] >> 8 | v[3] << 20,
                v[3] >> 12 | tag << 16);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
