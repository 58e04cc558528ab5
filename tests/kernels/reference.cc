#include "tests/kernels/reference.h"

#include <algorithm>
#include <cmath>

namespace sirocco::reference {

Doubles Wide(const std::vector<float>& values) { return Doubles(values.begin(), values.end()); }

std::vector<float> Slice(const std::vector<float>& values, int64_t first, int64_t count) {
  return {values.begin() + first, values.begin() + first + count};
}

Doubles MatMul(const Doubles& in, int32_t inputs, const std::vector<float>& weight,
               const std::vector<float>& bias) {
  const size_t rows = in.size() / inputs;
  const size_t outputs = weight.size() / inputs;
  Doubles out;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t o = 0; o < outputs; ++o) {
      double sum = bias.empty() ? 0 : bias[o];
      for (int32_t i = 0; i < inputs; ++i) {
        sum += in[r * inputs + i] * static_cast<double>(weight[o * inputs + i]);
      }
      out.push_back(sum);
    }
  }
  return out;
}

Doubles RmsNorm(const Doubles& in, int32_t width, const std::vector<float>& weight,
                double epsilon) {
  Doubles out;
  for (size_t row = 0; row < in.size(); row += width) {
    double squares = 0;
    for (int32_t i = 0; i < width; ++i) squares += in[row + i] * in[row + i];
    const double inverse = 1 / std::sqrt(squares / width + epsilon);
    for (int32_t i = 0; i < width; ++i) out.push_back(in[row + i] * inverse * weight[i]);
  }
  return out;
}

double Activate(Activation activation, double x) {
  if (activation == Activation::kSilu) return x / (1 + std::exp(-x));
  const double inner = std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1 + std::tanh(inner));
}

std::vector<float> RotaryValues(int32_t length, int32_t dim) {
  std::vector<float> values;
  for (int32_t position = 0; position < length; ++position) {
    const auto angle = [&](int32_t i) { return position * std::pow(10000.0, -2.0 * i / dim); };
    for (int32_t i = 0; i < dim / 2; ++i) values.push_back(std::cos(angle(i)));
    for (int32_t i = 0; i < dim / 2; ++i) values.push_back(std::sin(angle(i)));
  }
  return values;
}

void Turn(double* heads, int32_t count, int32_t head_dim, const std::vector<float>& cos_sin,
          int32_t dim, int32_t position) {
  for (int32_t h = 0; h < count; ++h) {
    double* head = heads + int64_t{h} * head_dim;
    for (int32_t i = 0; i < dim / 2; ++i) {
      const double cosine = cos_sin[int64_t{position} * dim + i];
      const double sine = cos_sin[int64_t{position} * dim + dim / 2 + i];
      const double low = head[i];
      const double high = head[i + dim / 2];
      head[i] = low * cosine - high * sine;
      head[i + dim / 2] = high * cosine + low * sine;
    }
  }
}

Doubles Attend(const double* q, const std::vector<Doubles>& k, const std::vector<Doubles>& v,
               const AttentionShape& shape) {
  const size_t first = shape.window > 0 && k.size() > static_cast<size_t>(shape.window)
                           ? k.size() - shape.window
                           : 0;
  Doubles scores;
  for (size_t slot = first; slot < k.size(); ++slot) {
    double score = 0;
    for (size_t d = 0; d < k[slot].size(); ++d) score += q[d] * k[slot][d];
    score *= shape.scale;
    if (shape.soft_cap > 0) score = shape.soft_cap * std::tanh(score / shape.soft_cap);
    scores.push_back(score);
  }
  const double highest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  Doubles out(k[0].size(), 0.0);
  for (size_t i = 0; i < scores.size(); ++i) {
    const double weight = std::exp(scores[i] - highest);
    total += weight;
    for (size_t d = 0; d < out.size(); ++d) out[d] += weight * v[first + i][d];
  }
  for (double& value : out) value /= total;
  return out;
}

}  // namespace sirocco::reference
