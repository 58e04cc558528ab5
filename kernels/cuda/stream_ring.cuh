// The ring of weight pieces in shared memory between the copies and the sums. On Hopper one warp
// issues bulk copies (evict first: weights are read once) and waits for free slots; else every
// thread copies its share with cp.async.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/stream_plan.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// A barrier of the warps that make the sums.
__device__ __forceinline__ void SyncConsumers() { NamedBarrier(1, kStreamConsumers); }
struct ConsumerSync {
  __device__ __forceinline__ void operator()() const { SyncConsumers(); }
};

// Rows of weights whose sums are made at once.
template <typename T>
struct StreamTile {
  int units;
  const T* weights[2];  // the first row of each half; rows of a half follow one another
  int rows[2];          // of each half
};

// Op::TileAt(unit, end) says which rows belong to the tile that begins at `unit`.
template <typename T, typename Op>
class StreamRing {
 public:
  // slots: plan.slots slots, aligned to 128 bytes. full, empty: [kStreamSlots] in shared memory.
  __device__ StreamRing(const StreamPlan& plan, const Op& op, int first_unit, int end_unit,
                        unsigned char* slots, uint64_t* full, uint64_t* empty)
      : plan_(plan),
        op_(op),
        slots_(slots),
        full_(full),
        empty_(empty),
        unit_(first_unit),
        end_(end_unit) {
    if (unit_ < end_) tile_ = op_.TileAt(unit_, end_);
  }

#if SIROCCO_HOPPER
  // The copying thread, before the block synchronises: the barriers, and copies into all slots.
  __device__ void Start() {
    for (int i = 0; i < plan_.slots; ++i) {
      InitBarrier(full_ + i, 1);
      InitBarrier(empty_ + i, kStreamWarps);
    }
    FenceBarrierInit();
    policy_ = EvictFirstPolicy();
    for (int i = 0; i < plan_.slots && unit_ < end_; ++i) CopyNext();
  }
  // The copying thread, after the block has synchronised: the rest.
  __device__ void CopyRest() {
    for (; unit_ < end_; CopyNext()) WaitBarrier(empty_ + slot_, parity_ ^ 1u);
  }

  // A consumer thread waits for the next piece ...
  __device__ __forceinline__ const unsigned char* Acquire() {
    WaitBarrier(full_ + slot_, parity_);
    return slots_ + slot_ * plan_.slot_bytes();
  }
  // ... and its warp has no more use for it.
  __device__ __forceinline__ void Release() {
    __syncwarp();
    if (threadIdx.x % kWarp == 0) Arrive(empty_ + slot_);
    NextSlot();
  }
#else
  __device__ void Start() {
    for (int i = 0; i + 1 < kPortableSlots; ++i) {
      if (unit_ < end_) CopyNext();
      CommitCopies();
    }
  }
  // Frees the slot of the piece before, for all threads, and copies into it.
  __device__ __forceinline__ const unsigned char* Acquire() {
    WaitForCopies<kPortableSlots - 2>();
    SyncConsumers();
    if (unit_ < end_) CopyNext();
    CommitCopies();
    const unsigned char* slot = slots_ + taken_ * plan_.slot_bytes();
    taken_ = taken_ + 1 == kPortableSlots ? 0 : taken_ + 1;
    return slot;
  }
  __device__ __forceinline__ void Release() {}
#endif

 private:
  __device__ __forceinline__ void NextSlot() {
    if (++slot_ == plan_.slots) {
      slot_ = 0;
      parity_ ^= 1u;
    }
  }

  // Copies the piece at (unit_, column_) into slot_, and goes on to the next.
  __device__ void CopyNext() {
    unsigned char* slot = slots_ + slot_ * plan_.slot_bytes();
    const int columns = min(plan_.piece_columns, plan_.columns - column_);
    const uint32_t row_bytes = columns * sizeof(T);
#if SIROCCO_HOPPER
    ArriveExpecting(full_ + slot_, (tile_.rows[0] + tile_.rows[1]) * row_bytes);
#endif
    for (int half = 0; half < 2; ++half) {
      const T* from = tile_.weights[half] + column_;
      unsigned char* to = slot + half * plan_.half_rows * plan_.row_bytes;
#if SIROCCO_HOPPER
      if (tile_.rows[half] == 0) continue;
      if (plan_.whole_rows()) {
        CopyBulk(to, from, tile_.rows[half] * row_bytes, full_ + slot_, policy_);
        continue;
      }
      for (int r = 0; r < tile_.rows[half]; ++r) {
        CopyBulk(to, from, row_bytes, full_ + slot_, policy_);
        from += plan_.columns;
        to += plan_.row_bytes;
      }
#else
      const int chunks = row_bytes / 16;
      for (int i = threadIdx.x; i < tile_.rows[half] * chunks; i += kStreamConsumers) {
        const int r = i / chunks;
        const int c = i - r * chunks;
        CopyAsync16(to + r * plan_.row_bytes + c * 16,
                    from + int64_t{r} * plan_.columns + c * (16 / sizeof(T)));
      }
#endif
    }
    NextSlot();
    column_ += plan_.piece_columns;
    if (column_ < plan_.columns) return;
    column_ = 0;
    unit_ += tile_.units;
    if (unit_ < end_) tile_ = op_.TileAt(unit_, end_);
  }

  const StreamPlan& plan_;
  const Op& op_;
  unsigned char* slots_;
  uint64_t* full_;
  uint64_t* empty_;
  uint64_t policy_ = 0;
  int unit_;
  int end_;
  int column_ = 0;
  StreamTile<T> tile_ = {};
  int slot_ = 0;  // of the next copy; of a consumer on Hopper, the next to wait for
  uint32_t parity_ = 0;
  int taken_ = 0;  // of a consumer where it copies itself
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
