// A tiny model with random weights: two layer groups (full attention and a window), two rotary
// embeddings, every bias.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/weights.h"
#include "kernels/device.h"

namespace sirocco {

struct RandomModel {
  ModelDescriptor descriptor;
  ModelWeights weights;
};

// The shapes alone.
ModelDescriptor RandomModelDescriptor();

// Its weights on `device`; the same for the same seed and dtype.
absl::StatusOr<RandomModel> MakeRandomModel(Device& device, DType dtype, uint64_t seed);

}  // namespace sirocco
