// Weights that mean nothing, for measuring: a model's shapes are all that its speed depends on.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/model/model_files.h"
#include "graphs/descriptor.h"
#include "graphs/weights.h"
#include "kernels/device.h"

namespace sirocco {

// All weights of the model on `device`: matrices as `dtype`, of values so small that sums over a
// row stay about 1, norms 1, biases near 0. The same for the same seed (random_block.h).
absl::StatusOr<ModelWeights> RandomWeights(const ModelDescriptor& descriptor, DType dtype,
                                           uint64_t seed, Device& device,
                                           const LoadProgress& progress);

}  // namespace sirocco
