// Tiny models with random weights: two layer groups (full attention and a window), two rotary
// embeddings, every bias; with the norms that most models have, with those of heads too (as Qwen
// 3), with both and post-norms (as Gemma 3), with post-norms and norms of q and k whole, and then
// no biases of q, k and v (as OLMo 2), with norms of heads and experts, which have no biases (as
// Qwen3-MoE), or with all norms again and wide enough for kernels that take only heads of 64 and
// more.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/weights.h"
#include "kernels/device.h"

namespace sirocco {

enum class RandomNorms : uint8_t { kFew, kHeads, kAll, kPost, kExperts, kWide };

struct RandomModel {
  ModelDescriptor descriptor;
  ModelWeights weights;
};

// The shapes alone.
ModelDescriptor RandomModelDescriptor(RandomNorms norms = RandomNorms::kFew);

// Its weights on `device`; the same for the same seed and dtype.
absl::StatusOr<RandomModel> MakeRandomModel(Device& device, DType dtype, uint64_t seed,
                                            RandomNorms norms = RandomNorms::kFew);

}  // namespace sirocco
