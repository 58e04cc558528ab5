// Two products without the norms between them (panel_product.h, "Products without norms between
// them") as wide products: more rows than panels take so. Hopper only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/panel_product.h"
#include "kernels/cuda/wide_product.h"

namespace sirocco::cuda {

// Rows of such pairs.
inline constexpr int32_t kLeastWidePairRows = kMostUnnormedRows + 1;
inline constexpr int32_t kMostWidePairRows = 256;
// Up to so many rows clusters of four blocks share a tile's inputs.
inline constexpr int32_t kMostHalvesRows = 128;

// Of `tiles` the first that makes a product in one go: clusters exchange sums once, so all of them
// have to find room, `clusters` of four blocks. False: none does.
inline bool FirstOfOneRound(std::initializer_list<WideTile> tiles, const WideProductParams& p,
                            int32_t clusters, WideTile& tile) {
  for (const WideTile each : tiles) {
    const WideTileSize size = SizeOf(each);
    tile = each;
    if (TilesOf(p.rows, size.rows * size.down) *
            TilesOf(p.weight.rows, size.outputs * size.across) <=
        clusters) {
      return true;
    }
  }
  return false;
}

// Whether a product of a pair is made so, and how: what leaves unnormed rows (`leaves`, and `add`
// is set) or reads them (`unnormed`). `clusters`: of four blocks, that find room on the device at
// once.
//
// Measured on an H200 by `wide_pair_bench layers`, us a layer of llama3.1-8b, attention's place
// taken by a kernel of 14,000 cycles, with the library's products, norms between all, and gate and
// up as they were -> both pairs so, of 40, 64, 80, 96, 128 rows: 136.3 -> 127.7, 137.6 -> 125.2,
// 143.6 -> 140.5, 148.3 -> 141.2, 152.1 -> 143.8. With more rows the library's q, k, v and down are
// faster (192 and 256 rows 187.3 -> 200.9, 220.6 -> 225.0); of output and gate and up alone, 144,
// 192, 224, 256 rows 180.7 -> 185.0, 187.3 -> 191.4, 221.5 -> 224.2, 220.6 -> 222.0: taken all the
// same, where weights are many, for the memory of graphs: a node less a layer, and one of the
// library's.
inline bool ChooseWideInPair(const WideProductParams& p, int32_t clusters, WideChoice& choice) {
  if (p.rows < kLeastWidePairRows || p.rows > kMostWidePairRows || !CanBeWide(p)) return false;
  // The residual stream goes beyond what float16 holds.
  if (p.weight.dtype != DType::kBFloat16 || p.parts != 1) return false;
  choice = {};
  if (p.up.data != nullptr) {
    choice.tile = GateUpTile(p.rows, p.weight.rows);
    return p.out.dtype == DType::kBFloat16;
  }
  if (p.out.dtype != DType::kFloat32) return false;
  if (p.add &&
      (!BeginsAt16(p.leaves.next) || !BeginsAt16(p.leaves.rows) || !BeginsAt16(p.leaves.squares))) {
    return false;
  }
  if (p.rows <= kPanelRows) {
    return FirstOfOneRound({WideTile::kSharedHalves72, WideTile::kSharedHalves104}, p, clusters,
                           choice.tile);
  }
  if (p.rows <= kMostHalvesRows) {
    return FirstOfOneRound({WideTile::kPairsHalves144, WideTile::kPairsHalves208}, p, clusters,
                           choice.tile);
  }
  constexpr uint64_t kManyBytes = uint64_t{32} << 20;
  choice.tile = WideTile::kLowPairs128;
  return p.add && BytesOf(p.weight) >= kManyBytes;
}

// The runs that a product of this choice leaves squares of.
inline int32_t RunsOf(const WideProductParams& p, const WideChoice& choice) {
  const WideTileSize size = SizeOf(choice.tile);
  return RunsOf(p.weight.rows, size.outputs, size.split);
}

// Bytes between two products, with any choice: the rows, of which the squares begin behind
// UnnormedRowsBytes.
inline size_t WidePairBytes(int32_t rows, int32_t width) {
  const WideTileSize least = SizeOf(WideTile::kSharedHalves72);
  return UnnormedRowsBytes(rows, width, /*post=*/false) +
         sizeof(float) * rows * RunsOf(width, least.outputs, least.split);
}

namespace hopper {
// Clusters of four blocks that find room on the calling thread's device at once; 0: none.
int32_t RoomOfWidePairs();
}  // namespace hopper

}  // namespace sirocco::cuda
