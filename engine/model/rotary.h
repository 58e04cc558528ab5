// A rotary embedding's turning rates, and the rules that stretch them.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

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

// YaRN (Peng et al., 2023): pairs that turn more than `beta_fast` times within the original context
// keep their rate, those that turn less than `beta_slow` times turn `factor` times slower, and
// between the two the rate is interpolated by the pair's number.
struct YarnScaling {
  double factor = 1;
  double original_context = 0;
  double beta_fast = 32;
  double beta_slow = 1;     // less than beta_fast
  bool whole_pairs = true;  // the range that is interpolated is widened to whole numbers of pairs
  double scale = 1;         // RotaryDescriptor::scale
};

// LongRoPE (Ding et al., 2024): each pair turns slower by a factor of its own; there are other
// factors for sequences beyond the original context.
struct LongScaling {
  std::vector<double> short_factors;  // [dim / 2]
  std::vector<double> long_factors;   // [dim / 2]
  int32_t original_context = 0;
  double scale = 1;  // RotaryDescriptor::scale
};

using RotaryScaling = std::variant<LinearScaling, Llama3Scaling, YarnScaling, LongScaling>;

// Pair i of dim / 2 turns by theta^(-2i / dim) a position, but for the scaling.
RotaryDescriptor MakeRotary(int32_t dim, double theta, const RotaryScaling& scaling = {});

// What the scale is where a file does not say it, for a context `factor` times the original: of
// YaRN 0.1 m ln(factor) + 1, of LongRoPE sqrt(1 + ln(factor) / ln(original)); 1 where it is no
// longer.
double YarnScale(double factor, double m = 1);
double LongScale(double factor, double original_context);

}  // namespace sirocco
