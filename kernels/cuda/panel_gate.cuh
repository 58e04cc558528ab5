// The activation at the end of a panel's sums (panel_product.cu), and of what follows its order.
#pragma once

#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Activate (epilogue.cuh) of a block's last work, in a third of its instructions: both activations
// are x / (1 + exp(-y)), and (1 + tanh(y / 2)) / 2 = 1 / (1 + exp(-y)). Within 2e-6 of x.
__device__ __forceinline__ float PanelGate(Activation activation, float x) {
  constexpr float kTwoSqrt2OverPi = 1.5957691216057308f;
  const float y =
      activation == Activation::kSilu ? x : kTwoSqrt2OverPi * fmaf(0.044715f * x * x, x, x);
  const float e = __expf(-fabsf(y));  // which cannot overflow
  return x * __fdividef(y < 0 ? e : 1.0f, 1.0f + e);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
