// All layers of a decoder as one kernel (layers_kernel.cu), for one row or four.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// normed = norm(layers(hidden)), keys and values into the cache.
struct DecoderLayersParams {
  int32_t rows = 0;  // 1 or 4
  RowMap map;
  Lanes lanes;
  LayerRef layer;  // the first
  int32_t layers = 0;
  Rows hidden;                        // [R, hidden] float32
  const float* final_norm = nullptr;  // [hidden]
  float epsilon = 0;
  Rows normed;               // [R, hidden]
  void* exchange = nullptr;  // DecoderLayersExchange bytes, zero before the first launch, then kept
  int64_t* trace = nullptr;  // of builds with LAYERS_TRACE: [blocks][kLayersMarks] cycles
};

inline constexpr int kLayersMarks = 32;

struct LayersTuning {
  int32_t under_way = 2;  // chunks of weights that a block has asked for, at most; 0: any number
};

// 0: no kernel for the shape.
size_t DecoderLayersExchange(const DecoderLayersParams& p, int multiprocessors);

// cudaErrorNotSupported, with nothing enqueued, for a shape without a kernel. Every block must be
// resident at once: nothing else may keep a multiprocessor for good.
cudaError_t LaunchDecoderLayers(const DecoderLayersParams& p, const LaunchContext& context,
                                const LayersTuning& tuning = {});

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
