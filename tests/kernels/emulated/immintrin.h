// The AVX-512 instructions that kernels/cpu/block_vnni.cc uses, one by one in plain C++: its
// products are tested on processors that have none.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/dtype.h"

// NOLINTBEGIN: the names are the instructions'.
struct __m512i {
  int8_t bytes[64];
};
struct __m512 {
  float at[16];
};
struct EmulatedHalves {
  uint16_t at[16];
};
#define __m256i EmulatedHalves

template <typename T>
T EmulatedLane(const __m512i& a, int i) {
  T value;
  std::memcpy(&value, a.bytes + i * static_cast<int>(sizeof(T)), sizeof(T));
  return value;
}
// Lane by lane, of type T.
template <typename T, typename Make>
__m512i EmulatedLanes(const Make& make) {
  __m512i result;
  for (int i = 0; i < 64 / static_cast<int>(sizeof(T)); ++i) {
    const T value = static_cast<T>(make(i));
    std::memcpy(result.bytes + i * static_cast<int>(sizeof(T)), &value, sizeof(T));
  }
  return result;
}
template <typename Make>
__m512 EmulatedFloats(const Make& make) {
  __m512 result;
  for (int i = 0; i < 16; ++i) result.at[i] = make(i);
  return result;
}

inline __m512i _mm512_loadu_si512(const void* from) {
  __m512i result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}
inline EmulatedHalves _mm256_loadu_si256(const EmulatedHalves* from) {
  EmulatedHalves result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}
inline void _mm512_storeu_ps(float* to, __m512 a) { std::memcpy(to, a.at, sizeof(a.at)); }
inline __m512i _mm512_set1_epi8(int8_t value) {
  return EmulatedLanes<int8_t>([&](int) { return value; });
}
inline __m512i _mm512_set1_epi32(int32_t value) {
  return EmulatedLanes<int32_t>([&](int) { return value; });
}
inline __m512 _mm512_set1_ps(float value) {
  return EmulatedFloats([&](int) { return value; });
}
inline __m512 _mm512_setzero_ps() { return _mm512_set1_ps(0); }
inline __m512i _mm512_xor_si512(__m512i a, __m512i b) {
  return EmulatedLanes<int8_t>([&](int i) { return a.bytes[i] ^ b.bytes[i]; });
}
inline __m512i _mm512_and_si512(__m512i a, __m512i b) {
  return EmulatedLanes<int8_t>([&](int i) { return a.bytes[i] & b.bytes[i]; });
}
inline __m512i _mm512_srli_epi16(__m512i a, int bits) {
  return EmulatedLanes<uint16_t>([&](int i) { return EmulatedLane<uint16_t>(a, i) >> bits; });
}
// Four products of unsigned bytes of `a` with signed ones of `b`, without saturation.
inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  return EmulatedLanes<int32_t>([&](int i) {
    int32_t total = EmulatedLane<int32_t>(sum, i);
    for (int k = 4 * i; k < 4 * i + 4; ++k) {
      total += static_cast<uint8_t>(a.bytes[k]) * b.bytes[k];
    }
    return total;
  });
}
inline __m512 _mm512_cvtph_ps(EmulatedHalves a) {
  return EmulatedFloats([&](int i) { return sirocco::Float16ToFloat(a.at[i]); });
}
inline __m512 _mm512_cvtepi32_ps(__m512i a) {
  return EmulatedFloats([&](int i) { return static_cast<float>(EmulatedLane<int32_t>(a, i)); });
}
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) {
  return EmulatedFloats([&](int i) { return a.at[i] * b.at[i]; });
}
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return EmulatedFloats([&](int i) { return std::fma(a.at[i], b.at[i], c.at[i]); });
}
// NOLINTEND
