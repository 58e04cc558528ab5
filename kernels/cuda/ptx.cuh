// Single PTX instructions as functions: PTX ISA 8.x, "Instruction Set". What only Hopper has is
// there where SIROCCO_HOPPER is set.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Waits until the kernels before this one have ended and their writes are visible. Every thread
// block of every kernel calls it, those without work too.
__device__ __forceinline__ void WaitForDependency() {
#if SIROCCO_HOPPER
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may be launched once every thread block has called it or ended.
__device__ __forceinline__ void LaunchDependents() {
#if SIROCCO_HOPPER
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Brings the line at `from`, which need not be there, to the L2 cache.
__device__ __forceinline__ void PrefetchL2(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

// 16 bytes, aligned to 16, or zeros where `valid` is false. Loads of a multiprocessor come back in
// the order they were issued in: these two stay in the order they are written in.
__device__ __forceinline__ uint4 LoadInOrder16(const void* from, bool valid) {
  uint4 to;
  asm volatile(
      "{.reg .pred p; setp.ne.s32 p, %5, 0; mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; "
      "mov.b32 %3, 0; @p ld.global.v4.u32 {%0,%1,%2,%3}, [%4];}"
      : "=&r"(to.x), "=&r"(to.y), "=&r"(to.z), "=&r"(to.w)
      : "l"(from), "r"(static_cast<int>(valid))
      : "memory");
  return to;
}

// The same of what no kernel writes and nobody reads twice: past the L1 cache.
__device__ __forceinline__ uint4 LoadOnceInOrder16(const void* from, bool valid) {
  uint4 to;
  asm volatile(
      "{.reg .pred p; setp.ne.s32 p, %5, 0; mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; "
      "mov.b32 %3, 0; @p ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];}"
      : "=&r"(to.x), "=&r"(to.y), "=&r"(to.z), "=&r"(to.w)
      : "l"(from), "r"(static_cast<int>(valid)));
  return to;
}

// Past the L1 cache, in the order of the program among instructions of this kind.
__device__ __forceinline__ void LoadTile(uint4& to, const void* from) {
  asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
               : "l"(from));
}
__device__ __forceinline__ void LoadTile(uint2& to, const void* from) {
  asm volatile("ld.global.cg.v2.u32 {%0,%1}, [%2];" : "=r"(to.x), "=r"(to.y) : "l"(from));
}

// In order with all that the calling thread has done, or seen of others, before; what comes after
// LoadAcquire sees what was done before the AddRelease whose sum it has loaded.
__device__ __forceinline__ void AddRelease(uint32_t* to, uint32_t x) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}
__device__ __forceinline__ uint32_t LoadAcquire(const uint32_t* from) {
  uint32_t x;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
  return x;
}

// 2^x to two units in the last place; of -infinity 0.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- Asynchronous copies to shared memory, sm_80 ------------------------------------------------

// 16 bytes, both sides aligned to 16; where `valid` is false, zeros.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid = true) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}

// The same to an address of shared memory, always.
__device__ __forceinline__ void CopyAsync16To(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}

// The same with a policy of the L2 cache.
__device__ __forceinline__ void CopyAsync16To(uint32_t shared, const void* global,
                                              uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared),
               "l"(global), "l"(policy)
               : "memory");
}
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid,
                                            uint64_t policy) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(
                   SharedAddress(shared)),
               "l"(global), "r"(bytes), "l"(policy)
               : "memory");
}

// For data that is read once: it leaves the L2 cache first.
__device__ __forceinline__ uint64_t EvictFirstPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `kPending` committed groups of this thread are under way.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// ---- Matrix units, sm_80 ------------------------------------------------------------------------

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void LoadMatrix4At(uint32_t (&m)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void LoadMatrix4(uint32_t (&m)[4], const void* row) {
  LoadMatrix4At(m, SharedAddress(row));
}

__device__ __forceinline__ void LoadMatrix4TransposedAt(uint32_t (&m)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void LoadMatrix4Transposed(uint32_t (&m)[4], const void* row) {
  LoadMatrix4TransposedAt(m, SharedAddress(row));
}

// The transpose of an 8x8 matrix of 16-bit elements: lane 4 g + t has row g, elements 2 t and + 1.
__device__ __forceinline__ uint32_t TransposeMatrix(uint32_t m) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(m));
  return transposed;
}

// d[16x8] += a[16x16] * b[16x8], float32 sums. Element places: PTX ISA, mma.m16n8k16.
template <typename T>
__device__ __forceinline__ void MultiplyAccumulate(float (&d)[4], const uint32_t (&a)[4],
                                                   const uint32_t (&b)[2]);
template <>
__device__ __forceinline__ void MultiplyAccumulate<__nv_bfloat16>(float (&d)[4],
                                                                  const uint32_t (&a)[4],
                                                                  const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void MultiplyAccumulate<__half>(float (&d)[4], const uint32_t (&a)[4],
                                                           const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#if SIROCCO_HOPPER
// ---- E4M3, sm_89 --------------------------------------------------------------------------------

// Two float16 of two E4M3 elements, the low bytes of `two`.
__device__ __forceinline__ uint32_t HalvesOfFloat8(uint32_t two) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(two)));
  return halves;
}

// Two E4M3 elements, `low` in the low byte; beyond 448 they become 448.
__device__ __forceinline__ uint32_t Float8OfTwo(float low, float high) {
  uint16_t two;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(two) : "f"(high), "f"(low));
  return two;
}

// ---- Clusters of thread blocks, sm_90 -----------------------------------------------------------

inline constexpr int kMostCluster = 8;  // blocks that any GPU gives a cluster

// A barrier of all threads of the cluster in two parts; what was written to shared memory before
// the first is seen by all after the second.
__device__ __forceinline__ void ArriveCluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void WaitCluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The same variable in the shared memory of the cluster's block `rank`.
template <typename T>
__device__ __forceinline__ T* SharedOfBlock(T* own, int rank) {
  uint64_t other;
  asm volatile("mapa.u64 %0, %1, %2;" : "=l"(other) : "l"(own), "r"(rank));
  return reinterpret_cast<T*>(other);
}
#endif  // SIROCCO_HOPPER

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
