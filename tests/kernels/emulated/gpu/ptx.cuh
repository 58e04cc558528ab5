// kernels/cuda/ptx.cuh for the host: what panels take of it.
#pragma once

#include "kernels/cuda/path.h"
#include "tests/kernels/emulated/gpu/gpu.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(p));
}
inline void WaitForDependency() { emulated::WaitForKernelBefore(); }
inline void LaunchDependents() {}
inline uint64_t EvictFirstPolicy() { return 0; }
inline void ArriveCluster() { emulated::ClusterArrive(); }
inline void WaitCluster() { emulated::ClusterWait(); }
template <typename T>
T* SharedOfBlock(T* own, int rank) {
  return static_cast<T*>(emulated::OfBlock(const_cast<std::remove_const_t<T>*>(own), rank));
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
