#include "tests/testing/random_model.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace sirocco {
namespace {

// Makes weights on a device; after a failure it makes nothing more.
class Maker {
 public:
  Maker(Device& device, uint64_t seed, std::vector<std::unique_ptr<Buffer>>& memory)
      : device_(device), random_(seed), memory_(memory) {}

  Matrix MakeMatrix(DType dtype, int32_t rows, int32_t cols, float gain) {
    Matrix matrix;
    MakeMatrices({{&matrix, rows}}, dtype, cols, gain);
    return matrix;
  }

  // One behind the other, as a model's files are laid out: a device may make one product of several
  // matrices that are, and two models of the same weights are to be alike in that, too.
  void MakeMatrices(std::initializer_list<std::pair<Matrix*, int32_t>> matrices, DType dtype,
                    int32_t cols, float gain) {
    std::vector<std::byte> bytes;
    for (const auto& [to, rows] : matrices) {
      *to = {nullptr, dtype, rows, cols};
      for (const float value :
           Values(size_t{1} * rows * cols, 0, gain / std::sqrt(static_cast<float>(cols)))) {
        Append(value, dtype, bytes);
      }
    }
    const auto* data = static_cast<const std::byte*>(Upload(bytes.data(), bytes.size()));
    for (const auto& [to, rows] : matrices) {
      to->data = data;
      if (status_.ok()) status_ = device_.Pack(*to);
      if (status_.ok()) data += BytesOf(*to);
    }
  }

  const float* MakeVector(int32_t size, float mean, float deviation) {
    const std::vector<float> values = Values(size, mean, deviation);
    return static_cast<const float*>(Upload(values.data(), values.size() * sizeof(float)));
  }

  const absl::Status& status() const { return status_; }

 private:
  std::vector<float> Values(size_t count, float mean, float deviation) {
    std::normal_distribution<float> normal(mean, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random_);
    return values;
  }

  static void Append(float value, DType dtype, std::vector<std::byte>& bytes) {
    const auto append = [&](const auto& rounded) {
      const auto* from = reinterpret_cast<const std::byte*>(&rounded);
      bytes.insert(bytes.end(), from, from + sizeof(rounded));
    };
    if (dtype == DType::kFloat32) return append(value);
    append(dtype == DType::kBFloat16 ? BFloat16::FromFloat(value).bits : FloatToFloat16(value));
  }

  const void* Upload(const void* host, size_t bytes) {
    if (!status_.ok()) return nullptr;
    absl::StatusOr<std::unique_ptr<Buffer>> buffer = device_.Allocate(bytes, MemoryUse::kWeights);
    if (!buffer.ok()) {
      status_ = buffer.status();
      return nullptr;
    }
    status_ = device_.CopyToDevice((*buffer)->data(), host, bytes);
    if (status_.ok()) status_ = device_.Synchronize();
    memory_.push_back(*std::move(buffer));
    return memory_.back()->data();
  }

