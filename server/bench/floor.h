// What a decode step has to read, whatever computes it: each weight once, and the keys and values
// of what came before once. Time is compared with reading that much.
#pragma once

#include <cstdint>
#include <string_view>

#include "graphs/descriptor.h"
#include "graphs/weights.h"
#include "kernels/dtype.h"

namespace sirocco {

// The matrices that a step multiplies with, the LM head among them. Of an embedding that is no head
// only single rows are read, of experts the part that rows take (ExpertCounter).
uint64_t FloorWeightBytes(const ModelWeights& weights, double share_of_experts = 1);

// Of one layer's MLP, or of what chooses among its experts and of those that rows take.
uint64_t MlpWeightBytes(const LayerWeights& layer, double share_of_experts);

// Keys and values that one layer's attention reads for a row with `context` tokens, its own
// included.
uint64_t LayerKvBytes(const ModelDescriptor& descriptor, int layer, int64_t context, DType kv);

// Of all layers.
uint64_t FloorKvBytes(const ModelDescriptor& descriptor, int64_t context, DType kv);

// Bytes a second to compare with: what was measured, and on a device whose best stream is known at
// least that (H200: 4.6e12).
double StreamBandwidth(std::string_view device_name, double measured);

}  // namespace sirocco
