// The products of many rows of three models, bfloat16: the kernels that there are for them
// (kernels/cuda/wide_product.cuh), and a product's weights and buffers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/wide_product.cuh"
#include "tests/bench/wide_data.cuh"

namespace sirocco {

using cuda::LaunchContext;
using cuda::WideChoice;
using cuda::WideProductParams;
using cuda::hopper::LaunchWide;
using cuda::hopper::WideEnd;
using cuda::hopper::WideShape;

using Launcher = cudaError_t (*)(const WideProductParams&, const WideChoice&, const LaunchContext&);

template <typename Shape>
cudaError_t LaunchShape(const WideProductParams& p, const WideChoice& choice,
                        const LaunchContext& context) {
  if (p.up.data != nullptr) return LaunchWide<Shape, Element, WideEnd::kGateUp>(p, choice, context);
  if (p.add) return LaunchWide<Shape, Element, WideEnd::kLeave>(p, choice, context);
  return LaunchWide<Shape, Element, WideEnd::kStore>(p, choice, context);
}

struct Variant {
  const char* name;  // rows x outputs of a block, row tiles x output tiles of a cluster
  Launcher launch;
  int rows;  // of a cluster
};
inline constexpr Variant kVariants[] = {
    {"128x256,2x1", LaunchShape<WideShape<2, 256, 2, 1>>, 256},
    {"128x224,2x1", LaunchShape<WideShape<2, 224, 2, 1>>, 256},
    {"128x192,2x1", LaunchShape<WideShape<2, 192, 2, 1>>, 256},
    {"128x128,2x1", LaunchShape<WideShape<2, 128, 2, 1>>, 256},
    {"128x256,1x2", LaunchShape<WideShape<2, 256, 1, 2>>, 128},
    {"128x224,1x2", LaunchShape<WideShape<2, 224, 1, 2>>, 128},
    {"128x128,1x2", LaunchShape<WideShape<2, 128, 1, 2>>, 128},
    {"128x256,2x2", LaunchShape<WideShape<2, 256, 2, 2>>, 256},
    {"128x224,2x2", LaunchShape<WideShape<2, 224, 2, 2>>, 256},
    {"128x256,1x1", LaunchShape<WideShape<2, 256, 1, 1>>, 128},
    {"192x192,2x1", LaunchShape<WideShape<3, 192, 2, 1>>, 384},
    {"192x192,1x2", LaunchShape<WideShape<3, 192, 1, 2>>, 192},
    {"192x128,1x2", LaunchShape<WideShape<3, 128, 1, 2>>, 192},
    {"192x128,1x1", LaunchShape<WideShape<3, 128, 1, 1>>, 192},
};

struct Product {
  const char* name;
  int outputs, inputs;  // of gate alone, where both are multiplied
  bool both, add;
  Activation activation;
  bool post = false;  // what is to be added is normed first, so it is stored
};
struct Model {
  const char* name;
  Product products[5];
};
inline Model ModelOf(const char* name, int hidden, int qkv, int q, int intermediate, int vocab,
                     Activation activation) {
  return {name,
          {{"qkv", qkv, hidden, false, false, activation},
           {"output", hidden, q, false, true, activation},
           {"gate_up", intermediate, hidden, true, false, activation},
           {"down", hidden, intermediate, false, true, activation},
           {"head", vocab, hidden, false, false, activation}}};
}
inline std::vector<Model> Models() {
  return {ModelOf("llama3.1-8b", 4096, 6144, 4096, 14336, 128256, Activation::kSilu),
          ModelOf("llama3.2-1b", 2048, 3072, 2048, 8192, 128256, Activation::kSilu),
          ModelOf("gemma3-1b", 1152, 1536, 1024, 6912, 262144, Activation::kGeluTanh)};
}

inline constexpr int kMostParts = 4;

// A product with weights that do not fit the L2 cache, and room for all it needs.
class Work {
 public:
  Work(const Product& product, int most_rows, int copies) : product_(product) {
    const int64_t rows = int64_t{product.outputs} * (product.both ? 2 : 1);
    weight_bytes_ = rows * product.inputs * 2;
    copies_ = copies > 0
                  ? copies
                  : static_cast<int>(std::clamp<int64_t>((400 << 20) / weight_bytes_ + 1, 2, 64));
    weights_ = static_cast<char*>(Allocate(weight_bytes_ * copies_));
    in_ = Allocate(int64_t{most_rows} * product.inputs * 2);
    const int64_t out = int64_t{most_rows} * product.outputs * 4;
    out_bytes_ = std::max<int64_t>(out, std::min(most_rows, 512) * int64_t{product.outputs} * 4 *
                                            (product.add ? kMostParts : 1));
    out_ = Allocate(out_bytes_);
    if (product.add) {
      left_ = Allocate(int64_t{most_rows} * product.outputs * 2);
      squares_ = static_cast<float*>(Allocate(int64_t{most_rows} * product.outputs * 4));
    }
    bias_ = static_cast<float*>(Allocate(product.outputs * 4));
    up_bias_ = static_cast<float*>(Allocate(product.outputs * 4));
    FillKernel<<<1024, 256>>>(reinterpret_cast<Element*>(weights_), weight_bytes_ / 2 * copies_,
                              2.0f / std::sqrt(static_cast<float>(product.inputs)), 1);
    FillKernel<<<1024, 256>>>(static_cast<Element*>(in_), int64_t{most_rows} * product.inputs, 2.0f,
                              2);
    FillKernel<<<64, 256>>>(bias_, product.outputs, 1.0f, 3);
    FillKernel<<<64, 256>>>(up_bias_, product.outputs, 1.0f, 4);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
  }
  ~Work() {
    for (void* p : {static_cast<void*>(weights_), in_, out_, left_, static_cast<void*>(squares_),
                    static_cast<void*>(bias_), static_cast<void*>(up_bias_)}) {
      cudaFree(p);
    }
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  WideProductParams Params(int rows, int copy, int parts = 1, bool biases = false) const {
    const int outputs = product_.outputs, inputs = product_.inputs;
    char* const weights = weights_ + copy % copies_ * weight_bytes_;
    WideProductParams p;
    p.rows = rows;
    p.in = {in_, DType::kBFloat16, inputs};
    p.weight = {weights, DType::kBFloat16, outputs, inputs};
    p.out = {out_, product_.both ? DType::kBFloat16 : DType::kFloat32, outputs};
    p.add = product_.add && !product_.post && parts == 1;
    if (p.add) p.leaves = {up_bias_, left_, squares_};  // with any numbers
    if (product_.both) {
      p.up = {weights + weight_bytes_ / 2, DType::kBFloat16, outputs, inputs};
    }
    if (biases) {
      p.bias = bias_;
      p.up_bias = product_.both ? up_bias_ : nullptr;
    }
    p.activation = product_.activation;
    p.parts = parts;
    return p;
  }
  const Product& product() const { return product_; }
  int copies() const { return copies_; }
  void* out() const { return out_; }
  int64_t out_bytes() const { return out_bytes_; }
  double Flop(int rows) const { return double(weight_bytes_) * rows; }
  double weight_bytes() const { return double(weight_bytes_); }

 private:
  const Product product_;
  int64_t weight_bytes_ = 0, out_bytes_ = 0;
  int copies_ = 0;
  char* weights_ = nullptr;
  void *in_ = nullptr, *out_ = nullptr, *left_ = nullptr;
  float* squares_ = nullptr;
  float *bias_ = nullptr, *up_bias_ = nullptr;
};

}  // namespace sirocco
