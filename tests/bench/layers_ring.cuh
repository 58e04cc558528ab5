// A block's ring of weights in shared memory: one thread copies chunk after chunk, of all products
// of all layers, as soon as there is room, and never waits for an activation; the other warps
// multiply.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/bench/layers_plan.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// ---- Barriers of copies, sm_90 ------------------------------------------------------------------

__device__ __forceinline__ void InitCopyBarrier(uint64_t* barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(count)
               : "memory");
}
__device__ __forceinline__ void ArriveCopyBarrier(uint64_t* barrier, uint32_t count) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(count)
               : "memory");
}
__device__ __forceinline__ void ExpectCopies(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void WaitCopyBarrier(uint64_t* barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  } while (done == 0);
}
__device__ __forceinline__ void CopyBulk(void* shared, const void* global, uint32_t bytes,
                                         uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1], "
      "%2, [%3], %4;" ::"r"(SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

// ---- The ring
// ------------------------------------------------------------------------------------

// Rows of a chunk stand one behind the other from `at` on, `before` of them, the rest from the
// ring's beginning on.
struct ChunkPlace {
  int32_t at;
  int32_t before;

  __device__ __forceinline__ int32_t Row(int row, int row_bytes) const {
    return row < before ? at + row * row_bytes : (row - before) * row_bytes;
  }
};

struct RingShared {
  uint64_t full[kLayersSlots];
  uint64_t empty[kLayersSlots];
  ChunkPlace places[kLayersSlots];
  int32_t sizes[kLayersSlots];  // the copying thread's
};

// The copying thread's.
class RingWriter {
 public:
  __device__ RingWriter(RingShared& shared, unsigned char* ring, int capacity)
      : shared_(shared), ring_(ring), capacity_(capacity), policy_(EvictFirstPolicy()) {}

  // Begins a chunk of `rows` rows when there is room; then Put gives them, in order.
  __device__ __forceinline__ void Begin(int rows, int row_bytes) {
    int size = rows * row_bytes;
    if (at_ + row_bytes > capacity_) {
      size += capacity_ - at_;
      at_ = 0;
    }
    const int place = at_;
    int before = rows;
    if (at_ + rows * row_bytes > capacity_) {
      before = (capacity_ - at_) / row_bytes;
      size += capacity_ - at_ - before * row_bytes;
    }
    while (used_ + size > capacity_ || sequence_ - tail_ == kLayersChunks) {
      const int slot = tail_ % kLayersSlots;
      WaitCopyBarrier(&shared_.empty[slot], tail_ / kLayersSlots & 1);
      used_ -= shared_.sizes[slot];
      ++tail_;
    }
    slot_ = sequence_ % kLayersSlots;
    shared_.sizes[slot_] = size;
    shared_.places[slot_] = {place, before};
    used_ += size;
    before_ = before;
    left_ = rows;
    row_bytes_ = row_bytes;
    ++sequence_;
    ExpectCopies(&shared_.full[slot_], static_cast<uint32_t>(rows * row_bytes));
  }
  __device__ __forceinline__ void Put(const void* from, int rows) {
    const unsigned char* at = static_cast<const unsigned char*>(from);
    while (rows > 0) {
      const int some = min(rows, before_);
      const int bytes = some * row_bytes_;
      CopyBulk(ring_ + at_, at, static_cast<uint32_t>(bytes), &shared_.full[slot_], policy_);
      at_ += bytes;
      at += bytes;
      rows -= some;
      before_ -= some;
      left_ -= some;
      if (before_ == 0 && left_ > 0) {
        at_ = 0;
        before_ = left_;
      }
    }
  }

 private:
  RingShared& shared_;
  unsigned char* const ring_;
  const int capacity_;
  const uint64_t policy_;
  uint32_t sequence_ = 0;
  uint32_t tail_ = 0;  // the oldest chunk that may still be multiplied
  int used_ = 0;
  int at_ = 0;
  int slot_ = 0;
  int before_ = 0;  // rows that go on from at_, of the chunk
  int left_ = 0;    // rows of the chunk
  int row_bytes_ = 0;
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
