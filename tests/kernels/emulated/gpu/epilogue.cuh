// kernels/cuda/epilogue.cuh for the host: what panels take of it.
#pragma once

#include <cmath>

#include "tests/kernels/emulated/gpu/common.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline float Activate(Activation activation, float x) {
  return activation == Activation::kSilu
             ? x / (1 + std::exp(-x))
             : 0.5f * x * (1 + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
