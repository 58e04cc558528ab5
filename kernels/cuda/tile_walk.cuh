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

// Where the tiles are in the cache says the sequence's block table: a lane loads the entry of one tile
// of the next kRounds, so that one load, and the way to it, is all that stands before the first copy.
template <typename Kv, int kDim, int kTiles>
class TileWalk {
 public:
  // What Next found: whether there is anything, and of each tile where its keys begin and, in float8,
  // its scales.
  bool some;
  const Kv* keys[kTiles];
  const uint8_t* scales[kTiles];

  // block_of: by kv.block_size.
  __device__ __forceinline__ TileWalk(const KvLayer& kv, const int32_t* block_table, int kv_head,
                                      const SlotRange& range, const WarpOfSlots& own,
                                      const DividedBy& block_of)
      : kv_(kv),
        block_table_(block_table),
        kv_head_(kv_head),
        stride_(own.warps * kTiles),
        block_of_(block_of) {
    end_ = (range.end + kTileSlots - 1) >> kTileSlotBits;
    tile_ = (range.first >> kTileSlotBits) + own.warp * kTiles;
    next_ = tile_;
    blocks_ = Ask(next_);
    later_ = Ask(next_ + kRounds * stride_);
  }

  // The tiles at work, of the row: the first of them; whether there are any.
  __device__ __forceinline__ int tile() const { return tile_; }
  __device__ __forceinline__ bool Works() const { return tile_ < end_; }
  // Before the first Step: whether a tile of the row is among the warp's.
  __device__ __forceinline__ bool Has(int tile) const {
    return tile >= tile_ && (tile - tile_) % stride_ < kTiles;
  }
  __device__ __forceinline__ void Step() { tile_ += stride_; }

  // What is to be loaded next.
  __device__ __forceinline__ void Next() {
    some = next_ < end_;
    if (!some) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const int block = __shfl_sync(kAllLanes, blocks_, round_ * kTiles + r);
      const int in_block = InBlock(next_ + r);
      keys[r] = KeysAt(block, in_block);
      if constexpr (kIsScaled<Kv>) {
        scales[r] = static_cast<const uint8_t*>(kv_.data) +
                    KvScaleOffset(kv_, block, kv_head_, in_block);
      }
    }
    next_ += stride_;
    if (++round_ < kRounds) return;
    round_ = 0;
    blocks_ = later_;
    later_ = Ask(next_ + kRounds * stride_);
  }

 private:
  static constexpr int kRounds = kWarp / kTiles;

  // The tile's first slot.
  __device__ __forceinline__ int InBlock(int tile) const {
    const int slot = Clamped(tile) << kTileSlotBits;
    return slot - block_of_(slot) * kv_.block_size;
  }
  __device__ __forceinline__ const Kv* KeysAt(int block, int in_block) const {
    return static_cast<const Kv*>(kv_.data) + block * kv_.block_stride +
           (kv_head_ * kv_.block_size + in_block) * kDim;
  }
  // What a tile beyond the last is read from, for nothing.
  __device__ __forceinline__ int Clamped(int tile) const { return min(tile, end_ - 1); }
  // The lane's entry, of the rounds that begin with tile `first`.
  __device__ __forceinline__ int Ask(int first) const {
    if (first >= end_) return 0;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int tile = Clamped(first + lane / kTiles * stride_ + lane % kTiles);
    return __ldcg(block_table_ + block_of_(tile << kTileSlotBits));
  }

  const KvLayer& kv_;
  const int32_t* block_table_;
  int kv_head_;
  int stride_;  // tiles
  DividedBy block_of_;
  int tile_, next_, end_;  // of the row: the first at work, the first to load, the last's next
  int round_ = 0;          // of next_
  int blocks_, later_;     // a lane's entry of kRounds rounds from the next but `round_` on; of those after
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
