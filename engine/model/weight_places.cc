#include "engine/model/weight_places.h"

#include <cstddef>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/file_error.h"

namespace sirocco {
namespace {

constexpr uint64_t kAlignment = 256;  // of each weight: what vector loads and bulk copies want

class PlaceList {
 public:
  void Add(std::string tensor, int64_t rows, int64_t cols, Matrix* matrix) {
    matrix->rows = static_cast<int32_t>(rows);
    matrix->cols = static_cast<int32_t>(cols);
    places_.push_back({.tensor = std::move(tensor), .shape = {rows, cols}, .matrix = matrix});
  }
  void AddRouter(std::string tensor, int64_t experts, int64_t cols, Matrix* matrix) {
    Add(std::move(tensor), experts, cols, matrix);
    places_.back().may_stay_in_blocks = false;
  }
  // Of all experts, one below the other: "{prefix}experts.{number}.{name}".
  void AddExperts(const std::string& prefix, const std::string& name, int32_t experts, int64_t rows,
                  int64_t cols, Matrix* matrix) {
    Add(absl::StrCat(prefix, "experts.", name), experts * rows, cols, matrix);
    places_.back().may_stay_in_blocks = false;
    std::vector<std::string>& parts = places_.back().parts;
    for (int32_t i = 0; i < experts; ++i) {
      parts.push_back(absl::StrCat(prefix, "experts.", i, ".", name));
    }
  }
  void Add(std::string tensor, int64_t size, const float** vector) {
    places_.push_back({.tensor = std::move(tensor), .shape = {size}, .vector = vector});
  }
  std::vector<WeightPlace> Take() { return std::move(places_); }

 private:
  std::vector<WeightPlace> places_;
};

void AddLayer(const ModelDescriptor& model, const std::string& prefix, LayerWeights& layer,
              PlaceList& places) {
  const int64_t hidden = model.hidden_size;
  const int64_t intermediate = model.intermediate_size;
  const int64_t q_rows = int64_t{model.heads} * model.head_dim;
  const int64_t kv_rows = int64_t{model.kv_heads} * model.head_dim;
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  if (model.pre_norms) {
    places.Add(prefix + "input_layernorm.weight", hidden, &layer.attention_norm);
  }
  places.Add(attention + "q_proj.weight", q_rows, hidden, &layer.q);
  places.Add(attention + "k_proj.weight", kv_rows, hidden, &layer.k);
  places.Add(attention + "v_proj.weight", kv_rows, hidden, &layer.v);
  places.Add(attention + "o_proj.weight", hidden, q_rows, &layer.o);
  if (model.qkv_bias) {
    places.Add(attention + "q_proj.bias", q_rows, &layer.q_bias);
    places.Add(attention + "k_proj.bias", kv_rows, &layer.k_bias);
    places.Add(attention + "v_proj.bias", kv_rows, &layer.v_bias);
  }
  if (model.output_bias) places.Add(attention + "o_proj.bias", hidden, &layer.o_bias);
  if (model.head_norms) {
    places.Add(attention + "q_norm.weight", model.head_dim, &layer.q_norm);
    places.Add(attention + "k_norm.weight", model.head_dim, &layer.k_norm);
  }
  if (model.whole_norms) {
    places.Add(attention + "q_norm.weight", q_rows, &layer.q_whole_norm);
    places.Add(attention + "k_norm.weight", kv_rows, &layer.k_whole_norm);
  }
  // Where there are no post-norms, what follows the attention is the MLP's own norm.
  if (model.post_norms) {
    places.Add(prefix + "post_attention_layernorm.weight", hidden, &layer.attention_post_norm);
    if (model.pre_norms) {
      places.Add(prefix + "pre_feedforward_layernorm.weight", hidden, &layer.mlp_norm);
    }
    places.Add(prefix + "post_feedforward_layernorm.weight", hidden, &layer.mlp_post_norm);
  } else {
    places.Add(prefix + "post_attention_layernorm.weight", hidden, &layer.mlp_norm);
  }
  if (model.experts > 0) {
    places.AddRouter(mlp + "gate.weight", model.experts, hidden, &layer.router);
    const int32_t n = model.experts;
    places.AddExperts(mlp, "gate_proj.weight", n, intermediate, hidden, &layer.gate);
    places.AddExperts(mlp, "up_proj.weight", n, intermediate, hidden, &layer.up);
    places.AddExperts(mlp, "down_proj.weight", n, hidden, intermediate, &layer.down);
    return;
  }
  places.Add(mlp + "gate_proj.weight", intermediate, hidden, &layer.gate);
  places.Add(mlp + "up_proj.weight", intermediate, hidden, &layer.up);
  places.Add(mlp + "down_proj.weight", hidden, intermediate, &layer.down);
  if (model.mlp_bias) {
    places.Add(mlp + "gate_proj.bias", intermediate, &layer.gate_bias);
    places.Add(mlp + "up_proj.bias", intermediate, &layer.up_bias);
    places.Add(mlp + "down_proj.bias", hidden, &layer.down_bias);
  }
}

// Left over, and rightly so: rotary tables, which the descriptor holds as numbers, and a head where
// the embedding is the head.
bool MayBeLeftOver(const ModelDescriptor& descriptor, std::string_view name) {
  return name == "rope_freqs.weight" || name == "rope_factors_long.weight" ||
         name == "rope_factors_short.weight" ||
         absl::EndsWith(std::string(name), "rotary_emb.inv_freq") ||
         (descriptor.tied_head && name == "lm_head.weight");
}

DType TypeOf(const WeightPlace& matrix, const WeightTypes& types) {
  if (types.blocks == nullptr || !matrix.may_stay_in_blocks) return types.dtype;
  const StoredTensor* tensor = types.blocks->Find(matrix.tensor);
  if (tensor == nullptr) return types.dtype;
  const std::optional<DType> stored = DTypeOf(tensor->type);
  return stored && InBlocks(*stored) && tensor->added == 0 ? *stored : types.dtype;
}

}  // namespace

std::vector<WeightPlace> WeightPlaces(const ModelDescriptor& descriptor, ModelWeights& weights) {
  PlaceList places;
  const int64_t hidden = descriptor.hidden_size;
  places.Add("model.embed_tokens.weight", descriptor.vocab_size, hidden, &weights.embedding);
  weights.layers.resize(descriptor.layers.size());
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    AddLayer(descriptor, absl::StrCat("model.layers.", i, "."), weights.layers[i], places);
  }
  places.Add("model.norm.weight", hidden, &weights.final_norm);
  if (!descriptor.tied_head) {
    places.Add("lm_head.weight", descriptor.vocab_size, hidden, &weights.head);
  }
  return places.Take();
}

