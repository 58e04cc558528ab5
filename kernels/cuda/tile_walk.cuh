// Which tiles of 16 slots a warp of cluster_attention.cu takes, and where in the cache they are: the
// block's tiles in turn, kTiles at once.
#pragma once

#include <cstdint>

#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/tile_sums.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

template <typename Kv, int kDim, int kWarps, int kTiles>
class TileWalk {
 public:
  static constexpr int kStride = kWarps * kTiles;

  // What Find or Next found: whether there is anything, and of each tile where its keys begin and, in
  // float8, its scales.
  bool some;
  const Kv* keys[kTiles];
  const uint8_t* scales[kTiles];

  __device__ __forceinline__ TileWalk(const KvLayer& kv, const int32_t* block_table, int kv_head,
                                      const SlotRange& range)
      : kv_(kv), block_table_(block_table), kv_head_(kv_head), block_of_(kv.block_size) {
    // The same in all lanes, as the compiler then knows.
    const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarp, 0);
    end_ = (range.end + kTileSlots - 1) >> kTileSlotBits;
    tile_ = (range.first >> kTileSlotBits) + warp * kTiles;
    next_ = tile_;
  }
  // Asks at once for the blocks of the first kCount rounds, all but two of which are to be found by
  // Find, one after the other; what follows by Next.
  template <int kCount>
  __device__ __forceinline__ void AskFirst(int (&blocks)[kCount][kTiles]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) Ask(next_ + i * kStride, blocks[i]);
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      blocks_[r] = blocks[kCount - 2][r];
      later_[r] = blocks[kCount - 1][r];
    }
  }

  // The tiles at work, of the row: the first of them; whether there are any.
  __device__ __forceinline__ int tile() const { return tile_; }
  __device__ __forceinline__ bool Works() const { return tile_ < end_; }
  __device__ __forceinline__ void Step() { tile_ += kStride; }

  // What is to be loaded next, in `blocks`.
  __device__ __forceinline__ void Find(const int (&blocks)[kTiles]) {
    some = next_ < end_;
    if (some) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        const int slot = Clamped(next_ + r) << kTileSlotBits;
        const int in_block = slot - block_of_(slot) * kv_.block_size;
        keys[r] = static_cast<const Kv*>(kv_.data) + blocks[r] * kv_.block_stride +
                  (kv_head_ * kv_.block_size + in_block) * kDim;
        if constexpr (kIsScaled<Kv>) {
          scales[r] = static_cast<const uint8_t*>(kv_.data) +
                      KvScaleOffset(kv_, blocks[r], kv_head_, in_block);
        }
      }
    }
    next_ += kStride;
  }
  // The same, blocks being asked for two rounds ahead.
  __device__ __forceinline__ void Next() {
    Find(blocks_);
    if (!some) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) blocks_[r] = later_[r];
    Ask(next_ + kStride, later_);
  }

 private:
  // What a tile beyond the last is read from, for nothing.
  __device__ __forceinline__ int Clamped(int tile) const { return min(tile, end_ - 1); }
  __device__ __forceinline__ void Ask(int first, int (&blocks)[kTiles]) const {
    if (first >= end_) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      blocks[r] = __ldcg(block_table_ + block_of_(Clamped(first + r) << kTileSlotBits));
    }
  }

  const KvLayer& kv_;
  const int32_t* block_table_;
  int kv_head_;
  BlockOf block_of_;
  int tile_, next_, end_;  // of the row: the first at work, the first to load, the last's next
  int blocks_[kTiles], later_[kTiles];  // of next_ ..., and of the round after
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
