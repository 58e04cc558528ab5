// Layers as the operations take them: weights, tables and the place in the KV cache, per layer.
#pragma once

#include <span>
#include <vector>

#include "graphs/descriptor.h"
#include "graphs/weights.h"
#include "kernels/ops.h"

namespace sirocco {

// One entry a layer. `rotaries` by LayerDescriptor::rotary, `kv` by layer.
std::vector<LayerParams> MakeLayerParams(const ModelDescriptor& descriptor,
                                         const ModelWeights& weights,
                                         const std::vector<RotaryTable>& rotaries,
                                         const std::vector<KvLayer>& kv);

// Marks layers, by layer, such that every other one is like a marked one and is followed by one
// like that one's next. Alike are layers of which a device can tell no more apart than where they
// are: shapes, types, what there is and how it is aligned, and which matrices follow each other.
std::vector<bool> DistinctLayers(std::span<const LayerParams> layers);

// The matrices that a model must have: shapes and type without data.
ModelWeights WeightShapes(const ModelDescriptor& descriptor, DType dtype);

// The layers' parts of the KV cache. `group_data`: by group, where its block 0 begins (null: null).
std::vector<KvLayer> MakeKvLayers(const ModelDescriptor& descriptor, int32_t block_size,
                                  DType kv_dtype, const std::vector<void*>& group_data);

}  // namespace sirocco
