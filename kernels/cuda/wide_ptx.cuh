// What wide products need beside panel_ptx.cuh, single instructions as functions: copies to several
// blocks of a cluster, arrivals at their barriers, and products of many outputs (PTX ISA 8.x:
// cp.async.bulk.tensor, mapa, mbarrier, wgmma). For sm_90a alone.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/panel_ptx.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// ---- Clusters -----------------------------------------------------------------------------------

// Arrives at the same barrier of the cluster's block `rank`.
// Orders nothing: for who has read by products that have ended, and written nothing. (Releasing to
// the cluster would be a fence of the whole GPU, a stage.)
__device__ __forceinline__ void ArriveAtBlock(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; "
      "mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [there];}" ::"r"(
          SharedAddress(barrier)),
      "r"(rank)
      : "memory");
}

// Two floats to the same place (8 bytes) of the cluster's block `rank`; its barrier counts the
// bytes.
__device__ __forceinline__ void StoreTwoToBlock(float2 value, float2* place, uint64_t* barrier,
                                                int rank) {
  asm volatile(
      "{.reg .b32 to, counts; mapa.shared::cluster.u32 to, %0, %2; "
      "mapa.shared::cluster.u32 counts, %1, %2; "
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [to], {%3, %4}, [counts];}" ::
          "r"(SharedAddress(place)),
      "r"(SharedAddress(barrier)), "r"(rank), "f"(value.x), "f"(value.y)
      : "memory");
}

// ---- Boxes of tensors ---------------------------------------------------------------------------

// A box of a matrix at column, row to the same place in all blocks of `mask`; its bytes count for
// the same barrier in each of them.
__device__ __forceinline__ void CopyBoxToBlocks(void* to, const CUtensorMap& map, int column,
                                                int row, uint64_t* barrier, uint16_t mask,
                                                uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5, %6;" ::"r"(
          SharedAddress(to)),
      "l"(&map), "r"(column), "r"(row), "r"(SharedAddress(barrier)), "h"(mask), "l"(policy)
      : "memory");
}
// The same of a tensor of four dimensions, at column, 0, 0, group.
__device__ __forceinline__ void CopyGroupsToBlocks(void* to, const CUtensorMap& map, int column,
                                                   int group, uint64_t* barrier, uint16_t mask,
                                                   uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3, %3, %4}], [%5], %6, %7;" ::"r"(
          SharedAddress(to)),
      "l"(&map), "r"(column), "r"(0), "r"(group), "r"(SharedAddress(barrier)), "h"(mask),
      "l"(policy)
      : "memory");
}
// To this block alone.
__device__ __forceinline__ void CopyGroups(void* to, const CUtensorMap& map, int column, int group,
                                           uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3, %3, %4}], [%5], %6;" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(column), "r"(0), "r"(group), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

// For data that is read again: it leaves the L2 cache as all other does.
__device__ __forceinline__ uint64_t EvictNormalPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// ---- Arithmetic ---------------------------------------------------------------------------------

// 1 / x to a unit in the last place; of infinity 0.
__device__ __forceinline__ float Reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- Products of a warpgroup --------------------------------------------------------------------

#define SIROCCO_SUMS_8(i)                                                                     \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define SIROCCO_SUMS_32(i) \
  SIROCCO_SUMS_8(i), SIROCCO_SUMS_8(i + 8), SIROCCO_SUMS_8(i + 16), SIROCCO_SUMS_8(i + 24)
#define SIROCCO_SUMS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIROCCO_SUMS_36(i) SIROCCO_SUMS_32(i), SIROCCO_SUMS_4(i + 32)
#define SIROCCO_SUMS_40(i) SIROCCO_SUMS_32(i), SIROCCO_SUMS_8(i + 32)
#define SIROCCO_SUMS_48(i) SIROCCO_SUMS_40(i), SIROCCO_SUMS_8(i + 40)
#define SIROCCO_SUMS_52(i) SIROCCO_SUMS_48(i), SIROCCO_SUMS_4(i + 48)
#define SIROCCO_SUMS_64(i) SIROCCO_SUMS_32(i), SIROCCO_SUMS_32(i + 32)
#define SIROCCO_SUMS_72(i) SIROCCO_SUMS_64(i), SIROCCO_SUMS_8(i + 64)
#define SIROCCO_SUMS_80(i) SIROCCO_SUMS_72(i), SIROCCO_SUMS_8(i + 72)
#define SIROCCO_SUMS_96(i) SIROCCO_SUMS_64(i), SIROCCO_SUMS_32(i + 64)
#define SIROCCO_SUMS_104(i) SIROCCO_SUMS_96(i), SIROCCO_SUMS_8(i + 96)
#define SIROCCO_SUMS_112(i) SIROCCO_SUMS_104(i), SIROCCO_SUMS_8(i + 104)
#define SIROCCO_SUMS_128(i) SIROCCO_SUMS_64(i), SIROCCO_SUMS_64(i + 64)
#define SIROCCO_NAMES_32             \
  "%0,%1,%2,%3,%4,%5,%6,%7,"         \
  "%8,%9,%10,%11,%12,%13,%14,%15,"   \
  "%16,%17,%18,%19,%20,%21,%22,%23," \
  "%24,%25,%26,%27,%28,%29,%30,%31"
#define SIROCCO_NAMES_36 \
  SIROCCO_NAMES_32       \
  ",%32,%33,%34,%35"
#define SIROCCO_NAMES_40 \
  SIROCCO_NAMES_36       \
  ",%36,%37,%38,%39"
