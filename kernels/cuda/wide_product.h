// Products of a hundred rows and more by warpgroups, with the operation's end in the same kernel:
// between the panels of panel_product.h and a library's. Hopper only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/panel_product.h"
#include "kernels/params.h"

namespace sirocco::cuda {

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
};

// What a product must be for this kernel to make it, whether or not it should.
inline bool CanBeWide(const WideProductParams& p) {
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  return p.rows > 0 && (p.weight.dtype == DType::kBFloat16 || p.weight.dtype == DType::kFloat16) &&
         p.in.dtype == p.weight.dtype && p.in.width % 8 == 0 && p.weight.rows % 8 == 0 &&
         p.weight.data != nullptr && aligned(p.in.data) && aligned(p.weight.data) &&
         aligned(p.out.data) && aligned(p.bias) && aligned(p.up_bias) &&
         // Gate and up are one tensor of four dimensions: up follows gate in memory, anywhere.
         (p.up.data == nullptr || (aligned(p.up.data) && p.up.data > p.weight.data));
}

// The tiles of a product: which of the kernels that there are (wide_product.cu). Clusters are of
// two blocks, which share either the weights (Pairs) or the rows.
enum class WideTile : int32_t {
  kPairs256,   // 128 rows by 256 outputs a block
  kPairs224,   // 128 by 224
  kTall128,    // 192 by 128
  kShared224,  // 128 by 224
  kShared128,  // 128 by 128
};
inline constexpr WideTile kWideTiles[] = {WideTile::kPairs256, WideTile::kPairs224,
                                          WideTile::kTall128, WideTile::kShared224,
                                          WideTile::kShared128};

struct WideTileSize {
  int32_t rows, outputs;  // of a block
  int32_t down, across;   // row tiles and output tiles of a cluster
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
  }
  return {};
}

struct WideChoice {
  WideTile tile = WideTile::kPairs256;
  int32_t group = 4;  // runs of row tiles that share their weights' reading (WideGrid)
};

// Products of fewer rows are panels' or the library's.
inline constexpr int32_t kWideRows = kPanelRows + 1;

// Whether this kernel makes a product, and how: the one place that says so.
//
// What is multiplied by gate and up alone, whose activation a library leaves to another kernel.
// The tile is that of the shortest way, in rounds of the 66 clusters that an H100 or H200 has room
// for; a round's is as what a block brings for it, its rows and its outputs, since tiles are
// multiplied as fast as they come. Measured on an H200 by tests/bench/wide_bench.cu, us, cuBLASLt's
// best with the activation's kernel -> ours, 80, 128, 192, 256 rows: llama3.1-8b 66.4 -> 64.7,
// 69.9 -> 66.1, 84.6 -> 82.6, 104.3 -> 97.0; llama3.2-1b -, 24.9 -> 20.9, 28.7 -> 24.0,
// 33.3 -> 28.7; gemma3-1b -, 14.8 -> 12.5, 17.5 -> 14.4, 19.5 -> 16.0. With 4,096 rows equal.
//
// The others stay the library's, llama3.1-8b with 256 rows: q, k, v 22.2 -> 28.5; output 17.1 ->
// 17.4 in two parts, which somebody has to add up; down 50.4 -> 48.0 in four, the same; the LM head
// 413 -> 455.
inline bool ChooseWide(const WideProductParams& p, WideChoice& choice) {
  constexpr int64_t kClusters = 66;
  if (p.rows < kWideRows || p.up.data == nullptr || !CanBeWide(p)) return false;
  const auto up_to = [](int64_t count, int64_t of) { return (count + of - 1) / of; };
  int64_t least = 0;
  for (const WideTile tile : kWideTiles) {
    const WideTileSize size = SizeOf(tile);
    const int64_t items = up_to(p.rows, size.rows * size.down) *
                          up_to(int64_t{2} * p.weight.rows, size.outputs * size.across);
    const int64_t way = up_to(items, kClusters) * (size.rows + size.outputs);
    if (least > 0 && way >= least) continue;
    least = way;
    choice.tile = tile;
  }
  return true;
}

namespace hopper {
// Only what ChooseWide takes. Sums are float32, in one order for one number of rows. Where kernels
// are only loaded, those of all tiles are.
cudaError_t LaunchWideProduct(const WideProductParams& p, const WideChoice& choice,
                              const LaunchContext& context);
}  // namespace hopper

}  // namespace sirocco::cuda
