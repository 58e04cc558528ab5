#include "kernels/cuda/fused_panels.h"

#include "kernels/cuda/fused_products.h"

namespace sirocco::cuda {
namespace {

template <typename Params>
PanelProductParams QkvPanels(const Params& p) {
  const FusedProducts products = FusedProductsOf(p, nullptr);
  PanelProductParams panels;
  if (products.count != 1) return panels;  // of no rows, which no panels take
  panels.rows = p.rows;
  panels.in = products.at[0].in;
  panels.weight = products.at[0].weight;
  panels.out = products.at[0].out;
  return panels;
}

// To the residual stream, or to the delta that is normed before it joins.
PanelProductParams StreamPanels(int32_t rows, const Rows& in, const Matrix& weight,
                                const float* bias, const Rows& hidden, const Rows& delta) {
  PanelProductParams panels;
  panels.rows = rows;
  panels.in = in;
  panels.weight = weight;
  panels.bias = bias;
  panels.add = delta.data == nullptr;
  panels.out = panels.add ? hidden : delta;
  return panels;
}

}  // namespace

PanelProductParams PanelsOf(const NormQkvParams& p) { return QkvPanels(p); }
PanelProductParams PanelsOf(const QkvParams& p) { return QkvPanels(p); }
PanelProductParams PanelsOf(const OutputResidualParams& p) {
  const LayerParams& layer = *p.layer.host;
  return StreamPanels(p.rows, p.attention, layer.o, layer.o_bias, p.hidden, p.delta);
}
PanelProductParams PanelsOf(const DownResidualParams& p) {
  const LayerParams& layer = *p.layer.host;
  return StreamPanels(p.rows, p.in, layer.down, layer.down_bias, p.hidden, p.delta);
}
PanelProductParams PanelsOf(const DownNormParams& p) {
  const LayerParams& layer = *p.layer.host;
  return StreamPanels(p.rows, p.in, layer.down, layer.down_bias, p.hidden,
                      layer.mlp_post_norm != nullptr ? p.delta : Rows());
}
PanelProductParams PanelsOf(const NormGateUpParams& p) {
  const LayerParams& layer = *p.layer.host;
  PanelProductParams panels;
  panels.rows = p.rows;
  panels.in = p.normed;
  panels.weight = layer.gate;
  panels.bias = layer.gate_bias;
  panels.out = p.out;
  panels.up = layer.up;
  panels.up_bias = layer.up_bias;
  panels.activation = layer.activation;
  return panels;
}

WideProductParams WideOf(const PanelProductParams& panels) {
  WideProductParams wide;
  wide.rows = panels.rows;
  wide.in = panels.in;
  wide.weight = panels.weight;
  wide.bias = panels.bias;
  wide.out = panels.out;
  wide.add = panels.add;
  wide.up = panels.up;
  wide.up_bias = panels.up_bias;
  wide.activation = panels.activation;
  return wide;
}

}  // namespace sirocco::cuda
