#include "engine/model/rotary.h"

#include <cmath>
#include <numbers>

namespace sirocco {
namespace {

double Scale(double rate, const Llama3Scaling& scaling) {
  const double wave = 2 * std::numbers::pi / rate;
  if (wave < scaling.original_context / scaling.high_freq_factor) return rate;
  if (wave > scaling.original_context / scaling.low_freq_factor) return rate / scaling.factor;
  const double smooth = (scaling.original_context / wave - scaling.low_freq_factor) /
                        (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * rate / scaling.factor + smooth * rate;
}

double Scale(double rate, const LinearScaling& scaling) { return rate / scaling.factor; }

}  // namespace

RotaryDescriptor MakeRotary(int32_t dim, double theta, const RotaryScaling& scaling) {
  RotaryDescriptor rotary;
  rotary.inverse_frequencies.reserve(dim / 2);
  for (int32_t i = 0; i < dim / 2; ++i) {
    const double rate = std::pow(theta, -2.0 * i / dim);
    rotary.inverse_frequencies.push_back(static_cast<float>(
        std::visit([&](const auto& rule) { return Scale(rate, rule); }, scaling)));
  }
  return rotary;
}

}  // namespace sirocco
