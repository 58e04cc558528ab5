// All layers of a decoder as one kernel (layers.cu), for the shapes that it is compiled for.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/launch.h"
#include "kernels/decoder_layers.h"

namespace sirocco::cuda {

// What may be tuned.
struct LayersTuning {
  // Bytes of weights that a block has asked for and not got, at most: what waits for words waits
  // behind them. -1: the shape's own.
  int32_t under_way = -1;
  // How many of the blocks that leave words need not have done so when others begin to look for
  // them. The fewer, the later; the more, the more often all words are read. -1: the shape's own.
  int32_t missing = -1;
};

namespace hopper {

// For what shapes, and how many rows, on the current device, which has so many multiprocessors.
DecoderLayersOffer OfferLayers(const DecoderLayersShape& shape, int multiprocessors);

// cudaErrorNotSupported, with nothing enqueued, where nothing is offered. Blocks wait for each
// other, so the launch is cooperative: it begins when there is room for all of them, whatever else
// the device does, and fails where there never is.
cudaError_t LaunchLayers(const DecoderLayersParams& p, const LaunchContext& context,
                         const LayersTuning& tuning);
cudaError_t LaunchLayers(const DecoderLayersParams& p, const LaunchContext& context);

// The same with the bits of batch_invariant's chain of kernels (ordered_layers.cu), which has no
// counters. For one row.
DecoderLayersOffer OfferOrderedLayers(const DecoderLayersShape& shape, int multiprocessors);
cudaError_t LaunchOrderedLayers(const DecoderLayersParams& p, const LaunchContext& context,
                                const LayersTuning& tuning);
cudaError_t LaunchOrderedLayers(const DecoderLayersParams& p, const LaunchContext& context);

}  // namespace hopper
}  // namespace sirocco::cuda
