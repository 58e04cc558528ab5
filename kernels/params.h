// The operations' parameters: plain data, cheap to copy and to record, and all that a device's
// compiler needs to see.
//
// A *row* is one token of the step: a lane and a position in it. Shapes are row-major and stand in
// the comments; R is `rows`. Pointers are device memory and not owned.
//
// Types: the residual stream (`hidden`, `delta`, `sum`) and logits are float32 on every backend,
// norms, biases and rotary tables too. Other activations have the device's ActivationDType for the
// model's weights.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/lanes.h"

namespace sirocco {

// Activations: [R, width].
struct Rows {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int32_t width = 0;
};

// Weights: [rows, cols] = [outputs, inputs], as Device::Pack left them.
struct Matrix {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int32_t rows = 0;
  int32_t cols = 0;
};

inline uint64_t BytesOf(const Matrix& matrix) {
  return BytesOf(matrix.dtype,
                 static_cast<uint64_t>(matrix.rows) * static_cast<uint64_t>(matrix.cols));
}

// Where each row of the step belongs.
struct RowMap {
  int32_t* lane = nullptr;      // [R]
  int32_t* position = nullptr;  // [R]
};

enum class Activation : int32_t { kSilu, kGeluTanh };

// One layer's part of the KV cache: [block][layer][k, v][head][slot][dim], in elements of `dtype`.
// In float8 the scales of a block's layer follow its v (kv_scale.h).
struct KvLayer {
  void* data = nullptr;  // of block 0, this layer, k, head 0, slot 0
  DType dtype = DType::kFloat32;
  int64_t block_stride = 0;  // elements between blocks
  int64_t value_offset = 0;  // elements from k to v
  int32_t block_size = 0;    // slots a block
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t group = 0;  // whose block table finds the blocks
};

// Rotary embedding, half-split pairs (i, i + dim/2), as Hugging Face orders q and k.
struct RotaryTable {
  const float* cos_sin = nullptr;  // [max_length][2][dim/2]: cosines, then sines
  int32_t dim = 0;                 // of head_dim, the first `dim` turn; even
};

struct AttentionShape {
  int32_t heads = 0;
  int32_t window = 0;  // 0: full; else the last `window` positions, the row's own included
  float scale = 0;
  float soft_cap = 0;  // 0: none; else cap * tanh(score / cap)
};

// All that one decoder layer computes with. Fused operations find it in a table in device memory.
// Null pointers: no such bias.
struct LayerParams {
  const float* attention_norm = nullptr;  // [hidden]; null: the stream goes in as it is
  Matrix q, k, v, o;                      // [heads*dim, hidden], ..., [hidden, heads*dim]
  const float* q_bias = nullptr;
  const float* k_bias = nullptr;
  const float* v_bias = nullptr;
  const float* o_bias = nullptr;
  const float* q_norm = nullptr;  // [head_dim], of each head before it is turned; null: none
  const float* k_norm = nullptr;
  // Of all heads together, for NormQkParams. A layer has these, or those of each head, or none.
  const float* q_whole_norm = nullptr;  // [q_rows]
  const float* k_whole_norm = nullptr;  // [kv_rows]
  // Post-norms: what a block adds to the residual stream is normed first. Null: it is not.
  const float* attention_post_norm = nullptr;  // [hidden]
  const float* mlp_post_norm = nullptr;        // [hidden]
  const float* input_post_norm = nullptr;      // the layer before's mlp_post_norm; null in layer 0
  RotaryTable rotary;
  AttentionShape attention;
  KvLayer kv;
  const float* mlp_norm = nullptr;  // [hidden]; null: the stream goes in as it is
  // [intermediate, hidden] twice, [hidden, intermediate]. With experts those of all of them, each
  // below the one before: [experts * intermediate, hidden] twice, [experts * hidden, intermediate].
  Matrix gate, up, down;
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;
  Activation activation = Activation::kSilu;
  float norm_epsilon = 0;
  // Where there are experts (ExpertsParams), the matrix whose products choose among them.
  Matrix router;             // [experts, hidden]
  bool renormalise = false;  // the chosen experts' shares sum to 1
  // For tests: the choices as ids, [lane][position][experts a row], written, or taken as they are.
  int32_t* expert_trace = nullptr;
  bool impose_experts = false;
};

// A layer of that table: a fixed one, or the one that a counter in device memory says.
struct LayerRef {
  const LayerParams* table = nullptr;
  const int32_t* counter = nullptr;
  int32_t index = 0;  // where there is no counter
  // What a backend needs on the host to split the work: the same for every layer of the kind.
  int32_t q_rows = 0, kv_rows = 0, head_dim = 0, intermediate = 0;
  int32_t experts = 0, experts_a_row = 0;  // 0: none
  DType kv_dtype = DType::kFloat32;
  // The table's entry in host memory, where the layer is a fixed one and the host has it: a backend
  // may then hand the layer's matrices to a library. Kept as long as the operation is used.
  const LayerParams* host = nullptr;
};

// ---- A step's begin -----------------------------------------------------------------------

// Applies block table updates; sets position[r] = lane's length - 1 where `derive_positions` (a
// decode step), else positions were given; sets *layer_counter = 0 where there is one.
struct BeginStepParams {
  int32_t rows = 0;
  RowMap map;
  bool derive_positions = false;
  const BlockUpdate* updates = nullptr;   // [*update_count]
  const int32_t* update_count = nullptr;  // [1]
  int32_t* layer_counter = nullptr;
  Lanes lanes;
};

// ---- Operations, one by one ---------------------------------------------------------------

// out[r] = table[history[lane][position]] * scale
struct EmbedParams {
  int32_t rows = 0;
  RowMap map;
  Lanes lanes;
  Matrix table;  // [vocab, hidden]
  float scale = 1;
  Rows out;  // [R, hidden]
};

// out = in / sqrt(mean(in^2) + epsilon) * weight (Zhang and Sennrich, 2019); without a weight
// out = in. `out` may be `in`.
struct RmsNormParams {
  int32_t rows = 0;
  Rows in;                        // [R, width]
  const float* weight = nullptr;  // [width] or null
  float epsilon = 0;
  Rows out;  // [R, width]
};

// out = in * weight^T + bias
struct MatMulParams {
  int32_t rows = 0;
  Rows in;        // [R, weight.cols]
  Matrix weight;  // [outputs, inputs]
  const float* bias = nullptr;
  Rows out;  // [R, weight.rows]
};

// Each head of `heads` in place: head / sqrt(mean(head^2) + epsilon) * weight.
struct HeadNormParams {
  int32_t rows = 0;
  Rows heads;  // [R, head count * head_dim]
  int32_t head_dim = 0;
  const float* weight = nullptr;  // [head_dim]
  float epsilon = 0;
};

// Turns every head of `heads` in place (Su et al., 2021).
struct RotaryParams {
  int32_t rows = 0;
  RowMap map;
  Rows heads;  // [R, head count * head_dim]
  int32_t head_dim = 0;
  RotaryTable table;
};

struct WriteKvParams {
  int32_t rows = 0;
  RowMap map;
  Lanes lanes;
  Rows k, v;  // [R, kv_heads * head_dim]
  KvLayer kv;
};

// Each row attends to its lane's slots 0 ... position, in splits that are merged in order: of 256
// slots, or of fewer where a backend cuts the few rows of a step finer.
struct DecodeAttentionParams {
  int32_t rows = 0;
  RowMap map;
  Lanes lanes;
  Rows q;  // [R, heads * head_dim]
  AttentionShape shape;
  KvLayer kv;
  Rows out;  // [R, heads * head_dim]
};

// The same over whole chunks of prompts: rows [first_row, first_row + count) are one lane's
// positions from first_position on. `rows` is their sum.
struct PrefillSegment {
  int32_t lane;
  int32_t first_row;
  int32_t first_position;
  int32_t count;
};
struct PrefillAttentionParams {
  int32_t rows = 0;
  RowMap map;
  Lanes lanes;
  const PrefillSegment* segments = nullptr;  // [*segment_count]
  const int32_t* segment_count = nullptr;    // [1]
  Rows q;                                    // [R, heads * head_dim]
  AttentionShape shape;
  KvLayer kv;
  Rows out;  // [R, heads * head_dim]
};

// sum += delta
struct AddParams {
  int32_t rows = 0;
  Rows sum, delta;  // [R, width]
};

// A norm with the residual before it: sum += delta, where `post_norm` is set sum += norm(delta) *
// post_norm; then, where `weight` is set, normed = norm(sum) * weight.
struct AddNormParams {
  int32_t rows = 0;
  Rows sum, delta;                   // [R, width]; delta is scratch afterwards
  const float* post_norm = nullptr;  // [width]
  const float* weight = nullptr;     // [width]
  float epsilon = 0;
  Rows normed;  // [R, width]
};

// out = activation(gate) * up
struct GatedActivationParams {
  int32_t rows = 0;
  Rows gate, up, out;  // [R, intermediate]
  Activation activation = Activation::kSilu;
};

// out[r] = in[index[r]]
struct GatherRowsParams {
  int32_t rows = 0;
  Rows in;                         // [any, width]
  const int32_t* index = nullptr;  // [R]
  Rows out;                        // [R, width]
};

// logits = logits * scale; where soft_cap > 0 then soft_cap * tanh(logits / soft_cap).
struct AdjustLogitsParams {
  int32_t rows = 0;
  Rows logits;  // [R, vocab] float32, in place
  float scale = 1;
  float soft_cap = 0;
};

// Chooses each row's next token as its lane asks, reports it in out[r], and advances the lane:
// history[length] = token, length + 1, counts. A lane whose history is full is left as it is.
// In this order: allowed and banned ids, bias, repetition, presence and frequency penalties,
// n-grams, min_new_tokens, temperature, top_k, top_p (of what top_k left), min_p; a filter that
// would leave no id is skipped. Lanes of a beam search: kLaneBeam. Draws: Gumbel-max with
// Philox-4x32-10 (Salmon et al., 2011), key = seed, counter = (position, index, id / 4, 0), word id
// % 4.
struct SampleParams {
  int32_t rows = 0;
  const int32_t* row_lane = nullptr;  // [R]
  Lanes lanes;
  Rows logits;                // [R, vocab] float32; overwritten
  TokenScore* out = nullptr;  // [R]
};

// Scores given tokens: out[r] is of the token at history[lane][position + 1] under logits[r].
struct ScoreTokensParams {
  int32_t rows = 0;
  RowMap map;
  Lanes lanes;
  int32_t top = 0;  // 0 ... kMaxTopLogprobs alternatives
  Rows logits;      // [R, vocab] float32
  TokenScore* out = nullptr;
};

// ---- Fused operations of the step plans ----------------------------------------------------

// How post-norms pass through them: a product that is to be normed before it joins the residual
// stream goes to `delta` and leaves the stream alone. The next operation makes
//   sum = hidden + norm(delta) * w      (w: the layer table's input_post_norm, attention_post_norm)
// and goes on with `sum`, which is another buffer than `hidden`: every part of the device that
// needs a row computes it for itself, and one of them writes it. Where w is null, sum = hidden.
// Models without post-norms have null `delta` and `sum`.

// "norm" is none where the layer has no such norm: then it stands for its argument.

// qkv = norm(hidden) * W^T: the bare products of q, k and v, side by side. QkvAttentionParams or
// QkvEndParams ends them.
struct NormQkvParams {
  int32_t rows = 0;
  LayerRef layer;
  Rows hidden;      // [R, hidden]
  Rows normed;      // [R, hidden] scratch
  Rows qkv;         // [R, q_rows + 2 * kv_rows] float32
  Rows delta, sum;  // [R, hidden], or null
};

// The same from rows that are normed already (by DownNormParams of the layer before).
struct QkvParams {
  int32_t rows = 0;
  LayerRef layer;
  Rows normed;  // [R, hidden]
  Rows qkv;     // [R, q_rows + 2 * kv_rows] float32
};

// q's and k's part of `qkv` normed whole, by the layer's q_whole_norm and k_whole_norm: in models
// that have these, between the products and their end. They have no biases.
struct NormQkParams {
  int32_t rows = 0;
  LayerRef layer;
  Rows qkv;  // [R, q_rows + 2 * kv_rows] float32, in place
};

// What becomes of q, k and v, where they are read: their biases, the norms of q's and k's heads
// where the layer has such norms, the turn; k and v into the cache; then attention as in
// DecodeAttentionParams. No two rows of one lane.
struct QkvAttentionParams {
  int32_t rows = 0;
  RowMap map;
  Lanes lanes;
  LayerRef layer;
  Rows qkv;  // [R, q_rows + 2 * kv_rows] float32; may be overwritten
  Rows q;    // [R, q_rows] scratch
  Rows out;  // [R, q_rows]
};

// The first part of that alone, for rows whose attention is another operation: any number of rows
// of a lane.
struct QkvEndParams {
  int32_t rows = 0;
  RowMap map;
  Lanes lanes;
  LayerRef layer;
  Rows qkv;  // [R, q_rows + 2 * kv_rows] float32; may be overwritten
  Rows q;    // [R, q_rows]
};

// hidden += attention * o^T + bias; where `delta` is set, delta = attention * o^T + bias instead.
struct OutputResidualParams {
  int32_t rows = 0;
  LayerRef layer;
  Rows attention;  // [R, heads * head_dim]
  Rows hidden;     // [R, hidden]
  Rows delta;      // [R, hidden], or null
};

// out = activation(n * gate^T) * (n * up^T), n = norm(hidden)
struct NormGateUpParams {
  int32_t rows = 0;
  LayerRef layer;
  Rows hidden;      // [R, hidden]
  Rows normed;      // [R, hidden] scratch
  Rows out;         // [R, intermediate]
  Rows delta, sum;  // [R, hidden], or null
};

// hidden += in * down^T + bias, or, where `delta` is set, delta = that; then *advance += 1 where
// set: the counter goes to the next layer.
struct DownResidualParams {
  int32_t rows = 0;
  LayerRef layer;
  Rows in;      // [R, intermediate]
  Rows hidden;  // [R, hidden]
  int32_t* advance = nullptr;
  Rows delta;  // [R, hidden], or null
};

// The MLP of a layer with experts (Shazeer et al., 2017), its norm and its residual:
//   n = norm(hidden)
//   p = softmax(n * router^T); the row's experts are the experts_a_row with the largest p, of equal
//       ones those with the lower ids, and their shares are p, or p / sum of the chosen p
//   hidden += sum over them, by their ids, of share * (activation(n * gate^T) * (n * up^T)) *
//   down^T
// then *advance += 1 where set.
struct ExpertsParams {
  int32_t rows = 0;
  RowMap map;  // for traces alone, as `lanes`
  Lanes lanes;
  LayerRef layer;
  Rows hidden;                // [R, hidden]
  Rows normed;                // [R, hidden] scratch
  int32_t* chosen = nullptr;  // [R, experts_a_row] scratch: ids, from the lowest on
  float* shares = nullptr;    // [R, experts_a_row] scratch
  Rows activated;             // [R, experts_a_row * intermediate] scratch
  int32_t* advance = nullptr;
};

// hidden += in * down^T + bias, normed by mlp_post_norm before it is added where the layer has one
// (`delta` is then scratch); normed = norm(hidden) * next_norm: the next layer's, or the final
// norm. A fusion across the layers' boundary.
struct DownNormParams {
  int32_t rows = 0;
  LayerRef layer;
  Rows in;                           // [R, intermediate]
  Rows hidden;                       // [R, hidden]
  const float* next_norm = nullptr;  // [hidden] or null
  Rows normed;                       // [R, hidden]
  Rows delta;                        // [R, hidden], or null
};

}  // namespace sirocco
