// What the multiplying warps of a kernel of all layers have in common: barriers of some warps, and
// where in the ring of chunks each of them is.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/cuda/layers/shape.h"
#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

template <int kThreads>
__device__ __forceinline__ void BarrierOf(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(kThreads) : "memory");
}

// Arrives at that barrier, and goes on.
template <int kThreads>
__device__ __forceinline__ void ArriveBarrierOf(int id) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "n"(kThreads) : "memory");
}

// What a warp knows of the ring's chunks: the next to load, the next to let go.
class ChunkReader {
 public:
  __device__ __forceinline__ explicit ChunkReader(RingShared& shared) : shared_(shared) {}

  // The next chunk, and, with `both`, the one after it, are there.
  __device__ __forceinline__ bool Ready(bool both) const {
    bool ready = Landed(sequence_);
    if (both) ready = ready && Landed(sequence_ + 1);
    return __all_sync(kAllLanes, ready);
  }
  // Of chunks that the warp has no columns of.
  __device__ __forceinline__ void Skip(bool both) { sequence_ += both ? 2 : 1; }
  // Lets the copying warp have a chunk, or two: after what was loaded has been used.
  __device__ __forceinline__ void Release(bool both) {
    __syncwarp();
    if (threadIdx.x % kWarp == 0) {
      ArriveCopyBarrier(&shared_.empty[released_ % kLayersSlots], 1);
      if (both) ArriveCopyBarrier(&shared_.empty[(released_ + 1) % kLayersSlots], 1);
    }
    released_ += both ? 2 : 1;
  }

 protected:
  // Where the next chunk, and that behind it, stand, when they are there.
  __device__ __forceinline__ const ChunkPlace& Wait(int ahead) const {
    const uint32_t sequence = sequence_ + static_cast<uint32_t>(ahead);
    WaitCopyBarrier(&shared_.full[sequence % kLayersSlots], sequence / kLayersSlots & 1);
    return shared_.places[sequence % kLayersSlots];
  }

 private:
  __device__ __forceinline__ bool Landed(uint32_t sequence) const {
    return TestCopyBarrier(&shared_.full[sequence % kLayersSlots], sequence / kLayersSlots & 1);
  }

  RingShared& shared_;
  uint32_t sequence_ = 0;  // the next to load
  uint32_t released_ = 0;  // the next to let go
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
