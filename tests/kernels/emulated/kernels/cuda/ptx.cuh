// CUDA on the host, for kernels whose warps work together: threads of a cluster as fibers of one
// thread, and the instructions of kernels/cuda/ptx.cuh and of the language that attention of a decode
// step needs, one by one in plain C++. Copies to shared memory are made as late as they may be, when
// they are waited for, and shared memory begins as NaN: what reads too early is seen.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/path.h"
#include "kernels/dtype.h"

// NOLINTBEGIN: the names are the language's.
#undef __device__
#undef __host__
#undef __global__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__

namespace sirocco::emulated {

struct Copy {
  void* to;
  const void* from;
};
struct Warp {
  int arrived = 0;
  int rounds = 0;
  alignas(16) unsigned char values[2][32][32];
};
struct Block {
  std::unique_ptr<Warp[]> warps;
  unsigned char* shared;
  int arrived = 0, rounds = 0;
  bool last = false;  // of those that arrive.cuh counts
};
struct Thread {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack;
  uint3 index, block_index;
  Block* block;
  bool done = false;
  int64_t cluster_arrivals = 0;
  std::vector<Copy> open;  // not committed
  std::deque<std::vector<Copy>> groups;
};
struct Cluster {
  std::vector<Block> blocks;
  std::vector<std::unique_ptr<Thread>> threads;
  int64_t arrivals = 0;
  ucontext_t scheduler;
};

inline Cluster* cluster = nullptr;
inline Thread* thread = nullptr;
inline std::function<void()> body;

}  // namespace sirocco::emulated

inline uint3 threadIdx, blockIdx;
inline dim3 gridDim, blockDim;

namespace sirocco::emulated {

inline void Resume(Thread& next) {
  thread = &next;
  threadIdx = next.index;
  blockIdx = next.block_index;
  swapcontext(&cluster->scheduler, &next.context);
}
inline void Yield() { swapcontext(&thread->context, &cluster->scheduler); }
inline void Begin() {
  body();
  thread->done = true;
  Yield();
}

// All lanes of a warp; T of each lane, as it was when it came.
inline int Meet() {
  Warp& warp = thread->block->warps[thread->index.x / 32];
  const int round = warp.rounds;
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    ++warp.rounds;
  }
  while (warp.rounds == round) Yield();
  return round;
}
template <typename T>
const T* Exchange(const T& own) {
  static_assert(sizeof(T) <= 32 && std::is_trivially_copyable_v<T>);
  Warp& warp = thread->block->warps[thread->index.x / 32];
  unsigned char(&values)[32][32] = warp.values[warp.rounds % 2];
  std::memcpy(&values[0][0] + thread->index.x % 32 * sizeof(T), &own, sizeof(T));
  Meet();
  return reinterpret_cast<const T*>(&values[0][0]);
}

inline void RunCluster(dim3 block, int blocks, uint3 first, size_t shared_bytes) {
  Cluster own;
  cluster = &own;
  own.blocks.resize(blocks);
  constexpr size_t kStack = 128 * 1024;
  for (int b = 0; b < blocks; ++b) {
    Block& of = own.blocks[b];
    of.warps = std::make_unique<Warp[]>(block.x / 32);
    of.shared = static_cast<unsigned char*>(std::aligned_alloc(1024, (shared_bytes + 1023) / 1024 * 1024));
    std::memset(of.shared, 0xff, shared_bytes);
    for (unsigned t = 0; t < block.x; ++t) {
      auto made = std::make_unique<Thread>();
      made->stack = std::make_unique_for_overwrite<unsigned char[]>(kStack);
      made->index = {t, 0, 0};
      made->block_index = {first.x + b, first.y, first.z};
      made->block = &of;
      getcontext(&made->context);
      made->context.uc_stack.ss_sp = made->stack.get();
      made->context.uc_stack.ss_size = kStack;
      made->context.uc_link = nullptr;
      makecontext(&made->context, Begin, 0);
      own.threads.push_back(std::move(made));
    }
  }
  for (bool some = true; some;) {
    some = false;
    for (const std::unique_ptr<Thread>& next : own.threads) {
      if (next->done) continue;
      Resume(*next);
      some = some || !next->done;
    }
  }
  for (Block& of : own.blocks) std::free(of.shared);
  cluster = nullptr;
}

}  // namespace sirocco::emulated

// ---- The language --------------------------------------------------------------------------------

using std::max;
using std::min;

inline void __syncwarp() { sirocco::emulated::Meet(); }
inline void __syncthreads() {
  sirocco::emulated::Block& block = *sirocco::emulated::thread->block;
  const int round = block.rounds;
  if (++block.arrived == static_cast<int>(blockDim.x)) {
    block.arrived = 0;
    ++block.rounds;
  }
  while (block.rounds == round) sirocco::emulated::Yield();
}
inline void __threadfence() {}
template <typename T>
T __shfl_sync(uint32_t, T x, int lane) {
  return sirocco::emulated::Exchange(x)[lane % 32];
}
template <typename T>
T __shfl_xor_sync(uint32_t, T x, int mask) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return sirocco::emulated::Exchange(x)[lane ^ mask];
}
template <typename T>
T __shfl_up_sync(uint32_t, T x, int by) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return sirocco::emulated::Exchange(x)[lane < by ? lane : lane - by];
}
inline bool __any_sync(uint32_t, bool x) {
  const bool* const all = sirocco::emulated::Exchange(x);
  return std::any_of(all, all + 32, [](bool one) { return one; });
}
inline uint32_t __reduce_max_sync(uint32_t, uint32_t x) {
  const uint32_t* const all = sirocco::emulated::Exchange(x);
  return *std::max_element(all, all + 32);
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(uint64_t{a} * b >> 32);
}
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t select) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<uint32_t>(bytes >> (select >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
  }
  return result;
}
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline uint32_t atomicAdd(uint32_t* at, uint32_t x) {
  const uint32_t before = *at;
  *at += x;
  return before;
}
// NOLINTEND

