// Products as a stream of panels of weights: those of a few dozen rows, between the streamed
// products of stream_product.cuh and a library's; where steps are batch-invariant, those of any
// number of rows. Hopper only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/params.h"

namespace sirocco::cuda {

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
};

inline constexpr int32_t kPanelRows = 64;  // at most, unless it is to be panels anyhow
// Of so few rows the streamed products of stream_product.cuh are faster. Measured on an H100 with
// 2, 3 and 4 rows, in us: gemma3-1b streamed 1,083, 1,165, 1,193, by panels 1,127, 1,136, 1,135;
// llama3.2-1b 1,056, 1,103, 1,129 and 1,088, 1,085, 1,096.
inline constexpr int32_t kStreamedRows = 2;

// Whether panels can be the way: 16-bit elements, and rows that begin at multiples of 16 bytes. It
// does not hang on how many rows there are.
inline bool FitsPanels(const PanelProductParams& p) {
  constexpr int32_t kMostOutputs = 65535 * 64;  // of a grid
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  return p.rows > 0 && p.weight.rows <= kMostOutputs &&
         (p.weight.dtype == DType::kBFloat16 || p.weight.dtype == DType::kFloat16) &&
         p.in.dtype == p.weight.dtype && p.in.width % 8 == 0 && aligned(p.in.data) &&
         aligned(p.weight.data) && aligned(p.up.data);
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

// What measurements choose themselves; 0: as the shape wants it.
struct PanelTuning {
  int32_t split = 0;  // blocks that share an output's columns: 1, 2, 4 or 8
  int32_t ring = 0;   // KiB of weights and activations on their way
};

namespace hopper {
// Only what FitsPanels. Sums are float32; what a row comes to hangs neither on the number of rows
// nor on what they are. Where kernels are only loaded, those of fewer rows are, too.
cudaError_t LaunchPanelProduct(const PanelProductParams& p, const LaunchContext& context,
                               const PanelTuning& tuning = {});
}  // namespace hopper

}  // namespace sirocco::cuda
