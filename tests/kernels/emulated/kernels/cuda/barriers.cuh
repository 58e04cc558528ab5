// kernels/cuda/barriers.cuh for the emulated GPU.
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"
#include "tests/kernels/emulated/gpu.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline void InitBarrier(uint64_t* barrier, int arrivals) { emulated::InitCount(barrier, arrivals); }
inline void PublishBarriers() {}
inline void ArriveBarrier(uint64_t* barrier) { emulated::Arrive(barrier, 0); }
inline void ArriveExpecting(uint64_t* barrier, uint32_t bytes) { emulated::Arrive(barrier, bytes); }
inline void WaitBarrier(uint64_t* barrier, uint32_t parity) {
  emulated::WaitPhase(barrier, parity);
}
inline void CopyBytes(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  emulated::CopyBytes(to, from, bytes, barrier);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
