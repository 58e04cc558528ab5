#include "graphs/layer_params.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>

#include "kernels/kv_scale.h"

namespace sirocco {
namespace {

// What a device may choose by, as numbers in an order of its own. None is too large for a double.
class Likeness {
 public:
  void Add(const void* pointer) {
    constexpr uintptr_t kMostAlignment = 256;
    const bool there = pointer != nullptr;
    Number(there ? static_cast<double>(reinterpret_cast<uintptr_t>(pointer) % kMostAlignment) : -1);
  }
  void Add(const Matrix& m) {
    Add(m.data);
    Number(static_cast<int>(m.dtype));
    Number(m.rows);
    Number(m.cols);
  }
  // Whether `next` begins where `matrix` ends, before it, or elsewhere.
  void AddPlaces(const Matrix& matrix, const Matrix& next) {
    const auto begin = reinterpret_cast<uintptr_t>(matrix.data);
    const auto next_begin = reinterpret_cast<uintptr_t>(next.data);
    Number(next_begin < begin ? 0 : next_begin == begin + BytesOf(matrix) ? 1 : 2);
  }
  void Number(double number) { numbers_.push_back(number); }

  bool operator<(const Likeness& other) const { return numbers_ < other.numbers_; }

 private:
  std::vector<double> numbers_;
};

Likeness LikenessOf(const LayerParams& layer) {
  Likeness of;
  for (const Matrix* matrix : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up,
                               &layer.down, &layer.router}) {
    of.Add(*matrix);
  }
  of.AddPlaces(layer.q, layer.k);
  of.AddPlaces(layer.k, layer.v);
  of.AddPlaces(layer.gate, layer.up);
  for (const float* vector :
       {layer.attention_norm, layer.q_bias, layer.k_bias, layer.v_bias, layer.o_bias, layer.q_norm,
        layer.k_norm, layer.q_whole_norm, layer.k_whole_norm, layer.attention_post_norm,
        layer.mlp_post_norm, layer.input_post_norm, layer.rotary.cos_sin, layer.mlp_norm,
        layer.gate_bias, layer.up_bias, layer.down_bias}) {
    of.Add(vector);
  }
  of.Add(layer.kv.data);
  of.Add(layer.expert_trace);
  const AttentionShape& attention = layer.attention;
  const KvLayer& kv = layer.kv;
  of.Number(layer.rotary.dim);
  of.Number(attention.heads);
  of.Number(attention.window);
  of.Number(attention.scale);
  of.Number(attention.soft_cap);
  of.Number(static_cast<int>(kv.dtype));
  of.Number(static_cast<double>(kv.block_stride));
  of.Number(static_cast<double>(kv.value_offset));
  of.Number(kv.block_size);
  of.Number(kv.kv_heads);
  of.Number(kv.head_dim);
  of.Number(static_cast<int>(layer.activation));
  of.Number(layer.norm_epsilon);
  of.Number(layer.renormalise ? 1 : 0);
  of.Number(layer.impose_experts ? 1 : 0);
  return of;
}

}  // namespace

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

std::vector<bool> DistinctLayers(std::span<const LayerParams> layers) {
  std::vector<Likeness> likenesses;
  for (const LayerParams& layer : layers) likenesses.push_back(LikenessOf(layer));
  likenesses.emplace_back();  // what follows the last
  std::set<std::pair<Likeness, Likeness>> seen;
  std::vector<bool> distinct(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    distinct[i] = seen.emplace(likenesses[i], likenesses[i + 1]).second;
  }
  return distinct;
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
