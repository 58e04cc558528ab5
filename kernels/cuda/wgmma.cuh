// Hopper's matrix units and what feeds them beside barriers.cuh, single instructions as functions (PTX
// ISA 8.x, "wgmma"): a warpgroup of four warps multiplies 64 rows at once, with operands in shared
// memory that nobody loads into registers. For code that is compiled for sm_90a alone.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kWarpgroup = 128;  // threads

// ---- Barriers in shared memory ------------------------------------------------------------------

// Arrives, as one of those that InitBarrier counted, when the copies that this thread has begun are done.
__device__ __forceinline__ void ArriveBarrierAfterCopies(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(SharedAddress(barrier))
               : "memory");
}

// A barrier of `threads` threads of the block, by number: 1 ... 15.
__device__ __forceinline__ void SyncNamed(int barrier, int threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// SyncNamed for those who do not wait: what they have written is seen by those who do.
__device__ __forceinline__ void ArriveNamed(int barrier, int threads) {
  asm volatile("barrier.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// What ordinary stores and copies have brought to shared memory is seen by the matrix units.
__device__ __forceinline__ void FenceForMatrixUnits() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A warpgroup's registers a thread, of a kernel that says how many threads a block has and that one
// block is a multiprocessor's.
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- Products of a warpgroup --------------------------------------------------------------------

// An operand in shared memory: rows of 128 bytes, the 16-byte unit u of row r at u ^ (r % 8), in
// tiles of 8 rows; `at` is aligned to 1,024 bytes, plus a multiple of 32 within the first row.
// Where the product's inputs lie along a row, a product takes 32 bytes of it and tiles of more
// outputs follow each other. Where its outputs do, 16 rows are its inputs, and outputs beyond 64
// stand `stride` bytes further.
__device__ __forceinline__ uint64_t Operand(const void* at, int stride = 16) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kTile = uint64_t{1024 / 16} << 32;
  return kSwizzle128 | kTile | static_cast<uint64_t>(stride / 16) << 16 |
         (SharedAddress(at) & 0x3ffff) / 16;
}

// Before the first product, and after registers that one reads were written otherwise.
__device__ __forceinline__ void BeginProducts() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most `kPending` committed groups are under way.
template <int kPending>
__device__ __forceinline__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// What products write or read is not to be computed with before, or written after, this place.
template <int kCount>
__device__ __forceinline__ void Settle(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void Settle(uint32_t (&x)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < 4 * kCount; ++i) asm volatile("" : "+r"(x[i / 4][i % 4])::"memory");
}

#define SIROCCO_NAMES_8(a, b, c, d, e, f, g, h) \
  "%" #a ",%" #b ",%" #c ",%" #d ",%" #e ",%" #f ",%" #g ",%" #h
#define SIROCCO_NAMES_32                                                 \
  SIROCCO_NAMES_8(0, 1, 2, 3, 4, 5, 6, 7)                                \
  "," SIROCCO_NAMES_8(8, 9, 10, 11, 12, 13, 14, 15) "," SIROCCO_NAMES_8( \
      16, 17, 18, 19, 20, 21, 22, 23) "," SIROCCO_NAMES_8(24, 25, 26, 27, 28, 29, 30, 31)
#define SIROCCO_NAMES_64                                                                          \
  SIROCCO_NAMES_32 "," SIROCCO_NAMES_8(32, 33, 34, 35, 36, 37, 38, 39) "," SIROCCO_NAMES_8(       \
      40, 41, 42, 43, 44, 45, 46, 47) "," SIROCCO_NAMES_8(48, 49, 50, 51, 52, 53, 54,             \
                                                          55) "," SIROCCO_NAMES_8(56, 57, 58, 59, \
                                                                                  60, 61, 62, 63)
#define SIROCCO_NAMES_128 \
  SIROCCO_NAMES_64 "," SIROCCO_NAMES_8(64, 65, 66, 67, 68, 69, 70, 71) "," SIROCCO_NAMES_8(      \
      72, 73, 74, 75, 76, 77, 78, 79) "," SIROCCO_NAMES_8(80, 81, 82, 83, 84, 85, 86, 87) ","   \
      SIROCCO_NAMES_8(88, 89, 90, 91, 92, 93, 94, 95) "," SIROCCO_NAMES_8(                       \
          96, 97, 98, 99, 100, 101, 102, 103) "," SIROCCO_NAMES_8(104, 105, 106, 107, 108, 109, \
                                                                  110, 111) ","                 \
      SIROCCO_NAMES_8(112, 113, 114, 115, 116, 117, 118, 119) "," SIROCCO_NAMES_8(               \
          120, 121, 122, 123, 124, 125, 126, 127)
#define SIROCCO_SUMS_8(i)                                                                     \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define SIROCCO_SUMS_32(i) \
  SIROCCO_SUMS_8(i), SIROCCO_SUMS_8(i + 8), SIROCCO_SUMS_8(i + 16), SIROCCO_SUMS_8(i + 24)
#define SIROCCO_SUMS_64(i) SIROCCO_SUMS_32(i), SIROCCO_SUMS_32(i + 32)
#define SIROCCO_SUMS_128(i) SIROCCO_SUMS_64(i), SIROCCO_SUMS_64(i + 64)

// Both operands in shared memory, their inputs along rows. a0: the number of sums.
#define SIROCCO_PRODUCT_SHARED(n, sums, type, a0, a1, a2)                                        \
  asm volatile("{.reg .pred p; setp.ne.b32 p, %" #a2 ", 0; wgmma.mma_async.sync.aligned.m64n" #n \
               "k16.f32." type "." type " {" SIROCCO_NAMES_##sums "}, %" #a0 ", %" #a1           \
                                                                  ", p, 1, 1, 0, 0;}"            \
               : SIROCCO_SUMS_##sums(0)                                                          \
               : "l"(a), "l"(b), "r"(static_cast<int>(add)))
// The first in registers; the second's outputs lie along its rows.
#define SIROCCO_PRODUCT_REGISTERS(n, sums, type, a0, a1, a2, a3, a4)                          \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type                \
               " {" SIROCCO_NAMES_##sums "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #a4 \
                                         ", 1, 1, 1, 1;"                                      \
               : SIROCCO_SUMS_##sums(0)                                                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

// d[64, kOutputs] = a[64, 16] * b[kOutputs, 16]^T, where `add` is set d += that. A thread's sums
// are those of `mma`'s of 16 rows a warp, a group of four for each eight outputs.
template <typename T, int kOutputs>
__device__ __forceinline__ void MultiplyShared(float (&d)[kOutputs / 2], uint64_t a, uint64_t b,
                                               bool add) {
  static_assert(kOutputs == 64 || kOutputs == 128);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if constexpr (kOutputs == 64) SIROCCO_PRODUCT_SHARED(64, 32, "bf16", 32, 33, 34);
    if constexpr (kOutputs == 128) SIROCCO_PRODUCT_SHARED(128, 64, "bf16", 64, 65, 66);
  } else {
    if constexpr (kOutputs == 64) SIROCCO_PRODUCT_SHARED(64, 32, "f16", 32, 33, 34);
    if constexpr (kOutputs == 128) SIROCCO_PRODUCT_SHARED(128, 64, "f16", 64, 65, 66);
  }
}

// d[64, kOutputs] += a[64, 16] * b[16, kOutputs]. a: a thread's operand of `mma`.
template <typename T, int kOutputs>
__device__ __forceinline__ void MultiplyRegisters(float (&d)[kOutputs / 2], const uint32_t (&a)[4],
                                                  uint64_t b) {
  static_assert(kOutputs == 64 || kOutputs == 128 || kOutputs == 256);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if constexpr (kOutputs == 64) SIROCCO_PRODUCT_REGISTERS(64, 32, "bf16", 32, 33, 34, 35, 36);
    if constexpr (kOutputs == 128) SIROCCO_PRODUCT_REGISTERS(128, 64, "bf16", 64, 65, 66, 67, 68);
    if constexpr (kOutputs == 256) {
      SIROCCO_PRODUCT_REGISTERS(256, 128, "bf16", 128, 129, 130, 131, 132);
    }
  } else {
    if constexpr (kOutputs == 64) SIROCCO_PRODUCT_REGISTERS(64, 32, "f16", 32, 33, 34, 35, 36);
    if constexpr (kOutputs == 128) SIROCCO_PRODUCT_REGISTERS(128, 64, "f16", 64, 65, 66, 67, 68);
    if constexpr (kOutputs == 256) {
      SIROCCO_PRODUCT_REGISTERS(256, 128, "f16", 128, 129, 130, 131, 132);
    }
  }
}

#undef SIROCCO_PRODUCT_SHARED
#undef SIROCCO_PRODUCT_REGISTERS
#undef SIROCCO_SUMS_128
#undef SIROCCO_SUMS_64
#undef SIROCCO_SUMS_32
#undef SIROCCO_SUMS_8
#undef SIROCCO_NAMES_128
#undef SIROCCO_NAMES_64
#undef SIROCCO_NAMES_32
#undef SIROCCO_NAMES_8

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
