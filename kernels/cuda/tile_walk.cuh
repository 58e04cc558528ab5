// Which tiles of 16 slots a warp of cluster_attention.cu or pair_attention.cu takes, and where in the
// cache they are: those of the slots that some warps share in turn, kTiles at once.
#pragma once

#include <cstdint>

#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/tile_sums.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// A warp among those that share slots: the same in all lanes, as the compiler then knows.
struct WarpOfSlots {
  int warp;
  int warps;
};
// Of a block whose kWarps warps share slots.
template <int kWarps>
__device__ __forceinline__ WarpOfSlots WarpOfBlock() {
  return {__shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarp, 0), kWarps};
}

template <typename Kv, int kDim, int kTiles>
class TileWalk {
 public:
  // What Find or Next found: whether there is anything, and of each tile where its keys begin and, in
  // float8, its scales.
  bool some;
  const Kv* keys[kTiles];
  const uint8_t* scales[kTiles];

  __device__ __forceinline__ TileWalk(const KvLayer& kv, const int32_t* block_table, int kv_head,
                                      const SlotRange& range, const WarpOfSlots& own)
      : kv_(kv),
        block_table_(block_table),
        kv_head_(kv_head),
        stride_(own.warps * kTiles),
        block_of_(kv.block_size) {
    end_ = (range.end + kTileSlots - 1) >> kTileSlotBits;
    tile_ = (range.first >> kTileSlotBits) + own.warp * kTiles;
    next_ = tile_;
  }
  // Asks at once for the blocks of the first kCount rounds, all but two of which are to be found by
  // Find, one after the other; what follows by Next.
  template <int kCount>
  __device__ __forceinline__ void AskFirst(int (&blocks)[kCount][kTiles]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) Ask(next_ + i * stride_, blocks[i]);
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      blocks_[r] = blocks[kCount - 2][r];
      later_[r] = blocks[kCount - 1][r];
    }
  }

  // The tiles at work, of the row: the first of them; whether there are any.
  __device__ __forceinline__ int tile() const { return tile_; }
  __device__ __forceinline__ bool Works() const { return tile_ < end_; }
  // Before the first Step: whether a tile of the row is among the warp's.
  __device__ __forceinline__ bool Has(int tile) const {
    return tile >= tile_ && (tile - tile_) % stride_ < kTiles;
  }
  __device__ __forceinline__ void Step() { tile_ += stride_; }

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
    next_ += stride_;
  }
  // The same, blocks being asked for two rounds ahead.
  __device__ __forceinline__ void Next() {
    Find(blocks_);
    if (!some) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) blocks_[r] = later_[r];
    Ask(next_ + stride_, later_);
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
  int stride_;  // tiles
  BlockOf block_of_;
  int tile_, next_, end_;  // of the row: the first at work, the first to load, the last's next
  int blocks_[kTiles], later_[kTiles];  // of next_ ..., and of the round after
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
