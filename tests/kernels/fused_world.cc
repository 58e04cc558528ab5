#include "tests/kernels/fused_world.h"

#include <initializer_list>
#include <utility>

#include "tests/kernels/reference.h"

namespace sirocco {
namespace {

constexpr int32_t kMaxLength = 300;

RowMap MapOf(World& world, int32_t rows) {
  std::vector<int32_t> lane, position;
  for (int32_t r = 0; r < rows; ++r) {
    lane.push_back(r);
    position.push_back(r * 7 % kMaxLength);
  }
  return world.Map(lane, position);
}

}  // namespace

LayerWorld::LayerWorld(Memory& memory, const LayerShape& layer_shape, int32_t row_count,
                       DType activations, DType weights)
    : LayerWorld(memory, layer_shape, row_count, activations, weights,
                 InBlocks(weights) ? DType::kBFloat16 : weights) {}

LayerWorld::LayerWorld(Memory& memory, const LayerShape& layer_shape, int32_t row_count,
                       DType activations, DType weights, DType kv)
    : shape(layer_shape),
      rows(row_count),
      world(memory, {.lanes = row_count, .max_length = kMaxLength}, 31),
      cache(memory, world, kv, layer_shape.kv_heads, layer_shape.head_dim, 1, 32),
      map(MapOf(world, row_count)) {
  Values values(33);
  const int32_t q_rows = shape.heads * shape.head_dim;
  const int32_t kv_rows = shape.kv_heads * shape.head_dim;
  const auto matrix = [&](int32_t outputs, int32_t inputs) {
    return memory.Weights(values.Floats(int64_t{outputs} * inputs, 0.2f), weights, outputs, inputs);
  };
  const auto matrices = [&](std::initializer_list<std::pair<Matrix*, int32_t>> all) {
    int32_t outputs = 0;
    for (const auto& [to, rows] : all) outputs += rows;
    Matrix rest = shape.adjacent ? matrix(outputs, shape.hidden) : Matrix();
    for (const auto& [to, rows] : all) {
      *to = shape.adjacent ? rest : matrix(rows, shape.hidden);
      to->rows = rows;
      if (!shape.adjacent) continue;
      rest.data = static_cast<const char*>(rest.data) +
                  int64_t{rows} * shape.hidden * static_cast<int64_t>(BytesOf(weights));
    }
  };
  const auto vector = [&](int32_t count) { return memory.Upload(values.Floats(count)); };
  const auto bias = [&](int32_t count) -> const float* {
    return shape.biases ? vector(count) : nullptr;
  };
  const auto norm = [&](bool has, int32_t count) -> const float* {
    return has ? vector(count) : nullptr;
  };
  layer.attention_norm = norm(shape.pre_norms, shape.hidden);
  matrices({{&layer.q, q_rows}, {&layer.k, kv_rows}, {&layer.v, kv_rows}});
  layer.o = matrix(shape.hidden, q_rows);
  layer.q_bias = bias(q_rows);
  layer.k_bias = bias(kv_rows);
  layer.v_bias = bias(kv_rows);
  layer.o_bias = bias(shape.hidden);
  layer.q_norm = norm(shape.head_norms, shape.head_dim);
  layer.k_norm = norm(shape.head_norms, shape.head_dim);
  layer.q_whole_norm = norm(shape.whole_norms, q_rows);
  layer.k_whole_norm = norm(shape.whole_norms, kv_rows);
  layer.input_post_norm = norm(shape.post_norms, shape.hidden);
  layer.attention_post_norm = norm(shape.post_norms, shape.hidden);
  layer.mlp_post_norm = norm(shape.post_norms, shape.hidden);
  layer.rotary = {memory.Upload(reference::RotaryValues(kMaxLength, shape.rotary_dim)),
                  shape.rotary_dim};
  layer.attention = {.heads = shape.heads, .scale = 0.2f};
  layer.kv = cache.layer();
  layer.mlp_norm = norm(shape.pre_norms, shape.hidden);
  matrices({{&layer.gate, shape.intermediate}, {&layer.up, shape.intermediate}});
  layer.down = matrix(shape.hidden, shape.intermediate);
  layer.gate_bias = bias(shape.intermediate);
  layer.up_bias = bias(shape.intermediate);
  layer.down_bias = bias(shape.hidden);
  layer.activation = shape.activation;
  layer.norm_epsilon = 1e-5f;
  ref.table = memory.Upload(std::vector<LayerParams>{LayerParams(), layer});
  ref.index = 1;
  ref.q_rows = q_rows;
  ref.kv_rows = kv_rows;
  ref.head_dim = shape.head_dim;
  ref.intermediate = shape.intermediate;
  ref.kv_dtype = layer.kv.dtype;
  hidden_values = values.Floats(int64_t{rows} * shape.hidden);
  attention_values = Rounded(values.Floats(int64_t{rows} * q_rows), activations);
  mlp_values = Rounded(values.Floats(int64_t{rows} * shape.intermediate), activations);
  delta_values = values.Floats(int64_t{rows} * shape.hidden);
  next_norm = norm(shape.pre_norms, shape.hidden);
}

}  // namespace sirocco
