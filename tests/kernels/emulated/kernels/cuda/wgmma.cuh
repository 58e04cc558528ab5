// kernels/cuda/wgmma.cuh for the emulated GPU: what panels take of it. An operand is its address
// / 16.
#pragma once

#include <cstdint>

#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/path.h"
#include "tests/kernels/emulated/gpu.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kWarpgroup = 128;

inline void SyncNamed(int barrier, int threads) { emulated::Barrier(barrier, threads, true); }
inline void ArriveNamed(int barrier, int threads) { emulated::Barrier(barrier, threads, false); }
inline uint64_t Operand(const void* at) { return reinterpret_cast<uintptr_t>(at) / 16; }
inline void BeginProducts() {}
inline void CommitProducts() { emulated::CommitGroup(emulated::Later::kProducts); }
template <int kPending>
void WaitForProducts() {
  emulated::WaitGroups(emulated::Later::kProducts, kPending);
}
template <int kCount>
void Settle(float (&)[kCount]) {}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