// ---- Instructions --------------------------------------------------------------------------------

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(p) -
                               emulated::thread->block->shared);
}
inline unsigned char* SharedAt(uint32_t address) {
  return emulated::thread->block->shared + address;
}
inline void WaitForDependency() {}
inline void LaunchDependents() {}
inline void PrefetchL2(const void*) {}
inline void LoadTile(uint4& to, const void* from) { std::memcpy(&to, from, sizeof(to)); }
inline void LoadTile(uint2& to, const void* from) { std::memcpy(&to, from, sizeof(to)); }
inline float Exp2(float x) { return std::exp2(x); }

inline void CopyAsync16To(uint32_t shared, const void* global) {
  if (shared % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0) std::abort();
  emulated::thread->open.push_back({SharedAt(shared), global});
}
inline uint64_t EvictFirstPolicy() { return 0; }
inline void CopyAsync16To(uint32_t shared, const void* global, uint64_t) {
  CopyAsync16To(shared, global);
}
inline void CopyAsync16(void* shared, const void* global) {
  CopyAsync16To(SharedAddress(shared), global);
}
inline void CommitCopies() {
  emulated::thread->groups.push_back(std::move(emulated::thread->open));
  emulated::thread->open.clear();
}
template <int kPending>
void WaitForCopies() {
  std::deque<std::vector<emulated::Copy>>& groups = emulated::thread->groups;
  for (; groups.size() > kPending; groups.pop_front()) {
    for (const emulated::Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
  }
}

inline void LoadMatrix4At(uint32_t (&m)[4], uint32_t row) {
  const uint32_t* const rows = emulated::Exchange(row);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < 4; ++i) {
    std::memcpy(&m[i], SharedAt(rows[8 * i + lane / 4]) + lane % 4 * 4, 4);
  }
}
inline void LoadMatrix4TransposedAt(uint32_t (&m)[4], uint32_t row) {
  const uint32_t* const rows = emulated::Exchange(row);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < 4; ++i) {
    uint16_t two[2];
    for (int j = 0; j < 2; ++j) {
      std::memcpy(&two[j], SharedAt(rows[8 * i + lane % 4 * 2 + j]) + lane / 4 * 2, 2);
    }
    std::memcpy(&m[i], two, 4);
  }
}
inline uint32_t TransposeMatrix(uint32_t m) {
  const uint32_t* const all = emulated::Exchange(m);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint32_t result = 0;
  for (int j = 0; j < 2; ++j) {
    const int row = lane % 4 * 2 + j, column = lane / 4;
    result |= (all[4 * row + column / 2] >> column % 2 * 16 & 0xffff) << (16 * j);
  }
  return result;
}

template <typename T>
float ElementOf(uint32_t word, int half) {
  const auto bits = static_cast<uint16_t>(word >> (16 * half));
  T x;
  std::memcpy(&x, &bits, 2);
  return static_cast<float>(x);
}
template <typename T>
void MultiplyAccumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Operands {
    uint32_t a[4], b[2];
  };
  const Operands* const all = emulated::Exchange(Operands{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float sum = d[i];
    for (int k = 0; k < 16; ++k) {
      const uint32_t of_a = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
      const uint32_t of_b = all[column * 4 + k % 8 / 2].b[k / 8];
      sum += ElementOf<T>(of_a, k % 2) * ElementOf<T>(of_b, k % 2);
    }
    d[i] = sum;
  }
}

inline uint32_t HalvesOfFloat8(uint32_t two) {
  const __half low = __float2half_rn(Float8{static_cast<uint8_t>(two)}.ToFloat());
  const __half high = __float2half_rn(Float8{static_cast<uint8_t>(two >> 8)}.ToFloat());
  return __half_raw(low).x | uint32_t{__half_raw(high).x} << 16;
}
inline uint32_t Float8OfTwo(float low, float high) {
  return Float8::FromFloat(low).bits | uint32_t{Float8::FromFloat(high).bits} << 8;
}

inline constexpr int kMostCluster = 8;
inline void ArriveCluster() {
  ++emulated::cluster->arrivals;
  ++emulated::thread->cluster_arrivals;
}
inline void WaitCluster() {
  const int64_t all = static_cast<int64_t>(emulated::cluster->threads.size());
  while (emulated::cluster->arrivals < all * emulated::thread->cluster_arrivals) emulated::Yield();
}
template <typename T>
T* SharedOfBlock(T* own, int rank) {
  return reinterpret_cast<T*>(emulated::cluster->blocks[rank].shared + SharedAddress(own));
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
