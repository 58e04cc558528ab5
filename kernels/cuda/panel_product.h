// Products of a few dozen rows as a stream of panels of weights, between the streamed products of
// stream_product.cuh and a library's. Hopper only.
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

inline constexpr int32_t kPanelRows = 64;  // at most

// Whether panels are the way: 16-bit elements, rows that begin at multiples of 16 bytes, and few
// rows. Plain products of more than half of kPanelRows are so only where the weights are few: each
// block brings the activations itself, which then are as many bytes as the weights. Measured on an
// H200 with 64 rows, a layer of llama3.1-8b without attention in us: by panels alone 145 to 166, of
// gemma3-1b 35.
inline bool TakesPanels(const PanelProductParams& p) {
  constexpr uint64_t kFewBytes = uint64_t{16} << 20;
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  return p.rows >= 1 &&
         p.rows <= (p.up.data != nullptr || BytesOf(p.weight) <= kFewBytes ? kPanelRows
                                                                           : kPanelRows / 2) &&
         (p.weight.dtype == DType::kBFloat16 || p.weight.dtype == DType::kFloat16) &&
         p.in.dtype == p.weight.dtype && p.in.width % 8 == 0 && aligned(p.in.data) &&
         aligned(p.weight.data) && aligned(p.up.data);
}

// What measurements choose themselves; 0: as the shape wants it.
struct PanelTuning {
  int32_t split = 0;  // blocks that share an output's columns: 1, 2, 4 or 8
  int32_t ring = 0;   // KiB of weights and activations on their way
};

namespace hopper {
// Only what TakesPanels. Sums are float32, in one order for one number of rows. Where kernels are
// only loaded, those of fewer rows are, too.
cudaError_t LaunchPanelProduct(const PanelProductParams& p, const LaunchContext& context,
                               const PanelTuning& tuning = {});
}  // namespace hopper

}  // namespace sirocco::cuda
