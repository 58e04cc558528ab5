// Products of a hundred rows and more by warpgroups, with the operation's end in the same kernel:
// between the panels of panel_product.h and a library's. Hopper only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/panel_product.h"
#include "kernels/params.h"

namespace sirocco::cuda {

// Of rows that are not normed before they are multiplied (panel_product.h, "Products without norms
// between them"): their squares, by which the sums are normed. Null `squares`: the rows are normed.
struct RowSquares {
  const float* squares = nullptr;  // [R, runs]: of each run of the stream's outputs
  int32_t runs = 0;                // a multiple of 4
  float epsilon = 0;
};

// What a product of the stream leaves beside it for one that reads unnormed rows; null `rows`:
// nothing.
struct WideLeaves {
  const float* next = nullptr;  // [outputs]
  void* rows = nullptr;         // [R, outputs] bfloat16: the stream * next
  float* squares = nullptr;     // RowSquares::squares
};

// out[R, outputs] = in[R, inputs] * weight^T + bias, onto what `out` holds where `add` is set; or,
// where `up` has data, activation(in * weight^T + bias) * (in * up^T + up_bias).
struct WideProductParams {
  int32_t rows = 0;
  Rows in;        // 16-bit elements
  Matrix weight;  // of the same type
  const float* bias = nullptr;
  Rows out;  // [R, weight.rows], float32 or of that type; with parts [parts][R, weight.rows]
  bool add = false;  // then `out` is float32, and there is no `up`
  Matrix up;         // as `weight`
  const float* up_bias = nullptr;
  Activation activation = Activation::kSilu;
  // More than 1: the inputs are multiplied in so many parts side by side, and `out` is float32,
  // with neither a bias nor `add` nor `up`.
  int32_t parts = 1;
  RowSquares unnormed;  // of `in`, where it is not normed
  WideLeaves leaves;    // where `add` is set
};

// Tiles that have `count` rows or outputs among them, each `of` so many.
constexpr int64_t TilesOf(int64_t count, int64_t of) { return (count + of - 1) / of; }

// Runs of outputs that a product leaves squares of (RowSquares): one a block and tile.
constexpr int32_t RunsOf(int32_t outputs, int32_t tile_outputs, int32_t split) {
  return static_cast<int32_t>((TilesOf(outputs, tile_outputs) * split + 3) / 4 * 4);
}

// What a product must be for this kernel to make it, whether or not it should.
inline bool CanBeWide(const WideProductParams& p) {
  return p.rows > 0 && (p.weight.dtype == DType::kBFloat16 || p.weight.dtype == DType::kFloat16) &&
         p.in.dtype == p.weight.dtype && p.in.width % 8 == 0 && p.weight.rows % 8 == 0 &&
         p.weight.data != nullptr && BeginsAt16(p.in.data) && BeginsAt16(p.weight.data) &&
         BeginsAt16(p.out.data) && BeginsAt16(p.bias) && BeginsAt16(p.up_bias) &&
         // Gate and up are one tensor of four dimensions: up follows gate in memory, anywhere.
         (p.up.data == nullptr || (BeginsAt16(p.up.data) && p.up.data > p.weight.data));
}

// The tiles of a product: which of the kernels that there are (wide_product.cu). Clusters are of
// two blocks, which share either the weights (Pairs) or the rows.
enum class WideTile : int32_t {
  kPairs256,   // 128 rows by 256 outputs a block
  kPairs224,   // 128 by 224
  kTall128,    // 192 by 128
  kShared224,  // 128 by 224
  kShared128,  // 128 by 128
  kPairs128,   // 128 by 128
  kShared160,  // 128 by 160
  kShared144,  // 128 by 144
  kPairs160,   // 128 by 160
  // Of products without norms between them (wide_pair.h). Halves are of four blocks: two by two
  // have half of the inputs each.
  kSharedHalves72,   // 64 by 72
  kSharedHalves104,  // 64 by 104
  kPairsHalves144,   // 64 by 144
  kPairsHalves208,   // 64 by 208
  kLowPairs128,      // 64 by 128
};
// Of gate and up, those of a decode step's rows, and the first kPromptTiles those of more; of
// products in parts.
inline constexpr WideTile kGateUpTiles[] = {
    WideTile::kPairs256,  WideTile::kPairs224,  WideTile::kTall128,   WideTile::kShared224,
    WideTile::kShared128, WideTile::kShared160, WideTile::kShared144, WideTile::kPairs160};
inline constexpr size_t kPromptTiles = 5;
inline constexpr int32_t kMostDecodeRows = 256;
inline constexpr WideTile kPartTiles[] = {WideTile::kShared128, WideTile::kPairs128,
                                          WideTile::kTall128};

struct WideTileSize {
  int32_t rows, outputs;  // of a block
  int32_t down, across;   // row tiles and output tiles of a cluster
  int32_t split = 1;      // blocks that share a tile's inputs
};
constexpr WideTileSize SizeOf(WideTile tile) {
  switch (tile) {
    case WideTile::kPairs256:
      return {128, 256, 2, 1};
    case WideTile::kPairs224:
      return {128, 224, 2, 1};
    case WideTile::kTall128:
      return {192, 128, 1, 2};
    case WideTile::kShared224:
      return {128, 224, 1, 2};
    case WideTile::kShared128:
      return {128, 128, 1, 2};
    case WideTile::kPairs128:
      return {128, 128, 2, 1};
    case WideTile::kShared160:
      return {128, 160, 1, 2};
    case WideTile::kShared144:
      return {128, 144, 1, 2};
    case WideTile::kPairs160:
      return {128, 160, 2, 1};
    case WideTile::kSharedHalves72:
      return {64, 72, 1, 2, 2};
    case WideTile::kSharedHalves104:
      return {64, 104, 1, 2, 2};
    case WideTile::kPairsHalves144:
      return {64, 144, 2, 1, 2};
    case WideTile::kPairsHalves208:
      return {64, 208, 2, 1, 2};
    case WideTile::kLowPairs128:
      return {64, 128, 2, 1};
  }
  return {};
}

struct WideChoice {
  WideTile tile = WideTile::kPairs256;
  int32_t group = 4;  // runs of row tiles that share their weights' reading (WideGrid)
  int32_t parts = 1;  // more: the product is to be made as InParts
};

// Products of fewer rows are panels' or the library's.
inline constexpr int32_t kWideRows = kPanelRows + 1;

// Products in parts come in so many, and have so many rows at most.
inline constexpr int32_t kWideParts = 4;
inline constexpr int32_t kWidePartsRows = 256;
static_assert(kWideParts <= kMostParts);

// `p` in parts: sums [parts][R, weight.rows], which somebody adds up, with p.bias, onto what p.out
// holds where p.add is set.
inline WideProductParams InParts(const WideProductParams& p, int32_t parts, void* sums) {
  WideProductParams in_parts = p;
  in_parts.bias = nullptr;
  in_parts.add = false;
  in_parts.out = {sums, DType::kFloat32, p.weight.rows};
  in_parts.parts = parts;
  return in_parts;
}
inline size_t PartsBytes(const WideProductParams& p, int32_t parts) {
  return sizeof(float) * parts * p.rows * p.weight.rows;
}

// Of `tiles` that of the shortest way, in rounds of the 66 clusters that an H100 or H200 has room
// for; a round's is as what a block brings for it, its rows and its outputs, since tiles are
// multiplied as fast as they come. Of equal ways that which reads the weights less often.
// `outputs`: of gate and up those of both.
inline WideTile ShortestWay(std::span<const WideTile> tiles, int32_t rows, int64_t outputs,
                            int32_t parts) {
  constexpr int64_t kClusters = 66;
  WideTile shortest = tiles.front();
  int64_t least = 0, fewest_runs = 0;
  for (const WideTile tile : tiles) {
    const WideTileSize size = SizeOf(tile);
    const int64_t runs = TilesOf(rows, size.rows * size.down);
    const int64_t items = runs * TilesOf(outputs, size.outputs * size.across) * parts;
    const int64_t way = TilesOf(items, kClusters) * (size.rows + size.outputs);
    if (least > 0 && (way > least || (way == least && runs >= fewest_runs))) continue;
    least = way;
    fewest_runs = runs;
    shortest = tile;
  }
  return shortest;
}

// Of gate and up, of so many outputs each.
inline WideTile GateUpTile(int32_t rows, int32_t outputs) {
  const std::span<const WideTile> all = kGateUpTiles;
  return ShortestWay(rows > kMostDecodeRows ? all.first(kPromptTiles) : all, rows,
                     int64_t{2} * outputs, 1);
}

// Numbers of rows of which a product is multiplied in parts, where who reads its sums adds them up.
struct WidePartsRows {
  int32_t least = 0, most = 0;  // most 0: of none
};

// Measured on an H200 by `wide_bench stream`, us, product and the norms behind it: cuBLASLt's best
// in one part, in four, and ours in four, of 80, 128, 192, 256 rows. Down of
// llama3.1-8b 37.7, 39.5, 39.5; 40.2, 42.5, 40.7; 47.5, 47.7, 46.1; 52.5, 54.1, 55.6: ours where
// tiles are of 192 rows. Of
// llama3.2-1b 16.3, 15.9, 16.8; 17.2, 16.8, 17.6; 20.6, 18.5, 19.7; 21.9, 21.3, 21.7, and of
// gemma3-1b 12.0, 11.1, 13.8; 12.3, 11.1, 14.6; 14.3, 13.5, 16.4; 15.9, 13.7, 18.1: the library's,
// which makes them in four.
//
// Few weights: ours, since in each graph and layer a node of ours holds 1.3 KiB less than a
// library's. Measured of gemma3-1b's output: 7.9, 7.5, 7.0; 8.0, 7.7, 7.8; 8.4, 8.5, 8.9; 8.8, 8.9,
// 9.3. That is wide_normed.h's now; the norms that add parts up are those behind down, so these are
// small models' down.
inline WidePartsRows RowsInParts(const WideProductParams& p) {
  constexpr int32_t kManyInputs = 6144;
  constexpr uint64_t kManyBytes = uint64_t{32} << 20;
  constexpr uint64_t kFewBytes = uint64_t{4} << 20;
  const uint64_t bytes = BytesOf(p.weight);
  if (p.weight.cols >= kManyInputs && bytes > kManyBytes) return {129, 192};
  const bool stage_each = p.weight.cols > 64 * (kWideParts - 1);
  return stage_each && bytes <= kFewBytes ? WidePartsRows{kWideRows, kWidePartsRows}
                                          : WidePartsRows{};
}

// Whether this kernel makes a product, and how: the one place that says so. `adds_parts`: who reads
// the sums adds them up, should they come in parts.
//
// Gate and up, whose activation a library leaves to another kernel. Measured as above, cuBLASLt's
// best with the activation's kernel -> ours, 80, 128, 192, 256 rows: llama3.1-8b 66.4 -> 64.7,
// 69.9 -> 66.1, 84.6 -> 82.6, 104.3 -> 97.0; llama3.2-1b -, 24.9 -> 20.9, 28.7 -> 24.0,
// 33.3 -> 28.7; gemma3-1b -, 14.8 -> 12.5, 17.5 -> 14.4, 19.5 -> 16.0. With 4,096 rows equal. Tiles
// of 160 and 144 outputs, where others come to little more than a round: a layer of qwen3-4b of
// 128, 256 rows 89.3 -> 85.7, 122.6 -> 116.3, of qwen2.5-7b 173.1 -> 166.4, 253.4 as before.
//
// And what comes in parts. All others stay the library's, 256 rows: q, k, v of llama3.1-8b
// 22.2 -> 28.5, of gemma3-1b 4.8 -> 8.7; llama3.1-8b's LM head 413 -> 455; output but what
// wide_normed.h has.
inline bool ChooseWide(const WideProductParams& p, bool adds_parts, WideChoice& choice) {
  if (p.rows < kWideRows || !CanBeWide(p)) return false;
  choice.parts = 1;
  if (p.up.data != nullptr) {
    choice.tile = GateUpTile(p.rows, p.weight.rows);
    return true;
  }
  const WidePartsRows in_parts = RowsInParts(p);
  if (!adds_parts || p.rows < in_parts.least || p.rows > in_parts.most) return false;
  choice.parts = kWideParts;
  choice.tile = ShortestWay(kPartTiles, p.rows, p.weight.rows, kWideParts);
  return true;
}

namespace hopper {
// Only what ChooseWide or ChooseWideInPair (wide_pair.h) takes, as it says. Sums are float32, in
// one order for one number of rows. Where kernels are only loaded, those of all tiles are.
cudaError_t LaunchWideProduct(const WideProductParams& p, const WideChoice& choice,
                              const LaunchContext& context);
}  // namespace hopper

}  // namespace sirocco::cuda