  Device& device_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Buffer>>& memory_;
  absl::Status status_;
};

LayerWeights MakeLayer(const ModelDescriptor& d, DType dtype, Maker& maker) {
  const int32_t q_rows = d.heads * d.head_dim;
  const int32_t kv_rows = d.kv_heads * d.head_dim;
  LayerWeights layer;
  if (d.pre_norms) layer.attention_norm = maker.MakeVector(d.hidden_size, 1, 0.2f);
  maker.MakeMatrices({{&layer.q, q_rows}, {&layer.k, kv_rows}, {&layer.v, kv_rows}}, dtype,
                     d.hidden_size, 1);
  layer.o = maker.MakeMatrix(dtype, d.hidden_size, q_rows, 1);
  if (d.qkv_bias) {
    layer.q_bias = maker.MakeVector(q_rows, 0, 0.2f);
    layer.k_bias = maker.MakeVector(kv_rows, 0, 0.2f);
    layer.v_bias = maker.MakeVector(kv_rows, 0, 0.2f);
  }
  layer.o_bias = maker.MakeVector(d.hidden_size, 0, 0.2f);
  if (d.pre_norms) layer.mlp_norm = maker.MakeVector(d.hidden_size, 1, 0.2f);
  const int32_t mlps = std::max(d.experts, 1);
  layer.gate = maker.MakeMatrix(dtype, mlps * d.intermediate_size, d.hidden_size, 1);
  layer.up = maker.MakeMatrix(dtype, mlps * d.intermediate_size, d.hidden_size, 1);
  layer.down = maker.MakeMatrix(dtype, mlps * d.hidden_size, d.intermediate_size, 1);
  if (d.experts > 0) layer.router = maker.MakeMatrix(dtype, d.experts, d.hidden_size, 1);
  if (d.mlp_bias) {
    layer.gate_bias = maker.MakeVector(d.intermediate_size, 0, 0.2f);
    layer.up_bias = maker.MakeVector(d.intermediate_size, 0, 0.2f);
    layer.down_bias = maker.MakeVector(d.hidden_size, 0, 0.2f);
  }
  if (d.head_norms) {
    layer.q_norm = maker.MakeVector(d.head_dim, 1, 0.2f);
    layer.k_norm = maker.MakeVector(d.head_dim, 1, 0.2f);
  }
  if (d.whole_norms) {
    layer.q_whole_norm = maker.MakeVector(q_rows, 1, 0.2f);
    layer.k_whole_norm = maker.MakeVector(kv_rows, 1, 0.2f);
  }
  if (d.post_norms) {
    layer.attention_post_norm = maker.MakeVector(d.hidden_size, 1, 0.2f);
    layer.mlp_post_norm = maker.MakeVector(d.hidden_size, 1, 0.2f);
  }
  return layer;
}

RotaryDescriptor MakeRotary(int32_t dim, float base) {
  RotaryDescriptor rotary;
  for (int32_t i = 0; i < dim / 2; ++i) {
    rotary.inverse_frequencies.push_back(1.0f / std::pow(base, 2.0f * i / dim));
  }
  return rotary;
}

}  // namespace

ModelDescriptor RandomModelDescriptor(RandomNorms norms) {
  ModelDescriptor d;
  d.architecture = "random";
  d.vocab_size = 131;
  d.hidden_size = 48;
  d.intermediate_size = 80;
  d.heads = 4;
  d.kv_heads = 2;
  d.head_dim = 16;
  d.max_position = 1024;
  d.norm_epsilon = 1e-5f;
  d.attention_scale = 0.25f;
  d.embedding_scale = 1.5f;
  d.output_bias = true;
  d.mlp_bias = norms != RandomNorms::kExperts;
  d.qkv_bias = norms != RandomNorms::kPost;
  d.pre_norms = norms != RandomNorms::kPost;
  d.head_norms = norms != RandomNorms::kFew && norms != RandomNorms::kPost;
  d.whole_norms = norms == RandomNorms::kPost;
  d.post_norms =
      norms == RandomNorms::kAll || norms == RandomNorms::kPost || norms == RandomNorms::kWide;
  if (norms == RandomNorms::kExperts) {
    d.experts = 6;
    d.experts_a_row = 2;
    d.renormalise = true;
  }
  if (norms == RandomNorms::kAll) d.activation = Activation::kGeluTanh;
  d.rotaries = {MakeRotary(16, 10000.0f), MakeRotary(8, 500.0f)};
  if (norms == RandomNorms::kWide) {
    d.hidden_size = 264;
    d.intermediate_size = 584;
    d.head_dim = 64;
    d.rotaries = {MakeRotary(64, 10000.0f), MakeRotary(32, 500.0f)};
  }
  d.groups = {{.window = 0}, {.window = 24}};
  d.layers = {{.group = 0, .rotary = 0}, {.group = 1, .rotary = 1}, {.group = 0, .rotary = 1}};
  return d;
}

absl::StatusOr<RandomModel> MakeRandomModel(Device& device, DType dtype, uint64_t seed,
                                            RandomNorms norms) {
  RandomModel model;
  model.descriptor = RandomModelDescriptor(norms);
  const ModelDescriptor& d = model.descriptor;
  Maker maker(device, seed, model.weights.memory);
  model.weights.embedding = maker.MakeMatrix(dtype, d.vocab_size, d.hidden_size, 4);
  model.weights.final_norm = maker.MakeVector(d.hidden_size, 1, 0.2f);
  model.weights.head = maker.MakeMatrix(dtype, d.vocab_size, d.hidden_size, 2);
  for (size_t i = 0; i < d.layers.size(); ++i) {
    model.weights.layers.push_back(MakeLayer(d, dtype, maker));
  }
  if (!maker.status().ok()) return maker.status();
  return model;
}

}  // namespace sirocco