WeightLayout LayOutWeights(const ModelDescriptor& descriptor, const WeightTypes& types,
                           ModelWeights& weights) {
  WeightLayout layout;
  layout.places = WeightPlaces(descriptor, weights);
  for (WeightPlace& place : layout.places) {
    if (place.matrix != nullptr) place.matrix->dtype = place.dtype = TypeOf(place, types);
    // No product or sum overflows: a descriptor's sizes are bounded (model_shape.cc), those of the
    // largest come to less than 2^56 bytes in all.
    place.elements = 1;
    for (const int64_t extent : place.shape) place.elements *= static_cast<uint64_t>(extent);
    place.offset = (layout.bytes + kAlignment - 1) / kAlignment * kAlignment;
    layout.bytes = place.offset + place.bytes();
    layout.weight_bytes += place.bytes();
  }
  if (descriptor.tied_head) weights.head = weights.embedding;
  return layout;
}

absl::Status BindWeights(const ModelDescriptor& descriptor, const WeightLayout& layout,
                         Device& device, std::unique_ptr<Buffer> buffer, ModelWeights& weights) {
  for (const WeightPlace& place : layout.places) {
    std::byte* const data = buffer->as<std::byte>() + place.offset;
    if (place.matrix != nullptr) {
      place.matrix->data = data;
      if (absl::Status status = device.Pack(*place.matrix); !status.ok()) return status;
    } else {
      *place.vector = reinterpret_cast<const float*>(data);
    }
    weights.parameter_count += place.elements;
  }
  if (descriptor.tied_head) weights.head = weights.embedding;
  weights.memory.push_back(std::move(buffer));
  return absl::OkStatus();
}

absl::Status CheckTensors(const ModelDescriptor& descriptor, const TensorSource& tensors,
                          const std::string& where) {
  ModelWeights scratch;
  std::unordered_set<std::string_view> expected;
  const std::vector<WeightPlace> places = WeightPlaces(descriptor, scratch);
  const auto check = [&](const std::string& name, const std::vector<int64_t>& shape,
                         uint64_t /*before*/) {
    const StoredTensor* tensor = tensors.Find(name);
    if (tensor == nullptr) {
      return InvalidFile(where, absl::StrCat("the tensor '", name, "' of shape [",
                                             absl::StrJoin(shape, ", "), "] is missing"));
    }
    if (tensor->shape != shape) {
      return InvalidFile(
          tensor->file,
          absl::StrCat("the tensor '", name, "' is ", DescribeTensor(*tensor),
                       "; by the model's settings it is [", absl::StrJoin(shape, ", "), "]"));
    }
    expected.insert(name);
    return absl::OkStatus();
  };
  for (const WeightPlace& place : places) {
    if (absl::Status status = ForEachTensor(place, check); !status.ok()) return status;
  }
  for (const StoredTensor& tensor : tensors.tensors()) {
    if (expected.count(tensor.name) > 0 || MayBeLeftOver(descriptor, tensor.name)) continue;
    return UnsupportedFile(
        tensor.file, absl::StrCat("holds the tensor ", Shown(tensor.name), ", which a model of ",
                                  "the architecture ", descriptor.architecture,
                                  " with these settings does not have"));
  }
  return absl::OkStatus();
}

}  // namespace sirocco
