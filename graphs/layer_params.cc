#include "graphs/layer_params.h"

#include <algorithm>
#include <cstddef>

#include "kernels/kv_scale.h"

namespace sirocco {

std::vector<LayerParams> MakeLayerParams(const ModelDescriptor& descriptor,
                                         const ModelWeights& weights,
                                         const std::vector<RotaryTable>& rotaries,
                                         const std::vector<KvLayer>& kv) {
  std::vector<LayerParams> layers(descriptor.layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerDescriptor& layer = descriptor.layers[i];
    const LayerWeights& from = weights.layers[i];
    LayerParams& to = layers[i];
    to.attention_norm = from.attention_norm;
    to.q = from.q;
    to.k = from.k;
    to.v = from.v;
    to.o = from.o;
    to.q_bias = from.q_bias;
    to.k_bias = from.k_bias;
    to.v_bias = from.v_bias;
    to.o_bias = from.o_bias;
    to.q_norm = from.q_norm;
    to.k_norm = from.k_norm;
    to.q_whole_norm = from.q_whole_norm;
    to.k_whole_norm = from.k_whole_norm;
    to.attention_post_norm = from.attention_post_norm;
    to.mlp_post_norm = from.mlp_post_norm;
    to.input_post_norm = i > 0 ? weights.layers[i - 1].mlp_post_norm : nullptr;
    to.rotary = rotaries[layer.rotary];
    to.attention.heads = descriptor.heads;
    to.attention.window = descriptor.groups[layer.group].window;
    to.attention.scale = descriptor.attention_scale;
    to.attention.soft_cap = descriptor.attention_soft_cap;
    to.kv = kv[i];
    to.mlp_norm = from.mlp_norm;
    to.gate = from.gate;
    to.up = from.up;
    to.down = from.down;
    to.gate_bias = from.gate_bias;
    to.up_bias = from.up_bias;
    to.down_bias = from.down_bias;
    to.activation = descriptor.activation;
    to.norm_epsilon = descriptor.norm_epsilon;
    to.router = from.router;
    to.renormalise = descriptor.renormalise;
  }
  return layers;
}

ModelWeights WeightShapes(const ModelDescriptor& descriptor, DType dtype) {
  const int32_t q_rows = descriptor.heads * descriptor.head_dim;
  const int32_t kv_rows = descriptor.kv_heads * descriptor.head_dim;
  const int32_t hidden = descriptor.hidden_size;
  const int32_t intermediate = descriptor.intermediate_size;
  ModelWeights weights;
  weights.embedding = {nullptr, dtype, descriptor.vocab_size, hidden};
  weights.head = weights.embedding;
  LayerWeights layer;
  layer.q = {nullptr, dtype, q_rows, hidden};
  layer.k = layer.v = {nullptr, dtype, kv_rows, hidden};
  layer.o = {nullptr, dtype, hidden, q_rows};
  const int32_t experts = std::max(descriptor.experts, 1);
  layer.gate = layer.up = {nullptr, dtype, experts * intermediate, hidden};
  layer.down = {nullptr, dtype, experts * hidden, intermediate};
  if (descriptor.experts > 0) layer.router = {nullptr, dtype, descriptor.experts, hidden};
  weights.layers.assign(descriptor.layers.size(), layer);
  return weights;
}

std::vector<KvLayer> MakeKvLayers(const ModelDescriptor& descriptor, int32_t block_size,
                                  DType kv_dtype, const std::vector<void*>& group_data) {
  const int64_t layer_elements =
      KvLayerElements(kv_dtype, descriptor.kv_heads, block_size, descriptor.head_dim);
  std::vector<int64_t> layers_in_group(descriptor.groups.size(), 0);
  std::vector<KvLayer> layers(descriptor.layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    const int32_t group = descriptor.layers[i].group;
    const int64_t offset = layers_in_group[group]++ * layer_elements;
    KvLayer& kv = layers[i];
    if (group_data[group] != nullptr) {
      kv.data = static_cast<std::byte*>(group_data[group]) + offset * BytesOf(kv_dtype);
    }
    kv.dtype = kv_dtype;
    kv.value_offset = int64_t{descriptor.kv_heads} * block_size * descriptor.head_dim;
    kv.block_size = block_size;
    kv.kv_heads = descriptor.kv_heads;
    kv.head_dim = descriptor.head_dim;
    kv.group = group;
  }
  for (KvLayer& kv : layers) kv.block_stride = layers_in_group[kv.group] * layer_elements;
  return layers;
}

}  // namespace sirocco
