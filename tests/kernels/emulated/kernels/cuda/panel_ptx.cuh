// kernels/cuda/panel_ptx.cuh for the emulated GPU.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/path.h"
#include "kernels/cuda/wgmma.cuh"
#include "tests/kernels/emulated/gpu.h"
#include "tests/kernels/emulated/language.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline void ArriveClusterRelaxed() { emulated::ClusterArrive(); }
inline void StoreToBlock(const float (&value)[4], float* place, uint64_t* barrier, int rank) {
  emulated::StoreToBlock(value, sizeof(value), place, barrier, rank);
}
inline void WaitBarrierOfCluster(uint64_t* barrier, uint32_t parity) {
  emulated::WaitPhase(barrier, parity);
}
inline void PrefetchMap(const CUtensorMap&) {}
inline void CopyBox(void* to, const CUtensorMap& map, int column, int row, uint64_t* barrier) {
  emulated::CopyBox(to, map, column, row, barrier);
}
inline void CopyBox(void* to, const CUtensorMap& map, int column, int row, uint64_t* barrier,
                    uint64_t /*policy*/) {
  emulated::CopyBox(to, map, column, row, barrier);
}

// An element of an operand: rows of 128 bytes, their units of 16 bytes exchanged as the copy engine
// and the matrix units do it.
template <typename T>
float ElementAt(uint64_t operand, int row, int column) {
  uintptr_t at = operand * 16 + row * 128 + column * 2;
  at ^= (at >> 7 & 7) << 4;
  return static_cast<float>(*reinterpret_cast<const T*>(at));
}

template <typename T, int kRows>
void MultiplyPanel(float (&d)[kRows / 2], uint64_t a, uint64_t b) {
  const int thread = static_cast<int>(threadIdx.x);
  float* const sums = d;
  emulated::Do(emulated::Later::kProducts, [=] {
    const int output = thread / 32 * 16 + thread % 32 / 4;
    for (int i = 0; i < kRows / 2; ++i) {
      const int o = output + i % 4 / 2 * 8;
      const int row = i / 4 * 8 + thread % 4 * 2 + i % 2;
      for (int k = 0; k < 16; ++k) sums[i] += ElementAt<T>(a, o, k) * ElementAt<T>(b, row, k);
    }
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
