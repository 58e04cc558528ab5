// Products as a stream of panels of weights: those of a few dozen rows, between the streamed
// products of stream_product.cuh and a library's; where steps are batch-invariant, those of any
// number of rows. Hopper only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/panel_maps.h"
#include "kernels/params.h"

namespace sirocco::cuda {

// Products without norms between them. A norm divides a row by its root mean square, which is one
// number a row: it can be applied to the sums of the product that reads the row, and nothing waits
// for it before. So a product that writes the residual stream leaves the *unnormed* rows s * next
// beside it, and each tile of 64 outputs its part of their squares, in a place of its own: nobody
// counts, and the bits are the same in each run.
//
// Where what joins the stream is normed first (`post`), neither s nor its squares are known yet:
//   s = h + r1 * a, a = delta * post, r1 = 1 / rms(delta)
// Then two rows stand for each row, h * next and a * next, and four sums of squares, from which
//   s^2 = h^2 + 2 * r1 * h * a + r1^2 * a^2
// The reader adds up two products a row, and writes s, each block its share.
inline constexpr int32_t kTileOutputs = 64;
// Of unnormed rows: sums of squares a tile and row, and rows that stand for a row.
constexpr int32_t SquaresOf(bool post) { return post ? 4 : 1; }  // delta^2, a^2, h^2, h * a; or s^2
constexpr int32_t UnnormedRowsOf(bool post) { return post ? 2 : 1; }

// What a product finds that reads unnormed rows; null `squares`: its rows are normed.
struct UnnormedIn {
  const float* squares = nullptr;  // [tiles of the stream, R, SquaresOf(post)]
  float epsilon = 0;
  bool post = false;
  // With `post`: sum = hidden + r1 * added. `sum` may be `hidden`.
  const float* hidden = nullptr;  // [R, width of in]
  const float* added = nullptr;   // the same: a
  float* sum = nullptr;           // the same
};

// What a product of the stream leaves; null `rows`: nothing. With `post`, `out` is a and `add` is
// not set; without, `add` is.
struct UnnormedOut {
  const float* post = nullptr;    // [outputs] or null
  const float* next = nullptr;    // [outputs]
  const float* hidden = nullptr;  // with `post`: h [R, outputs]
  void* rows = nullptr;           // [UnnormedRowsOf(post) * R, outputs] bfloat16
  float* squares = nullptr;       // [tiles of outputs, R, SquaresOf(post)]
};

// out[R, outputs] = in[R, inputs] * weight^T + bias, onto what `out` holds where `add` is set; or,
// where `up` has data, activation(in * weight^T + bias) * (in * up^T + up_bias).
struct PanelProductParams {
  int32_t rows = 0;
  Rows in;        // 16-bit elements
  Matrix weight;  // of the same type
  const float* bias = nullptr;
  Rows out;          // [R, weight.rows], float32 or of that type
  bool add = false;  // then `out` is float32, and there is no `up`
  Matrix up;         // as `weight`
  const float* up_bias = nullptr;
  Activation activation = Activation::kSilu;
  UnnormedIn unnormed;  // of `in`, which has then UnnormedRowsOf rows a row; R is still `rows`
  UnnormedOut leaves;
};

inline constexpr int32_t kPanelRows = 64;  // at most, unless it is to be panels anyhow
// Of so few rows the streamed products of stream_product.cuh are faster, or about as fast. Measured
// on an H200 in whole steps, streamed -> by panels without norms between them, us: 2 rows of
// gemma3-1b 907 -> 787, llama3.2-1b 836 -> 794, qwen3-4b 2,583 -> 2,465, llama3.1-8b 3,938 ->
// 3,748; one row of qwen3-4b 2,359 -> 2,443, of llama3.1-8b 3,787 -> 3,729.
inline constexpr int32_t kStreamedRows = 1;

// Rows are copied, loaded and stored by 16 bytes. Null does, too.
inline bool BeginsAt16(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

// Whether panels can be the way: 16-bit elements, and rows that begin at multiples of 16 bytes. It
// does not hang on how many rows there are.
inline bool FitsPanels(const PanelProductParams& p) {
  return p.rows > 0 && (p.weight.dtype == DType::kBFloat16 || p.weight.dtype == DType::kFloat16) &&
         p.in.dtype == p.weight.dtype && p.in.width % 8 == 0 && BeginsAt16(p.in.data) &&
         BeginsAt16(p.weight.data) && BeginsAt16(p.up.data);
}

// Whether panels are the way: they can be, and there are a few dozen rows. More than half of
// kPanelRows are so only where little is to be done: each block brings the activations itself,
// which then are half as many bytes as the weights, or as many. Measured on an H200 in whole steps
// of 64 rows, by the library's products and by panels of gate and up, with those of few weights, in
// us: gemma3-1b 1,473, 1,432, llama3.2-1b 1,299, 1,217; with gate and up alone, in more blocks than
// there are multiprocessors: qwen3-4b 3,735, 4,031, llama3.1-8b 5,279, 5,360.
inline bool TakesPanels(const PanelProductParams& p) {
  constexpr uint64_t kFewBytes = uint64_t{16} << 20;
  constexpr int32_t kFewOutputs = 132 * 64;  // of gate and up: a block a multiprocessor
  const bool few = p.up.data != nullptr ? p.up.rows <= kFewOutputs : BytesOf(p.weight) <= kFewBytes;
  return FitsPanels(p) && p.rows > kStreamedRows && p.rows <= (few ? kPanelRows : kPanelRows / 2);
}

inline constexpr int32_t kMostUnnormedRows = 32;
// Up to how many rows products go without the norm between them. With post-norms twice as many are
// multiplied. Measured on an H200 as a chain of all layers (panel_bench), us a layer, each with its
// best rings, with norms and without: gemma3-1b 4 rows 25.0, 24.5, 16 rows 28.2, 27.8, 32
// rows 30.1, 31.9 (q, k and v's alone left out); llama3.2-1b 40.8, 39.6, 43.0, 40.8, 46.5, 45.2, 64
// rows 55.7, 57.0 (gate and up's alone); llama3.1-8b 116.6, 114.8, 119.4, 117.0, 123.7, 121.7.
constexpr int32_t UnnormedRows(bool post) { return kMostUnnormedRows / UnnormedRowsOf(post); }

// Rows that are multiplied.
inline int32_t InRowsOf(const PanelProductParams& p) {
  const bool two = p.unnormed.squares != nullptr && p.unnormed.post;
  return p.rows * UnnormedRowsOf(two);
}

// Whether a product that TakesPanels may read or leave unnormed rows: in bfloat16 alone, since the
// residual stream goes beyond what float16 holds, and everything by 16 bytes.
inline bool TakesUnnormed(const PanelProductParams& p) {
  const UnnormedIn& in = p.unnormed;
  const UnnormedOut& leaves = p.leaves;
  return p.weight.dtype == DType::kBFloat16 && InRowsOf(p) <= kMostUnnormedRows &&
         p.weight.rows % 4 == 0 && BeginsAt16(p.out.data) && BeginsAt16(p.bias) &&
         BeginsAt16(p.up_bias) && BeginsAt16(in.squares) && BeginsAt16(in.hidden) &&
         BeginsAt16(in.added) && BeginsAt16(in.sum) && BeginsAt16(leaves.post) &&
         BeginsAt16(leaves.next) && BeginsAt16(leaves.hidden) && BeginsAt16(leaves.rows) &&
         BeginsAt16(leaves.squares);
}

// Bytes between two products: the rows, of which the squares begin behind UnnormedRowsBytes.
inline size_t UnnormedRowsBytes(int32_t rows, int32_t width, bool post) {
  const size_t bytes = size_t{2} * UnnormedRowsOf(post) * rows * width;
  return (bytes + 255) / 256 * 256;
}
inline size_t UnnormedBytes(int32_t rows, int32_t width, bool post) {
  const size_t tiles = (size_t{1} * width + kTileOutputs - 1) / kTileOutputs;
  return UnnormedRowsBytes(rows, width, post) + sizeof(float) * SquaresOf(post) * tiles * rows;
}

// What measurements choose themselves; 0: as the shape wants it.
struct PanelTuning {
  int32_t split = 0;  // blocks that share an output's columns: 1, 2, 4 or 8
  int32_t ring = 0;   // KiB of weights and activations on their way
};

namespace hopper {
// Only what FitsPanels, and with unnormed rows TakesUnnormed. Sums are float32; what a row comes
// to, where it is normed, hangs neither on the number of rows nor on what the others are. Where
// kernels are only loaded, those of fewer rows are, too. `maps` stays its caller's.
cudaError_t LaunchPanelProduct(const PanelProductParams& p, PanelMaps& maps,
                               const LaunchContext& context, const PanelTuning& tuning = {});
}  // namespace hopper

}  // namespace sirocco::cuda
