// What panels need beside wgmma.cuh and barriers.cuh, single instructions as functions: stores to other
// blocks of a cluster, copies of boxes of a tensor, and products of few columns (PTX ISA 8.x: st.async,
// cp.async.bulk.tensor, wgmma). For sm_90a alone.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// ---- Clusters -----------------------------------------------------------------------------------

// ArriveCluster where nothing that was written before is read after it.
__device__ __forceinline__ void ArriveClusterRelaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
// Four floats to the same place (16 bytes) of the cluster's block `rank`; its barrier counts the
// bytes.
__device__ __forceinline__ void StoreToBlock(const float (&value)[4], float* place,
                                             uint64_t* barrier, int rank) {
  uint32_t to, counts;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(to)
               : "r"(SharedAddress(place)), "r"(rank));
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(counts)
               : "r"(SharedAddress(barrier)), "r"(rank));
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::
          "r"(to),
      "f"(value[0]), "f"(value[1]), "f"(value[2]), "f"(value[3]), "r"(counts)
      : "memory");
}
// WaitBarrier for what other blocks of the cluster have stored.
__device__ __forceinline__ void WaitBarrierOfCluster(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{.reg .pred done; AGAIN: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], "
      "%1; @done bra DONE; bra AGAIN; DONE:}" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// ---- Boxes of tensors ---------------------------------------------------------------------------

__device__ __forceinline__ void PrefetchMap(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// The box at column, row into shared memory; its bytes count for the barrier.
__device__ __forceinline__ void CopyBox(void* to, const CUtensorMap& map, int column, int row,
                                        uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
      "%3}], [%4];" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(column), "r"(row), "r"(SharedAddress(barrier))
      : "memory");
}
__device__ __forceinline__ void CopyBox(void* to, const CUtensorMap& map, int column, int row,
                                        uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(column), "r"(row), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

// ---- Products of a warpgroup --------------------------------------------------------------------

#define SIROCCO_SUMS4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIROCCO_SUMS16(i) \
  SIROCCO_SUMS4(i), SIROCCO_SUMS4(i + 4), SIROCCO_SUMS4(i + 8), SIROCCO_SUMS4(i + 12)

// MultiplyShared of few rows: d[64 outputs, kRows] += a[64, 16] * b[kRows, 16]^T. Thread t has, of
// outputs t / 32 * 16 + t % 32 / 4 (and that + 8) and rows 8 * j + t % 4 * 2 (and the one after),
// d[4 * j + 0, 1] (and 2, 3).
#define SIROCCO_MULTIPLY(type)                                                                   \
  if constexpr (kRows == 8) {                                                                    \
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32." type "." type                      \
                 " {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"                                        \
                 : SIROCCO_SUMS4(0)                                                              \
                 : "l"(a), "l"(b));                                                              \
  } else if constexpr (kRows == 16) {                                                            \
    asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32." type "." type                     \
                 " {%0,%1,%2,%3,%4,%5,%6,%7}, %8, %9, 1, 1, 1, 0, 0;"                            \
                 : SIROCCO_SUMS4(0), SIROCCO_SUMS4(4)                                            \
                 : "l"(a), "l"(b));                                                              \
  } else if constexpr (kRows == 32) {                                                            \
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type                     \
                 " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, 1, 1, 1, " \
                 "0, 0;"                                                                         \
                 : SIROCCO_SUMS16(0)                                                             \
                 : "l"(a), "l"(b));                                                              \
  } else {                                                                                       \
    static_assert(kRows == 64);                                                                  \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                     \
                 " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,"  \
                 "%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, 1, 1, 1, 0, 0;"        \
                 : SIROCCO_SUMS16(0), SIROCCO_SUMS16(16)                                         \
                 : "l"(a), "l"(b));                                                              \
  }

template <typename T, int kRows>
__device__ __forceinline__ void MultiplyPanel(float (&d)[kRows / 2], uint64_t a, uint64_t b) {
  if constexpr (kRows == 128) {
    MultiplyShared<T, 128>(d, a, b, true);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    SIROCCO_MULTIPLY("bf16")
  } else {
    static_assert(std::is_same_v<T, __half>);
    SIROCCO_MULTIPLY("f16")
  }
}

#undef SIROCCO_MULTIPLY
#undef SIROCCO_SUMS16
#undef SIROCCO_SUMS4

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
