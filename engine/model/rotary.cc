#include "engine/model/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sirocco {
namespace {

using Rates = std::vector<double>;

Rates PlainRates(int32_t dim, double theta) {
  Rates rates;
  for (int32_t i = 0; i < dim / 2; ++i) rates.push_back(std::pow(theta, -2.0 * i / dim));
  return rates;
}

std::vector<float> Floats(const Rates& rates) { return {rates.begin(), rates.end()}; }

RotaryDescriptor Scaled(Rates rates, double /*theta*/, const LinearScaling& scaling) {
  for (double& rate : rates) rate /= scaling.factor;
  return {.inverse_frequencies = Floats(rates)};
}

RotaryDescriptor Scaled(Rates rates, double /*theta*/, const Llama3Scaling& scaling) {
  for (double& rate : rates) {
    const double wave = 2 * std::numbers::pi / rate;
    if (wave < scaling.original_context / scaling.high_freq_factor) continue;
    if (wave > scaling.original_context / scaling.low_freq_factor) {
      rate /= scaling.factor;
      continue;
    }
    const double smooth = (scaling.original_context / wave - scaling.low_freq_factor) /
                          (scaling.high_freq_factor - scaling.low_freq_factor);
    rate = (1 - smooth) * rate / scaling.factor + smooth * rate;
  }
  return {.inverse_frequencies = Floats(rates)};
}

RotaryDescriptor Scaled(Rates rates, double theta, const YarnScaling& scaling) {
  const double pairs = static_cast<double>(rates.size());
  // The number of the pair, not a whole one, that turns so often within the original context.
  const auto pair_of = [&](double turns) {
    return pairs * std::log(scaling.original_context / (turns * 2 * std::numbers::pi)) /
           std::log(theta);
  };
  double low = pair_of(scaling.beta_fast);
  double high = pair_of(scaling.beta_slow);
  if (scaling.whole_pairs) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, 2 * pairs - 1);  // the bound is the dimension's, as in the original
  if (low == high) high += 0.001;
  for (size_t i = 0; i < rates.size(); ++i) {
    const double slow = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    rates[i] *= (1 - slow) + slow / scaling.factor;
  }
  return {.inverse_frequencies = Floats(rates), .scale = static_cast<float>(scaling.scale)};
}

RotaryDescriptor Scaled(const Rates& rates, double /*theta*/, const LongScaling& scaling) {
  const auto divided = [&](const std::vector<double>& factors) {
    Rates slower = rates;
    for (size_t i = 0; i < rates.size(); ++i) slower[i] /= factors[i];
    return Floats(slower);
  };
  return {.inverse_frequencies = divided(scaling.short_factors),
          .long_inverse_frequencies = divided(scaling.long_factors),
          .original_context = scaling.original_context,
          .scale = static_cast<float>(scaling.scale)};
}

}  // namespace

RotaryDescriptor MakeRotary(int32_t dim, double theta, const RotaryScaling& scaling) {
  return std::visit([&](const auto& rule) { return Scaled(PlainRates(dim, theta), theta, rule); },
                    scaling);
}

double YarnScale(double factor, double m) {
  return factor <= 1 ? 1 : 0.1 * m * std::log(factor) + 1;
}

double LongScale(double factor, double original_context) {
  return factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original_context));
}

}  // namespace sirocco
