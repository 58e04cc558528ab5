// A block's ring of weights in shared memory: one warp copies chunk after chunk, of all products
// of all layers, as soon as there is room, and never waits for an activation; the other warps
// multiply.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/layers/shape.h"
#include "kernels/cuda/ptx.cuh"

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
__device__ __forceinline__ bool TestCopyBarrier(uint64_t* barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(SharedAddress(barrier)), "r"(parity)
      : "memory");
  return done != 0;
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

// ---- The ring -----------------------------------------------------------------------------------

// Rows of a chunk stand one behind the other from `at` on, `before` of them, the rest from the
// ring's beginning on.
struct ChunkPlace {
  int32_t at;
  int32_t before;

  __device__ __forceinline__ int32_t Row(int row, int row_bytes) const {
    return row < before ? at + row * row_bytes : (row - before) * row_bytes;
  }
};

// The bytes from the ring's first to a chunk's row, where each two rows have a pad behind them.
template <int kPad>
__device__ __forceinline__ int RowAt(const ChunkPlace& place, int row, int row_bytes) {
  if constexpr (kPad == 0) return place.Row(row, row_bytes);
  return place.Row(row / 2, 2 * row_bytes + kPad) + row % 2 * row_bytes;
}

struct RingShared {
  uint64_t full[kLayersSlots];
  uint64_t empty[kLayersSlots];
  ChunkPlace places[kLayersSlots];
  int32_t sizes[kLayersSlots];  // the copying warp's
};

// The copying warp's: all its lanes call all of it alike. kPad: 0, or bytes behind each two rows of
// a chunk that nothing is copied to.
template <int kPad>
class RingWriter {
 public:
  // under_way: bytes that are asked for and not there, at most, but for a chunk that is larger.
  __device__ RingWriter(RingShared& shared, unsigned char* ring, int capacity, int under_way)
      : shared_(shared),
        ring_(ring),
        capacity_(capacity),
        under_way_(under_way),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        policy_(EvictFirstPolicy()) {}

  // Begins a chunk of `rows` rows when there is room; then PutRun or PutRows give them.
  __device__ __forceinline__ void Begin(int rows, int row_bytes) {
    row_bytes_ = row_bytes;
    if constexpr (kPad == 0) {
      Begin(rows, row_bytes, rows * row_bytes);
    } else {
      Begin((rows + 1) / 2, 2 * row_bytes + kPad, rows * row_bytes);
    }
  }
  // Rows `row` ... `row + rows - 1` of the chunk, which follow each other at `from`; with a pad, `row`
  // is 0.
  __device__ __forceinline__ void PutRun(const void* from, int row, int rows) {
    if constexpr (kPad > 0) {
      const int first = 2 * lane_;
      if (first < rows) {
        CopyBulk(ring_ + RowAt<kPad>(place_, first, row_bytes_),
                 static_cast<const unsigned char*>(from) + first * row_bytes_,
                 static_cast<uint32_t>(min(2, rows - first) * row_bytes_), &shared_.full[slot_],
                 policy_);
      }
      return;
    }
    const int before = min(max(place_.before - row, 0), rows);
    const unsigned char* const at = static_cast<const unsigned char*>(from);
    if (lane_ == 0 && before > 0) Copy(row, at, before);
    if (lane_ == 1 && rows > before) {
      Copy(row + before, at + before * row_bytes_, rows - before);
    }
  }
  // The chunk's rows, each where its lane says.
  __device__ __forceinline__ void PutRows(const void* from, int rows) {
    if (lane_ < rows) Copy(lane_, from, 1);
  }

 private:
  // The same of units of one row, or of two and a pad.
  __device__ __forceinline__ void Begin(int units, int unit_bytes, int bytes) {
    const int all = units * unit_bytes;
    int size = all;
    if (at_ + unit_bytes > capacity_) {
      size += capacity_ - at_;
      at_ = 0;
    }
    place_ = {at_, units};
    if (at_ + all > capacity_) {
      place_.before = (capacity_ - at_) / unit_bytes;
      size += capacity_ - at_ - place_.before * unit_bytes;
      at_ = all - place_.before * unit_bytes;
    } else {
      at_ += all;
    }
    while (used_ + size > capacity_ || sequence_ - tail_ == kLayersChunks) {
      const int slot = tail_ % kLayersSlots;
      WaitCopyBarrier(&shared_.empty[slot], tail_ / kLayersSlots & 1);
      used_ -= shared_.sizes[slot];
      if (landed_ == tail_) Landed();
      ++tail_;
    }
    while (landed_ != sequence_ && flying_ + size > under_way_) {
      WaitCopyBarrier(&shared_.full[landed_ % kLayersSlots], landed_ / kLayersSlots & 1);
      Landed();
    }
    flying_ += size;
    slot_ = sequence_ % kLayersSlots;
    used_ += size;
    ++sequence_;
    if (lane_ == 0) {
      shared_.sizes[slot_] = size;
      shared_.places[slot_] = place_;
      ExpectCopies(&shared_.full[slot_], static_cast<uint32_t>(bytes));
    }
    __syncwarp();
  }
  __device__ __forceinline__ void Landed() {
    flying_ -= shared_.sizes[landed_ % kLayersSlots];
    ++landed_;
  }
  __device__ __forceinline__ void Copy(int row, const void* from, int rows) {
    CopyBulk(ring_ + RowAt<kPad>(place_, row, row_bytes_), from,
             static_cast<uint32_t>(rows * row_bytes_), &shared_.full[slot_], policy_);
  }

  RingShared& shared_;
  unsigned char* const ring_;
  const int capacity_;
  const int under_way_;
  const int lane_;
  const uint64_t policy_;
  uint32_t sequence_ = 0;
  uint32_t tail_ = 0;    // the oldest chunk that may still be multiplied
  uint32_t landed_ = 0;  // the oldest chunk that may not be there yet
  int flying_ = 0;       // bytes from there on
  int used_ = 0;
  int at_ = 0;
  int slot_ = 0;
  int row_bytes_ = 0;
  ChunkPlace place_ = {};
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
