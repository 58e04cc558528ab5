// Fused operations of many rows where a library makes their products: which products those are, and
// what our kernels make of them.
//
// Only where the host knows the layer (LayerRef::host). Matrices of one input that follow each
// other in memory are one product: q, k and v; gate and up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/params.h"

namespace sirocco::cuda {

struct FusedProducts {
  static constexpr int kMost = 3;
  MatMulParams at[kMost];
  int count = 0;     // 0: another kernel must make them
  bool add = false;  // to what the outputs hold
  // More than 1: the only product's columns are multiplied in so many parts side by side, whose
  // sums [parts][R, outputs] the operation's last kernel adds up.
  int32_t parts = 1;
  size_t scratch_bytes = 0;  // of the outputs that only the operation's last kernel reads

  std::span<const MatMulParams> all() const { return {at, static_cast<size_t>(count)}; }
};

// `scratch`: where those outputs go, aligned to 256 bytes. The layer's host entry is set.
FusedProducts FusedProductsOf(const NormQkvParams& p, void* scratch);
FusedProducts FusedProductsOf(const QkvParams& p, void* scratch);
FusedProducts FusedProductsOf(const OutputResidualParams& p, void* scratch);
FusedProducts FusedProductsOf(const NormGateUpParams& p, void* scratch);
FusedProducts FusedProductsOf(const DownResidualParams& p, void* scratch);
FusedProducts FusedProductsOf(const DownNormParams& p, void* scratch);

// Outputs of a product, or a part of their columns: rows [R, width], `pitch` elements apart.
struct Sums {
  void* data = nullptr;
  int32_t pitch = 0;
};

// The end of NormGateUpParams: out = activation(gate + its bias) * (up + its bias).
struct GateUpEndParams {
  int32_t rows = 0;
  Sums gate, up;  // [R, intermediate] of out's type
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  Activation activation = Activation::kSilu;
  Rows out;  // [R, intermediate]
};

inline constexpr int32_t kMostParts = 4;
// Of more rows there are tiles enough.
inline constexpr int32_t kMostPartsRows = 512;

// The end of DownNormParams: the sums join the stream where the product has not put them there, and
// the stream's rows are normed.
struct DownEndParams : DownNormParams {
  // [parts][R, hidden]; null: the product is where DownNormParams says.
  const float* sums = nullptr;
  int32_t parts = 1;  // 1 ... kMostParts
};

// `products`: what FusedProductsOf has made of `p`.
GateUpEndParams EndOf(const NormGateUpParams& p, const FusedProducts& products);
DownEndParams EndOf(const DownNormParams& p, const FusedProducts& products);

}  // namespace sirocco::cuda
