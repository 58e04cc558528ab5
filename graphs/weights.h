// A model's weights on a device, by role. Matrices have the model's dtype or lie in blocks,
// norms and biases are float32. Views: whoever made them owns the memory (ModelWeights::memory).
#pragma once

#include <memory>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace sirocco {

// A null pointer: the model has no such weight.
struct LayerWeights {
  const float* attention_norm = nullptr;  // [hidden]
  Matrix q;                               // [heads * head_dim, hidden]
  Matrix k, v;                            // [kv_heads * head_dim, hidden]
  Matrix o;                               // [hidden, heads * head_dim]
  const float* q_bias = nullptr;
  const float* k_bias = nullptr;
  const float* v_bias = nullptr;
  const float* o_bias = nullptr;
  const float* q_norm = nullptr;  // [head_dim]
  const float* k_norm = nullptr;
  const float* q_whole_norm = nullptr;         // [heads * head_dim]
  const float* k_whole_norm = nullptr;         // [kv_heads * head_dim]
  const float* attention_post_norm = nullptr;  // [hidden]
  const float* mlp_norm = nullptr;             // [hidden]
  // With experts those of all, each below the one before.
  Matrix gate, up;  // [intermediate, hidden]
  Matrix down;      // [hidden, intermediate]
  Matrix router;    // [experts, hidden], where there are experts
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;
  const float* mlp_post_norm = nullptr;  // [hidden]
};

struct ModelWeights {
  Matrix embedding;                   // [vocab, hidden]
  const float* final_norm = nullptr;  // [hidden]
  Matrix head;                        // [vocab, hidden]; the embedding's memory where tied
  std::vector<LayerWeights> layers;
  uint64_t parameter_count = 0;  // elements, a tied head once
  std::vector<std::unique_ptr<Buffer>> memory;
};

}  // namespace sirocco
