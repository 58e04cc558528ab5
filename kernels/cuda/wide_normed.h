// The attention's output product with the norms behind it in one kernel, for the rows of a decode
// step that are too many for panels: clusters of blocks own whole rows. Hopper only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/wide_product.h"
#include "kernels/params.h"

namespace sirocco::cuda {

// delta  = in * weight^T + bias             [R, outputs]
// sum    = hidden + norm(delta) * post      (null post: hidden + delta)
// normed = norm(sum) * next
// norm(x) = x / sqrt(mean(x^2) + epsilon), sums and norms in float32.
struct WideNormedParams {
  int32_t rows = 0;
  Rows in;                      // 16-bit elements
  Matrix weight;                // of the same type
  const float* bias = nullptr;  // [outputs] or null
  Rows hidden;                  // [R, outputs], float32
  const float* post = nullptr;  // [outputs] or null
  const float* next = nullptr;  // [outputs]
  float epsilon = 0;
  Rows sum;     // [R, outputs], float32; may be `hidden`
  Rows normed;  // [R, outputs], of the weight's type
};

// A cluster's rows and blocks; the outputs that a block multiplies, of half of the inputs.
inline constexpr int32_t kNormedRows = 64;
inline constexpr int32_t kNormedBlocks = 16;
inline constexpr int32_t kNormedOutputs = 144;
inline constexpr int32_t kNormedInputs = 1024;  // at most

// Steps of more rows are not asked for.
inline constexpr int32_t kMostNormedRows = 256;

// Whether this kernel makes it. Measured on an H200 by tests/bench/normed_bench.cu, us, output of
// gemma3-1b and the norms behind it, cuBLASLt's best in one part and the norms' kernel -> this, of
// 80, 128, 192, 256 rows: back to back 7.1 -> 5.6, 7.2 -> 5.7, 7.5 -> 5.7, 7.9 -> 6.2; behind a
// kernel that has all multiprocessors 6.8 -> 6.6, 6.8 -> 6.7, 7.3 -> 6.8, 7.6 -> 6.9. And a graph
// holds one node for two, of which one is the library's.
inline bool TakesWideNormed(const WideNormedParams& p) {
  WideProductParams product;
  product.rows = p.rows;
  product.in = p.in;
  product.weight = p.weight;
  product.bias = p.bias;
  product.out = p.hidden;
  return p.rows >= kWideRows && p.rows <= kMostNormedRows && CanBeWide(product) &&
         p.weight.rows <= kNormedBlocks / 2 * kNormedOutputs && p.weight.cols <= kNormedInputs &&
         p.hidden.dtype == DType::kFloat32 && p.hidden.width == p.weight.rows &&
         p.next != nullptr && p.sum.dtype == DType::kFloat32 && p.sum.data != nullptr &&
         BeginsAt16(p.sum.data) && p.normed.dtype == p.weight.dtype && BeginsAt16(p.normed.data);
}

namespace hopper {
// Whether the calling thread's device has room for a cluster of so many blocks: not each part of a
// GPU has.
bool FitsWideNormed();

// Only what TakesWideNormed takes, where it fits.
cudaError_t LaunchWideNormed(const WideNormedParams& p, const LaunchContext& context);
}  // namespace hopper

}  // namespace sirocco::cuda