#define SIROCCO_NAMES_48 \
  SIROCCO_NAMES_40       \
  ",%40,%41,%42,%43,%44,%45,%46,%47"
#define SIROCCO_NAMES_52 \
  SIROCCO_NAMES_48 \
  ",%48,%49,%50,%51"
#define SIROCCO_NAMES_64 \
  SIROCCO_NAMES_52 \
  ",%52,%53,%54,%55,%56,%57,%58,%59" \
  ",%60,%61,%62,%63"
#define SIROCCO_NAMES_72 \
  SIROCCO_NAMES_64 \
  ",%64,%65,%66,%67,%68,%69,%70,%71"
#define SIROCCO_NAMES_80 \
  SIROCCO_NAMES_72 \
  ",%72,%73,%74,%75,%76,%77,%78,%79"
#define SIROCCO_NAMES_96 \
  SIROCCO_NAMES_80 \
  ",%80,%81,%82,%83,%84,%85,%86,%87" \
  ",%88,%89,%90,%91,%92,%93,%94,%95"
#define SIROCCO_NAMES_104 \
  SIROCCO_NAMES_96 \
  ",%96,%97,%98,%99,%100,%101,%102,%103"
#define SIROCCO_NAMES_112 \
  SIROCCO_NAMES_104 \
  ",%104,%105,%106,%107,%108,%109,%110,%111"
#define SIROCCO_NAMES_128 \
  SIROCCO_NAMES_112 \
  ",%112,%113,%114,%115,%116,%117,%118,%119" \
  ",%120,%121,%122,%123,%124,%125,%126,%127"
// Both operands in shared memory, their inputs along rows. a0: the number of sums.
#define SIROCCO_PRODUCT(n, sums, type, a0, a1, a2)                                               \
  asm volatile("{.reg .pred p; setp.ne.b32 p, %" #a2 ", 0; wgmma.mma_async.sync.aligned.m64n" #n \
               "k16.f32." type "." type " {" SIROCCO_NAMES_##sums "}, %" #a0 ", %" #a1           \
                                                                  ", p, 1, 1, 0, 0;}"            \
               : SIROCCO_SUMS_##sums(0)                                                          \
               : "l"(a), "l"(b), "r"(static_cast<int>(add)))
#define SIROCCO_PRODUCTS(type)                                                   \
  if constexpr (kOutputs == 72) SIROCCO_PRODUCT(72, 36, type, 36, 37, 38);       \
  if constexpr (kOutputs == 104) SIROCCO_PRODUCT(104, 52, type, 52, 53, 54);     \
  if constexpr (kOutputs == 128) SIROCCO_PRODUCT(128, 64, type, 64, 65, 66);     \
  if constexpr (kOutputs == 144) SIROCCO_PRODUCT(144, 72, type, 72, 73, 74);     \
  if constexpr (kOutputs == 160) SIROCCO_PRODUCT(160, 80, type, 80, 81, 82);     \
  if constexpr (kOutputs == 192) SIROCCO_PRODUCT(192, 96, type, 96, 97, 98);     \
  if constexpr (kOutputs == 208) SIROCCO_PRODUCT(208, 104, type, 104, 105, 106); \
  if constexpr (kOutputs == 224) SIROCCO_PRODUCT(224, 112, type, 112, 113, 114); \
  if constexpr (kOutputs == 256) SIROCCO_PRODUCT(256, 128, type, 128, 129, 130)

// d[64 rows, kOutputs] = a[64, 16] * b[kOutputs, 16]^T, where `add` is set d += that. Thread t of
// the warpgroup has, of rows t / 32 * 16 + t % 32 / 4 (and that + 8) and outputs 8 * j + t % 4 * 2
// (and the one after), d[4 * j + 0, 1] (and 2, 3).
template <typename T, int kOutputs>
__device__ __forceinline__ void MultiplyWide(float (&d)[kOutputs / 2], uint64_t a, uint64_t b,
                                             bool add) {
  static_assert(kOutputs == 72 || kOutputs == 104 || kOutputs == 128 || kOutputs == 144 ||
                kOutputs == 160 || kOutputs == 192 || kOutputs == 208 || kOutputs == 224 ||
                kOutputs == 256);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    SIROCCO_PRODUCTS("bf16");
  } else {
    static_assert(std::is_same_v<T, __half>);
    SIROCCO_PRODUCTS("f16");
  }
}

#undef SIROCCO_PRODUCTS
#undef SIROCCO_PRODUCT
#undef SIROCCO_NAMES_128
#undef SIROCCO_NAMES_112
#undef SIROCCO_NAMES_104
#undef SIROCCO_NAMES_96
#undef SIROCCO_NAMES_80
#undef SIROCCO_NAMES_72
#undef SIROCCO_NAMES_64
#undef SIROCCO_NAMES_52
#undef SIROCCO_NAMES_48
#undef SIROCCO_NAMES_40
#undef SIROCCO_NAMES_36
#undef SIROCCO_NAMES_32
#undef SIROCCO_SUMS_128
#undef SIROCCO_SUMS_112
#undef SIROCCO_SUMS_104
#undef SIROCCO_SUMS_96
#undef SIROCCO_SUMS_80
#undef SIROCCO_SUMS_72
#undef SIROCCO_SUMS_64
#undef SIROCCO_SUMS_52
#undef SIROCCO_SUMS_48
#undef SIROCCO_SUMS_40
#undef SIROCCO_SUMS_36
#undef SIROCCO_SUMS_4
#undef SIROCCO_SUMS_32
#undef SIROCCO_SUMS_8

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
