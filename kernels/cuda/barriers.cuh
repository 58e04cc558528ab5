// Barriers in shared memory that count arrivals and bytes, and what the copy engine brings there, single
// instructions as functions (PTX ISA 8.x: mbarrier, cp.async.bulk). For sm_90 and later.
//
// What the copy engine brings does not stand in line with a multiprocessor's own loads, copies of cp.async
// among them, which come back in the order they were issued in.
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

__device__ __forceinline__ void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
}
// After the last InitBarrier of a thread: copies see them. Waits for the thread's loads, too.
__device__ __forceinline__ void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void ArriveBarrier(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
// Arrives, and has the phase end no earlier than when copies have brought so many bytes.
__device__ __forceinline__ void ArriveExpecting(uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}

// Waits for the end of the barrier's phase of this parity: of 0, the first, then 1, 0, ...
__device__ __forceinline__ void WaitBarrier(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{.reg .pred done; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; "
      "@done bra DONE; bra AGAIN; DONE:}" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// `bytes`, a multiple of 16, to shared memory, both sides aligned to 16; they count for the barrier.
__device__ __forceinline__ void CopyBytes(void* to, const void* from, uint32_t bytes,
                                          uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          SharedAddress(to)),
      "l"(from), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
