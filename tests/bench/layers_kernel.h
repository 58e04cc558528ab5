// All layers of a decoder as one kernel (layers_kernel.cu), for one row.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"
#include "kernels/params.h"
#include "tests/bench/layers_plan.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// normed = norm(layers(hidden)), keys and values into the cache.
struct DecoderLayersParams {
  int32_t rows = 0;  // 1
  RowMap map;
  Lanes lanes;
  LayerRef layer;  // the first
  int32_t layers = 0;
  Rows hidden;                        // [R, hidden] float32
  const float* final_norm = nullptr;  // [hidden]
  float epsilon = 0;
  Rows normed;               // [R, hidden]
  void* exchange = nullptr;  // DecoderLayersExchange bytes, zero before the first launch, then kept
};

// 0: no plan for the shape.
size_t DecoderLayersExchange(const DecoderLayersParams& p, int multiprocessors);

// cudaErrorNotSupported, with nothing enqueued, for a shape without a plan. Every block must be
// resident at once: nothing else may keep a multiprocessor for good.
cudaError_t LaunchDecoderLayers(const DecoderLayersParams& p, const LaunchContext& context,
                                const LayersTuning& tuning = {});

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
