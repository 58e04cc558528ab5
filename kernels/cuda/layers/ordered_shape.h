// How the kernel of all layers in panels' order (ordered_layers.cu) cuts its work: as shape.h says,
// for one row, and rows of the ring with a pad.
//
// A warp's columns of a piece are a stage of panels' order, two chains (panel_order.h): so what the
// warps have of a tile are added up as panels do it.
#pragma once

#include <cstdint>

#include "kernels/cuda/layers/shape.h"
#include "kernels/cuda/panel_order.h"
#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kOrderedLongest = 2048;  // tokens of a context

template <int kHidden_, int kHeads_, int kKvHeads_, int kDim_, int kIntermediate_>
struct OrderedLayersShape {
  static constexpr int kHidden = kHidden_, kHeads = kHeads_, kKvHeads = kKvHeads_, kDim = kDim_,
                       kIntermediate = kIntermediate_;
  static constexpr int kWarps = kHidden / kLayersShare;  // that multiply and norm
  static constexpr int kAttending = 8;                   // of them
  // LayersTuning's, as measured.
  static constexpr int kMissing = 8, kUnderWay = 56 * 1024;
  static constexpr int kQRows = kHeads * kDim, kKvRows = kKvHeads * kDim;
  static constexpr int kQkvRows = kQRows + 2 * kKvRows;
  static constexpr int kPiece = kWarps * kLayersShare;

  // 0: q, k and v; 1: attention's output; 2: gate and up; 3: down.
  static constexpr int Columns(int product) {
    return product == 1 ? kQRows : product == 3 ? kIntermediate : kHidden;
  }
  static constexpr int Units(int product) {
    return product == 0 ? kQkvRows : product == 2 ? kIntermediate : kHidden;
  }
  static constexpr int Pieces(int columns) { return (columns + kPiece - 1) / kPiece; }
  static constexpr int kDownPieces = Pieces(kIntermediate);
  static constexpr int PieceColumns(int product) {
    return Columns(product) < kPiece ? Columns(product) : kPiece + 0;
  }
  static constexpr int kRowsPad = 32;   // RingWriter's
  static constexpr int kTileRows = 16;  // of a chunk, but of gate and up
  static constexpr int RowBytes(int product) { return 2 * PieceColumns(product); }

  // Parts that panels cut the columns in, where there are 132 multiprocessors.
  static constexpr int Parts(int product) {
    return PanelSplit(Units(product), Columns(product), product == 2, 132);
  }
  // What is added up in order: warps' shares, of gate and up each of their two chains.
  static constexpr int Addends(int product) {
    return Columns(product) / (product == 2 ? kOrderChain : kLayersShare);
  }
  // The first of a part.
  static constexpr int PartBegin(int product, int part) {
    return product == 2 ? Addends(2) * part
                        : PanelPartBegin(Columns(product), Parts(product), part) / kLayersShare;
  }
  static constexpr int kMostDown = 9;  // units of a block

  // Attention: a block has a query head's slots of one group (ordered_attention.cu).
  static constexpr int kGroupSlots = 64;
  static constexpr int kMostGroups = kOrderedLongest / kGroupSlots;
  static constexpr int kItems = kHeads * kMostGroups;  // a block each; those of no slots do nothing

  // Words of 8 bytes that blocks leave for each other; two buffers, for even and odd layers.
  static constexpr int kQkvAt = 0;                     // [q, k, v] float32
  static constexpr int kOutputAt = kQkvAt + kQkvRows;  // [hidden] float32
  static constexpr int kDownAt = kOutputAt + kHidden;
  static constexpr int kActivatedAt = kDownAt + kHidden;             // pairs
  static constexpr int kPartsAt = kActivatedAt + kIntermediate / 2;  // [heads][groups][dim]
  static constexpr int kStatisticsAt = kPartsAt + kItems * kDim;     // [heads][groups][2]
  static constexpr int kWords = kStatisticsAt + 2 * kItems;

  static_assert(kLayersShare == 2 * kOrderChain && kLayersShare == PanelStage(false) &&
                kHidden == kPiece && kQRows <= kPiece && kQRows % kLayersShare == 0 &&
                kIntermediate % kPiece == 0 && kDim == 256);
  static_assert(kAttending == 8 && kWarps == kAttending + 1);  // as the norms' sums want it
  static_assert(kWords % 2 == 0 && kPartsAt % 2 == 0 && kStatisticsAt % 2 == 0);
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
