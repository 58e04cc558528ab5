// Every streamed product of a layer, and the LM head, against plain ones: sums by one thread each,
// norms and activations on the host in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/bench/stream_world.cuh"

namespace sirocco {

using Floats = std::vector<float>;

struct PlainParams {
  const Element* x;  // [rows, columns]
  const Element* w;  // [outputs, columns]
  float* out;        // [rows, outputs]
  int rows, outputs, columns;
};
__global__ void PlainProductKernel(const __grid_constant__ PlainParams p) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= int64_t{p.rows} * p.outputs) return;
  const Element* x = p.x + i / p.outputs * p.columns;
  const Element* w = p.w + i % p.outputs * p.columns;
  float sum = 0;
  for (int k = 0; k < p.columns; ++k) sum += __bfloat162float(x[k]) * __bfloat162float(w[k]);
  p.out[i] = sum;
}

inline Floats Download(const void* from, DType dtype, int64_t count) {
  MUST(cudaDeviceSynchronize());
  Floats values(static_cast<size_t>(count));
  if (dtype == DType::kFloat32) {
    MUST(cudaMemcpy(values.data(), from, count * sizeof(float), cudaMemcpyDeviceToHost));
    return values;
  }
  std::vector<Element> narrow(values.size());
  MUST(cudaMemcpy(narrow.data(), from, count * sizeof(Element), cudaMemcpyDeviceToHost));
  for (size_t i = 0; i < values.size(); ++i) values[i] = __bfloat162float(narrow[i]);
  return values;
}
inline Floats Download(const Rows& rows, int count) {
  return Download(rows.data, rows.dtype, int64_t{count} * rows.width);
}

// The largest difference over the largest value.
inline double ErrorOf(const Floats& got, const Floats& want) {
  if (got.size() != want.size()) return INFINITY;
  double worst = 0, largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - want[i]);
    worst = difference > worst || std::isnan(difference) ? difference : worst;
    largest = std::max(largest, std::abs(static_cast<double>(want[i])));
  }
  return worst / largest;
}

// The operations of one layer on `rows` rows, one after the other, each from the same inputs.
class Checker {
 public:
  Checker(const World& world, int rows, int layer, const LaunchContext& context)
      : world_(world),
        rows_(rows),
        index_(layer),
        layer_(world.table()[layer]),
        context_(context) {}

  double Qkv() const {
    world_.FillRows();
    const NormQkvParams p = world_.QkvOf(rows_, index_);
    const Floats x = Normed(p, layer_.input_post_norm, layer_.attention_norm);
    MUST(LaunchStream(p, context_));
    // q, k and v follow each other in memory, as in the table of World.
    Matrix all = layer_.q;
    all.rows = p.qkv.width;
    return ErrorOf(Download(p.qkv, rows_), Product(x, all));
  }
  double Output() const {
    world_.FillRows();
    const OutputResidualParams p = world_.OutputOf(rows_, index_);
    return Residual(p, p.attention, layer_.o);
  }
  double GateUp() const {
    world_.FillRows();
    const NormGateUpParams p = world_.GateUpOf(rows_, index_);
    const Floats x = Normed(p, layer_.attention_post_norm, layer_.mlp_norm);
    MUST(LaunchStream(p, context_));
    Floats want = Product(x, layer_.gate);
    const Floats up = Product(x, layer_.up);
    for (size_t i = 0; i < want.size(); ++i) want[i] = Activated(want[i]) * up[i];
    return ErrorOf(Download(p.out, rows_), want);
  }
  double Down() const {
    world_.FillRows();
    const DownResidualParams p = world_.DownOf(rows_, index_);
    return Residual(p, p.in, layer_.down);
  }
  double Head() const {
    world_.FillRows();
    const MatMulParams p = world_.HeadOf(rows_);
    MUST(LaunchStream(p, context_));
    return ErrorOf(Download(p.out, rows_), Product(Download(p.in, rows_), p.weight));
  }

 private:
  // Each row of `width` normed in place.
  void Norm(Floats& x, const float* weight, int width) const {
    const Floats w = Download(weight, DType::kFloat32, width);
    for (size_t row = 0; row < x.size(); row += width) {
      double squares = 0;
      for (int i = 0; i < width; ++i) squares += static_cast<double>(x[row + i]) * x[row + i];
      const double inverse = 1 / std::sqrt(squares / width + layer_.norm_epsilon);
      for (int i = 0; i < width; ++i) x[row + i] = static_cast<float>(x[row + i] * inverse * w[i]);
    }
  }

  // norm(hidden + norm(delta) * post) * weight, which a product takes; before the operation runs.
  template <typename Params>
  Floats Normed(const Params& p, const float* post, const float* weight) const {
    Floats sum = Download(p.hidden, rows_);
    if (p.delta.data != nullptr && post != nullptr) {
      Floats delta = Download(p.delta, rows_);
      Norm(delta, post, p.hidden.width);
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += delta[i];
    }
    Norm(sum, weight, p.hidden.width);
    return sum;
  }

  // x * weight^T of x rounded to the weights' type.
  Floats Product(const Floats& x, const Matrix& weight) const {
    std::vector<Element> narrow(x.size());
    for (size_t i = 0; i < x.size(); ++i) narrow[i] = __float2bfloat16_rn(x[i]);
    const int64_t count = int64_t{rows_} * weight.rows;
    Element* in = Allocate<Element>(narrow.size());
    float* out = Allocate<float>(count);
    MUST(cudaMemcpy(in, narrow.data(), narrow.size() * sizeof(Element), cudaMemcpyHostToDevice));
    MUST(LaunchKernel(PlainProductKernel, dim3(static_cast<unsigned>((count + 255) / 256)),
                      dim3(256), 0, LaunchContext(),
                      PlainParams{in, static_cast<const Element*>(weight.data), out, rows_,
                                  weight.rows, weight.cols}));
    const Floats sums = Download(out, DType::kFloat32, count);
    MUST(cudaFree(in));
    MUST(cudaFree(out));
    return sums;
  }

  template <typename Params>
  double Residual(const Params& p, const Rows& in, const Matrix& weight) const {
    Floats want = Product(Download(in, rows_), weight);
    const bool to_delta = p.delta.data != nullptr;
    const Floats before = Download(p.hidden, rows_);
    for (size_t i = 0; i < want.size(); ++i) want[i] += to_delta ? 0 : before[i];
    MUST(LaunchStream(p, context_));
    return ErrorOf(Download(to_delta ? p.delta : p.hidden, rows_), want);
  }

  double Activated(double x) const {
    if (layer_.activation == Activation::kSilu) return x / (1 + std::exp(-x));
    return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
  }

  const World& world_;
  int rows_;
  int index_;
  const LayerParams& layer_;
  const LaunchContext& context_;
};

}  // namespace sirocco
