// What the operations compute, written as plainly as can be, in double precision.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace sirocco::reference {

using Doubles = std::vector<double>;

Doubles Wide(const std::vector<float>& values);
std::vector<float> Slice(const std::vector<float>& values, int64_t first, int64_t count);

// [rows, outputs] = in [rows, inputs] * weight [outputs, inputs]^T + bias (may be empty)
Doubles MatMul(const Doubles& in, int32_t inputs, const std::vector<float>& weight,
               const std::vector<float>& bias);

Doubles RmsNorm(const Doubles& in, int32_t width, const std::vector<float>& weight, double epsilon);

double Activate(Activation activation, double x);

// cos_sin as RotaryTable holds it, for positions 0 ... length - 1, with frequencies of base 10,000.
std::vector<float> RotaryValues(int32_t length, int32_t dim);

// Turns each head of [heads, head_dim] for `position`.
void Turn(double* heads, int32_t count, int32_t head_dim, const std::vector<float>& cos_sin,
          int32_t dim, int32_t position);

// One query head over keys and values [slots][head_dim]; the last slot is the query's own.
Doubles Attend(const double* q, const std::vector<Doubles>& k, const std::vector<Doubles>& v,
               const AttentionShape& shape);

}  // namespace sirocco::reference
