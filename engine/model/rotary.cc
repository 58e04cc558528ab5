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

}  // namespace

RotaryDescriptor MakeRotary(int32_t dim, double theta,
                            const std::optional<Llama3Scaling>& scaling) {
  RotaryDescriptor rotary;
  rotary.inverse_frequencies.reserve(dim / 2);
  for (int32_t i = 0; i < dim / 2; ++i) {
    const double rate = std::pow(theta, -2.0 * i / dim);
    rotary.inverse_frequencies.push_back(
        static_cast<float>(scaling ? Scale(rate, *scaling) : rate));
  }
  return rotary;
}

RotaryDescriptor MakeLinearRotary(int32_t dim, double theta, double factor) {
  RotaryDescriptor rotary;
  rotary.inverse_frequencies.reserve(dim / 2);
  for (int32_t i = 0; i < dim / 2; ++i) {
    rotary.inverse_frequencies.push_back(
        static_cast<float>(std::pow(theta, -2.0 * i / dim) / factor));
  }
  return rotary;
}

}  // namespace sirocco
