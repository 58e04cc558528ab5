#include "tests/testing/tolerance.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace sirocco {

Tolerance ToleranceOf(DType weights, DType activations) {
  if (activations == DType::kFloat32) return {1.2e-2, 4e-2, 0.15f};
  if (weights == DType::kFloat16) return {4e-3, 1.5e-2, 0.03f};
  return {3e-2, 2e-1, 0.25f};
}

std::vector<double> Logprobs(std::span<const float> logits) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  std::vector<double> logprobs;
  for (const float logit : logits) logprobs.push_back(logit - highest - std::log(sum));
  return logprobs;
}

double LargestLogprobError(std::span<const float> given, std::span<const float> reference) {
  const std::vector<double> a = Logprobs(given);
  const std::vector<double> b = Logprobs(reference);
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    // A NaN is no small error.
    largest = std::isnan(a[i]) ? HUGE_VAL : std::max(largest, std::abs(a[i] - b[i]));
  }
  return largest;
}

double RelativeError(std::span<const float> given, std::span<const float> reference) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < given.size(); ++i) {
    error += std::pow(static_cast<double>(given[i]) - reference[i], 2);
    norm += std::pow(static_cast<double>(reference[i]), 2);
  }
  return std::isnan(error) ? HUGE_VAL : std::sqrt(error / norm);
}

float Margin(std::span<const float> logits) {
  std::vector<float> sorted(logits.begin(), logits.end());
  std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
  return sorted[0] - sorted[1];
}

size_t Best(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

}  // namespace sirocco
