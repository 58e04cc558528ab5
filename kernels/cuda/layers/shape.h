// How the kernel of all layers (layers.h) cuts its work, all of it known when it is compiled
// but for the number of blocks.
//
// Weights are counted in units: a row, or a row of gate and the same of up. Of each product a block
// has one contiguous run of units, cut into *tiles* of 16 rows: two *chunks* of eight, which the
// matrix instruction takes as its rows 0-7 and 8-15; of gate and up, eight rows of each. Along the
// columns a tile is cut into *pieces* of kWarps * 128, and each of these into the warps' shares of
// 128.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kLayersShare = 128;  // columns
inline constexpr int kLayersChunks = 16;  // under way, at most
// Twice as many: a warp that is up to 16 chunks behind still knows a barrier's phase.
inline constexpr int kLayersSlots = 32;
inline constexpr int kLayersRows = 8;      // of a chunk, at most
inline constexpr int kLayersPartials = 4;  // tiles whose sums wait to be added up, at most

// kPost: norms of what is added to the stream. kWarps multiply. A head's slots are cut in kParts.
template <int kHidden_, int kHeads_, int kKvHeads_, int kDim_, int kIntermediate_, bool kPost_,
          int kRows_, int kWarps_, int kParts_>
struct LayersShape {
  static constexpr int kHidden = kHidden_, kHeads = kHeads_, kKvHeads = kKvHeads_, kDim = kDim_,
                       kIntermediate = kIntermediate_, kRows = kRows_, kWarps = kWarps_,
                       kParts = kParts_;
  static constexpr bool kPost = kPost_;
  // LayersTuning's, as measured. Under way: two chunks, or all that the ring holds.
  static constexpr int kMissing = kPost ? 16 : 32;
  static constexpr int kUnderWayOfOne =  // layer
      std::max(40 * 1024, 2 * kLayersRows * 2 * kWarps * kLayersShare);
  static constexpr int kUnderWay = kPost ? 1 << 20 : kUnderWayOfOne;
  static constexpr int kQRows = kHeads * kDim, kKvRows = kKvHeads * kDim;
  static constexpr int kQkvRows = kQRows + 2 * kKvRows;
  static constexpr int kPiece = kWarps * kLayersShare;

  static constexpr int Pieces(int columns) { return (columns + kPiece - 1) / kPiece; }
  static constexpr int Columns(int product) {
    return product == 1 ? kQRows : product == 3 ? kIntermediate : kHidden;
  }
  static constexpr int Units(int product) {
    return product == 0 ? kQkvRows : product == 2 ? kIntermediate : kHidden;
  }
  static constexpr int PieceColumns(int product) {
    return Columns(product) < kPiece ? Columns(product) : kPiece + 0;
  }
  static constexpr int kRowsPad = 0;             // RingWriter's
  static constexpr int kTileRows = kLayersRows;  // of a chunk, but of gate and up
  static constexpr int RowBytes(int product) { return 2 * PieceColumns(product); }

  // Columns of activations that a matrix instruction multiplies at once: of the stream, and, where
  // there are post-norms, of what is added to it.
  static constexpr int kStreamColumns = kRows * (kPost ? 2 : 1);
  // Of activations in shared memory, a warp's: pieces of the product of most.
  static constexpr int kXPieces =
      std::max({Pieces(kHidden) * kStreamColumns, Pieces(kQRows) * kRows,
                kRows == 1 ? Pieces(kIntermediate) : kRows});
  static constexpr int kStats = kRows * (kPost ? 4 : 1);
  static constexpr int kItems = kRows * kHeads * kParts;  // of attention, a block's each

  // Words of 8 bytes that blocks leave for each other, from the buffer's beginning on; there are
  // two buffers, for even and odd layers.
  static constexpr int kQkvAt = 0;  // [R][q, k, v] float32
  // [hidden] float32; of four rows [hidden] of 16 bytes
  static constexpr int kOutputAt = kQkvAt + kRows * kQkvRows;
  static constexpr int kDownAt = kOutputAt + kRows * kHidden;
  static constexpr int kActivatedAt = kDownAt + kRows * kHidden;  // [R][/ 2] pairs of T
  static constexpr int kPartsAt = kActivatedAt + kRows * kIntermediate / 2;
  // [R][heads][parts][dim / 4] of 16 bytes
  static constexpr int kWords = kPartsAt + kRows * kHeads * kParts * (kDim / 4) * 2;

  static_assert(kHidden % kLayersShare == 0 && kQRows % kLayersShare == 0 &&
                kIntermediate % kLayersShare == 0 && kDim % 64 == 0 && kHidden % 16 == 0);
  static_assert(kRows == 1 || kRows == 2 || kRows == 4);
  static_assert(Columns(0) % kPiece == 0 || Columns(0) < kPiece);
  static_assert(Columns(1) % kPiece == 0 || Columns(1) < kPiece);
  static_assert(Columns(3) % kPiece == 0 || Columns(3) < kPiece);
};

// A block's part of a product.
struct BlockRun {
  int32_t first, units;
};
// Of gate and up by twos: a word has two activated elements.
__host__ __device__ constexpr BlockRun RunOf(int units, int grain, uint32_t block,
                                             uint32_t blocks) {
  // In 32 bits: in 64 a division is a subroutine, on the way of a launch's first load.
  const uint32_t all = static_cast<uint32_t>(units / grain);
  const int first = static_cast<int>(all * block / blocks) * grain;
  const int end = static_cast<int>(all * (block + 1) / blocks) * grain;
  return {first, end - first};
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
