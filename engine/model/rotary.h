// A rotary embedding's turning rates, and the rules that stretch them.
#pragma once

#include <cstdint>
#include <variant>

#include "graphs/descriptor.h"

namespace sirocco {

// Llama 3.1's rule: pairs whose wave is longer than the original context over `low_freq_factor`
// turn `factor` times slower, those shorter than it over `high_freq_factor` as before, and between
// the two the rate is interpolated (transformers, _compute_llama3_parameters).
struct Llama3Scaling {
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;  // greater than low_freq_factor
  double original_context = 0;
};

// Every pair turns `factor` times slower: positions interpolated (Chen et al., 2023).
struct LinearScaling {
  double factor = 1;
};

using RotaryScaling = std::variant<LinearScaling, Llama3Scaling>;

// Pair i of dim / 2 turns by theta^(-2i / dim) a position, but for the scaling.
RotaryDescriptor MakeRotary(int32_t dim, double theta, const RotaryScaling& scaling = {});

}  // namespace sirocco
