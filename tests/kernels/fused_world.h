// One random decoder layer with its inputs: what the tests of fused operations run on.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "tests/kernels/world.h"

namespace sirocco {

struct LayerShape {
  int32_t hidden = 72;
  int32_t heads = 6;
  int32_t kv_heads = 2;
  int32_t head_dim = 20;
  int32_t rotary_dim = 20;
  int32_t intermediate = 150;
  bool biases = true;
  bool pre_norms = true;
  bool head_norms = false;  // of q and k
  bool whole_norms = false;
  bool post_norms = false;
  Activation activation = Activation::kSilu;
  bool on_host = false;   // the host knows the layer too
  bool adjacent = false;  // q, k and v follow each other in memory, and gate and up
};

struct LayerWorld {
  // The KV cache is of the weights' type, or of bfloat16 where they are in blocks; or of `kv`.
  LayerWorld(Memory& memory, const LayerShape& shape, int32_t rows, DType activations,
             DType weights);
  LayerWorld(Memory& memory, const LayerShape& shape, int32_t rows, DType activations,
             DType weights, DType kv);

  // Layer 1 of the table; layer 0 is empty, and a mistake to use.
  LayerRef Ref() const {
    LayerRef layer_ref = ref;
    if (shape.on_host) layer_ref.host = &layer;
    return layer_ref;
  }

  LayerShape shape;
  int32_t rows;
  World world;
  KvCache cache;
  RowMap map;
  LayerParams layer;
  LayerRef ref;
  std::vector<float> hidden_values;     // [rows, hidden]
  std::vector<float> delta_values;      // [rows, hidden]: what the block before adds
  std::vector<float> attention_values;  // [rows, heads * head_dim]
  std::vector<float> mlp_values;        // [rows, intermediate]
  const float* next_norm;               // [hidden]; null without pre-norms
};

}  // namespace sirocco
