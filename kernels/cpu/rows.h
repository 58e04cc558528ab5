// What is done to single rows of float32, shared by the operations and by the fused ones. Each
// element's arithmetic and order are fixed, so that both give the same bits.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/cpu/blocks.h"
#include "kernels/ops.h"

namespace sirocco::cpu {

// The rows that a product takes.
struct ProductRows {
  Rows rows;
  QuantisedRows quantised;  // the same; made where the weight is in blocks
};

// The instruction set that operations on rows are compiled for, of those that this processor has.
std::string_view RowsTarget();

// out[r * out_stride + c] = row (first_row + r) . weight row (first_column + c), r < rows,
// c < columns.
void DotColumnsOf(const Matrix& weight, int32_t first_column, int32_t columns,
                  const ProductRows& in, int32_t first_row, int32_t rows, float* out,
                  int64_t out_stride);

// out[i] = in[i] / sqrt(mean(in^2) + epsilon) * weight[i]; without a weight out[i] = in[i]. `out`
// may be `in`.
void NormRow(const float* in, const float* weight, float epsilon, int32_t width, float* out);

// out[i] = activation(gate[i]) * up[i]; `out` may be one of them. SiLU: Elfwing et al., 2017;
// GELU in its tanh form: Hendrycks and Gimpel, 2016.
void GatedActivationRow(Activation activation, const float* gate, const float* up, int32_t width,
                        float* out);

// Of AdjustLogitsParams: values[i] = values[i] * scale, capped where soft_cap > 0.
void AdjustLogitsRow(float scale, float soft_cap, int32_t count, float* values);

// Turns the first table.dim elements of one head to `position`.
void TurnHead(const RotaryTable& table, int32_t position, float* head);

// Writes one head's k (v where `value`) at `position` of the sequence with this block table.
void StoreKv(const KvLayer& kv, const int32_t* block_table, int32_t position, int32_t kv_head,
             bool value, const float* from);
// Reads it, of a cache in float8.
void LoadFloat8Kv(const KvLayer& kv, const int32_t* block_table, int32_t position, int32_t kv_head,
                  bool value, float* to);

inline void AddTo(float* sum, const float* delta, int32_t count) {
  for (int32_t i = 0; i < count; ++i) sum[i] += delta[i];
}

// sum[i] += delta[i], with `post_norm` (else null) sum[i] += norm(delta)[i] * post_norm[i]. `delta`
// is overwritten.
inline void AddNormRow(float* delta, const float* post_norm, float epsilon, int32_t width,
                       float* sum) {
  if (post_norm != nullptr) NormRow(delta, post_norm, epsilon, width, delta);
  AddTo(sum, delta, width);
}

// sum[i] = hidden[i] + norm(delta)[i] * post_norm[i]; without `post_norm` sum[i] = hidden[i]. `sum`
// is neither of the others.
inline void JoinRow(const float* hidden, const float* delta, const float* post_norm, float epsilon,
                    int32_t width, float* sum) {
  if (post_norm == nullptr) {
    for (int32_t i = 0; i < width; ++i) sum[i] = hidden[i];
    return;
  }
  NormRow(delta, post_norm, epsilon, width, sum);
  AddTo(sum, hidden, width);
}

inline void AddBias(float* rows, int64_t stride, int32_t count, const float* bias,
                    int32_t columns) {
  if (bias == nullptr) return;
  for (int32_t r = 0; r < count; ++r) AddTo(rows + r * stride, bias, columns);
}

}  // namespace sirocco::cpu
