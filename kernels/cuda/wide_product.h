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

// The tiles of a product: which of the kernels that there are (wide_product.cu).
enum class WideTile : int32_t {
  kPairs256,   // 128 rows by 256 outputs a block; two blocks of a cluster share the weights
  kPairs224,   // 224 outputs
  kPairs128,   // 128 outputs
  kShared256,  // 128 rows by 256 outputs; two blocks share the rows, for up to 128 of them
};

// How: measured by tests/bench/wide_bench.cu.
struct WideChoice {
  WideTile tile = WideTile::kPairs256;
  int32_t group = 8;  // runs of row tiles that share their weights' reading (WideGrid)
  int32_t skew = 2;   // stages by which a block's second warpgroup follows the first
};

// Products of fewer rows are panels' or the library's.
inline constexpr int32_t kWideRows = kPanelRows + 1;

// Whether this kernel makes a product, and how: the one place that says so. What is multiplied by
// gate and up alone, whose activation a library leaves to another kernel; the choice of tiles is
// the fewest rounds of the 66 clusters that an H100 or H200 has room for.
inline bool ChooseWide(const WideProductParams& p, WideChoice& choice) {
  constexpr int64_t kClusters = 66;
  if (p.rows < kWideRows || p.up.data == nullptr || !CanBeWide(p)) return false;
  if (p.rows <= 128) {
    choice.tile = WideTile::kShared256;
    return true;
  }
  const auto time = [&](int64_t outputs) {
    const int64_t items =
        (p.rows + 255) / 256 * ((int64_t{2} * p.weight.rows + outputs - 1) / outputs);
    return (items + kClusters - 1) / kClusters * outputs;
  };
  choice.tile = time(224) < time(256) ? WideTile::kPairs224 : WideTile::kPairs256;
  return true;
}

namespace hopper {
// Only what CanBeWide. Sums are float32, in one order for one number of rows. Where kernels are
// only loaded, those of all tiles are.
cudaError_t LaunchWideProduct(const WideProductParams& p, const WideChoice& choice,
                              const LaunchContext& context);
}  // namespace hopper

}  // namespace sirocco::cuda
