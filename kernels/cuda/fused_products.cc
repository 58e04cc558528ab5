#include "kernels/cuda/fused_products.h"

#include <initializer_list>

namespace sirocco::cuda {
namespace {

constexpr size_t kAlignment = 256;

// `next` begins where `matrix` ends, and they are alike.
bool Follows(const Matrix& matrix, const Matrix& next) {
  return static_cast<const char*>(next.data) ==
             static_cast<const char*>(matrix.data) + BytesOf(matrix) &&
         next.dtype == matrix.dtype && next.cols == matrix.cols;
}

// Products of `in` with each matrix, or with all as one, into scratch as `dtype`.
FusedProducts IntoScratch(int32_t rows, const Rows& in, std::initializer_list<Matrix> matrices,
                          DType dtype, void* scratch) {
  FusedProducts products;
  for (const Matrix& matrix : matrices) {
    Matrix* last = products.count > 0 ? &products.at[products.count - 1].weight : nullptr;
    if (last != nullptr && Follows(*last, matrix)) {
      last->rows += matrix.rows;
    } else {
      products.at[products.count++].weight = matrix;
    }
  }
  for (int i = 0; i < products.count; ++i) {
    MatMulParams& product = products.at[i];
    product.rows = rows;
    product.in = in;
    product.out = {static_cast<char*>(scratch) + products.scratch_bytes, dtype,
                   product.weight.rows};
    const size_t bytes = static_cast<size_t>(rows) * product.weight.rows * BytesOf(dtype);
    products.scratch_bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  return products;
}

// Outputs [first, ...) of all the products, which begin in one of them.
Sums SumsFrom(const FusedProducts& products, int32_t first) {
  int i = 0;
  for (; first >= products.at[i].out.width; ++i) first -= products.at[i].out.width;
  const Rows& out = products.at[i].out;
  return {static_cast<char*>(out.data) + first * BytesOf(out.dtype), out.width};
}

// To the residual stream, or to the delta that is normed before it joins.
FusedProducts ToStream(int32_t rows, const Rows& in, const Matrix& weight, const float* bias,
                       const Rows& hidden, const Rows* delta) {
  FusedProducts products;
  products.at[0] = {rows, in, weight, bias, delta != nullptr ? *delta : hidden};
  products.count = 1;
  products.add = delta == nullptr;
  return products;
}

// Parts of a product's columns: where its outputs are tiles for few multiprocessors, which the
// library would split by itself, and add up in a kernel of its own. The norms that read the sums
// add them up instead. Measured on an H200 in whole steps of 16, 64 and 256 rows, in us: gemma3-1b
// (1,152 outputs of 6,912 columns) in one part 1,346, 1,529, 2,428; in two 1,353, 1,518, 2,365; in
// four 1,321, 1,489, 2,347; in eight 1,335, 1,509, 2,385. llama3.1-8b (4,096 of 14,336): one 4,678,
// 5,506; two 4,698, 5,538.
int32_t PartsOf(const Matrix& weight, int32_t rows) {
  constexpr int32_t kTile = 64;              // outputs
  constexpr int32_t kMultiprocessors = 132;  // of that GPU
  const int32_t tiles = (weight.rows + kTile - 1) / kTile;
  return rows <= kMostPartsRows && kMostParts * tiles <= kMultiprocessors &&
                 weight.cols % (kTile * kMostParts) == 0
             ? kMostParts
             : 1;
}

// Matrices that do not follow each other come to several products, which no buffer of rows takes
// side by side: then there are none.
template <typename Params>
FusedProducts QkvProducts(const Params& p) {
  const LayerParams& layer = *p.layer.host;
  FusedProducts products =
      IntoScratch(p.rows, p.normed, {layer.q, layer.k, layer.v}, p.qkv.dtype, nullptr);
  products.scratch_bytes = 0;
  if (products.count == 1) {
    products.at[0].out = p.qkv;
  } else {
    products.count = 0;
  }
  return products;
}

}  // namespace

FusedProducts FusedProductsOf(const NormQkvParams& p, void* /*scratch*/) { return QkvProducts(p); }
FusedProducts FusedProductsOf(const QkvParams& p, void* /*scratch*/) { return QkvProducts(p); }

FusedProducts FusedProductsOf(const OutputResidualParams& p, void* /*scratch*/) {
  return ToStream(p.rows, p.attention, p.layer.host->o, p.layer.host->o_bias, p.hidden,
                  p.delta.data != nullptr ? &p.delta : nullptr);
}

FusedProducts FusedProductsOf(const NormGateUpParams& p, void* scratch) {
  const LayerParams& layer = *p.layer.host;
  return IntoScratch(p.rows, p.normed, {layer.gate, layer.up}, p.out.dtype, scratch);
}

FusedProducts FusedProductsOf(const DownResidualParams& p, void* /*scratch*/) {
  return ToStream(p.rows, p.in, p.layer.host->down, p.layer.host->down_bias, p.hidden,
                  p.delta.data != nullptr ? &p.delta : nullptr);
}

FusedProducts FusedProductsOf(const DownNormParams& p, void* scratch) {
  const LayerParams& layer = *p.layer.host;
  FusedProducts products = ToStream(p.rows, p.in, layer.down, layer.down_bias, p.hidden,
                                    layer.mlp_post_norm != nullptr ? &p.delta : nullptr);
  products.parts = PartsOf(layer.down, p.rows);
  if (products.parts == 1) return products;
  Rows& out = products.at[0].out;
  out.data = scratch;
  products.add = false;
  products.scratch_bytes = static_cast<size_t>(products.parts) * p.rows * out.width * sizeof(float);
  return products;
}

GateUpEndParams EndOf(const NormGateUpParams& p, const FusedProducts& products) {
  const LayerParams& layer = *p.layer.host;
  GateUpEndParams end;
  end.rows = p.rows;
  end.gate = SumsFrom(products, 0);
  end.up = SumsFrom(products, p.out.width);
  end.gate_bias = layer.gate_bias;
  end.up_bias = layer.up_bias;
  end.activation = layer.activation;
  end.out = p.out;
  return end;
}

DownEndParams EndOf(const DownNormParams& p, const FusedProducts& products) {
  DownEndParams end = {p};
  if (products.parts > 1) {
    end.sums = static_cast<const float*>(products.at[0].out.data);
    end.parts = products.parts;
  }
  return end;
}

}  // namespace sirocco::cuda
