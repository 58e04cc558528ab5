// How much memory an operation must read: for comparing its time with a stream.
#pragma once

#include <cstdint>
#include <string>

#include "graphs/descriptor.h"
#include "graphs/weights.h"
#include "kernels/ops.h"

namespace sirocco {

// Where in a step an operation stands.
struct OperationPlace {
  int layer = 0;                // of attention: it does not always know
  int32_t sequences = 0;        // whose keys and values are read once each
  int64_t context = 0;          // tokens of each
  const LayerWeights& weights;  // of layer 0: the others are taken to be alike
  DType kv = DType::kFloat32;
  double share_of_experts = 1;  // that the rows take
};

// Weights, and of attention keys and values; activations are left out, as in the floor of a step
// (floor.h). 0 where it reads neither.
uint64_t OperationBytes(const Operation& operation, const ModelDescriptor& descriptor,
                        const OperationPlace& place);

// What is summed up as one stage: the name, and of a plain product its shape.
std::string StageName(const Operation& operation);

// Whether it is the attention of a layer: the first of a step is layer 0's, and so on.
bool IsAttention(const Operation& operation);

}  // namespace sirocco
