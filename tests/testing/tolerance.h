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

// Weights in blocks with int8 activations, against the same weights and KV in float32: five times
// what weights in bfloat16 may cost. (Margins are left out: they hang on the size of the logits.)
// An int8 of a block rounds by 0.5% of the activations' size (127 steps to the largest of 32, which
// is some 2.3 times the root mean square), bfloat16 by 0.1%.
inline constexpr Tolerance kBlocksTolerance = {.median = 6e-2, .largest = 2e-1};

// A KV cache in float8, of weights of any type, against weights and KV in float32. Rounding an
// element costs some 2.5% of it, 32 times what bfloat16 does, and in the goldens' tiny models that
// grows: with weights in float32 0.11 ... 0.14 and at most 0.51 were measured, which leaves margins
// nothing to say. (What it costs a real model is for perplexity to say.)
inline constexpr Tolerance kFloat8KvTolerance = {.median = 0.2, .largest = 0.8};

// By the types of weights (and KV) and of activations; weights are of a lower precision.
Tolerance ToleranceOf(DType weights, DType activations);

// Of one position's logits [vocab].
std::vector<double> Logprobs(std::span<const float> logits);
double LargestLogprobError(std::span<const float> given, std::span<const float> reference);
double RelativeError(std::span<const float> given, std::span<const float> reference);
float Margin(std::span<const float> logits);  // of the best over the second
size_t Best(std::span<const float> logits);

}  // namespace sirocco
