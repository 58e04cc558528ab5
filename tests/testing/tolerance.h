// How far two backends, modes or types may be apart: the tolerances of tests/goldens/README.md.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/dtype.h"

namespace sirocco {

// float32: log-probabilities, and the margin from which on the best id must be the same.
inline constexpr double kLogprobTolerance = 2e-3;
inline constexpr float kGreedyMargin = 5e-3f;

// A lower precision against float32, by teacher forcing: the relative L2 error of a position's
// logits, and the margin of the reference from which on the best id must be the same.
struct Tolerance {
  double median = 0;
  double largest = 0;
  float margin = 0;
};

// By the types of weights (and KV) and of activations; weights are of a lower precision.
Tolerance ToleranceOf(DType weights, DType activations);

// Of one position's logits [vocab].
std::vector<double> Logprobs(std::span<const float> logits);
double LargestLogprobError(std::span<const float> given, std::span<const float> reference);
double RelativeError(std::span<const float> given, std::span<const float> reference);
float Margin(std::span<const float> logits);  // of the best over the second
size_t Best(std::span<const float> logits);

}  // namespace sirocco
