// kernels/cuda/ptx.cuh for the emulated GPU: what attention of a decode step and panels take of it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/path.h"
#include "kernels/dtype.h"
#include "tests/kernels/emulated/gpu.h"
#include "tests/kernels/emulated/language.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline uint32_t SharedAddress(const void* p) { return emulated::SharedAddress(p); }
inline void WaitForDependency() { emulated::WaitForKernelBefore(); }
inline void LaunchDependents() {}
inline void PrefetchL2(const void*) {}
inline void LoadTile(uint4& to, const void* from) { to = *static_cast<const uint4*>(from); }
inline void LoadTile(uint2& to, const void* from) { to = *static_cast<const uint2*>(from); }
// The blocks of a grid run one after the other.
inline void AddRelease(uint32_t* to, uint32_t x) { *to += x; }
inline uint32_t LoadAcquire(const uint32_t* from) { return *from; }
inline float Exp2(float x) { return std::exp2(x); }

// ---- Copies ------------------------------------------------------------------------------------

inline uint64_t EvictFirstPolicy() { return 0; }
inline void CopyAsync16To(uint32_t shared, const void* global) {
  emulated::CopyLater16(shared, global);
}
inline void CopyAsync16To(uint32_t shared, const void* global, uint64_t /*policy*/) {
  emulated::CopyLater16(shared, global);
}
inline void CopyAsync16(void* shared, const void* global) {
  emulated::CopyLater16(SharedAddress(shared), global);
}
inline void CommitCopies() { emulated::CommitGroup(emulated::Later::kCopies); }
template <int kPending>
void WaitForCopies() {
  emulated::WaitGroups(emulated::Later::kCopies, kPending);
}

// ---- Matrices ----------------------------------------------------------------------------------

inline void LoadMatrix4At(uint32_t (&m)[4], uint32_t row) {
  const uint32_t* const rows = emulated::Exchange(0xffffffffu, row);
  for (int i = 0; i < 4; ++i) {
    std::memcpy(&m[i], emulated::SharedAt(rows[8 * i + Lane() / 4], 16) + Lane() % 4 * 4, 4);
  }
}
inline void LoadMatrix4TransposedAt(uint32_t (&m)[4], uint32_t row) {
  const uint32_t* const rows = emulated::Exchange(0xffffffffu, row);
  for (int i = 0; i < 4; ++i) {
    uint16_t two[2];
    for (int j = 0; j < 2; ++j) {
      const unsigned char* const at = emulated::SharedAt(rows[8 * i + Lane() % 4 * 2 + j], 16);
      std::memcpy(&two[j], at + Lane() / 4 * 2, 2);
    }
    std::memcpy(&m[i], two, 4);
  }
}
inline uint32_t TransposeMatrix(uint32_t m) {
  const uint32_t* const all = emulated::Exchange(0xffffffffu, m);
  uint32_t result = 0;
  for (int j = 0; j < 2; ++j) {
    const int row = Lane() % 4 * 2 + j, column = Lane() / 4;
    result |= (all[4 * row + column / 2] >> column % 2 * 16 & 0xffff) << (16 * j);
  }
  return result;
}

template <typename T>
float ElementOf(uint32_t word, int half) {
  const auto bits = static_cast<uint16_t>(word >> (16 * half));
  T x;
  std::memcpy(static_cast<void*>(&x), &bits, 2);
  return static_cast<float>(x);
}
template <typename T>
void MultiplyAccumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Operands {
    uint32_t a[4], b[2];
  };
  const Operands own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const Operands* const all = emulated::Exchange(0xffffffffu, own);
  for (int i = 0; i < 4; ++i) {
    const int row = Lane() / 4 + i / 2 * 8, column = Lane() % 4 * 2 + i % 2;
    float sum = d[i];
    for (int k = 0; k < 16; ++k) {
      const uint32_t of_a = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
      const uint32_t of_b = all[column * 4 + k % 8 / 2].b[k / 8];
      sum += ElementOf<T>(of_a, k % 2) * ElementOf<T>(of_b, k % 2);
    }
    d[i] = sum;
  }
}

// ---- E4M3 --------------------------------------------------------------------------------------

inline uint32_t HalvesOfFloat8(uint32_t two) {
  const __half low = __float2half_rn(Float8{static_cast<uint8_t>(two)}.ToFloat());
  const __half high = __float2half_rn(Float8{static_cast<uint8_t>(two >> 8)}.ToFloat());
  return __half_raw(low).x | uint32_t{__half_raw(high).x} << 16;
}
inline uint32_t Float8OfTwo(float low, float high) {
  return Float8::FromFloat(low).bits | uint32_t{Float8::FromFloat(high).bits} << 8;
}

// ---- Clusters ----------------------------------------------------------------------------------

inline constexpr int kMostCluster = 8;
inline void ArriveCluster() { emulated::ClusterArrive(); }
inline void WaitCluster() { emulated::ClusterWait(); }
template <typename T>
T* SharedOfBlock(T* own, int rank) {
  return static_cast<T*>(emulated::OfBlock(const_cast<std::remove_const_t<T>*>(own), rank));
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
