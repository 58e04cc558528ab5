// The product of a fused operation as a panel product, and that as a wide one. Only where the host
// knows the layer (LayerRef::host).
#pragma once

#include "kernels/cuda/panel_product.h"
#include "kernels/cuda/wide_product.h"
#include "kernels/params.h"

namespace sirocco::cuda {

// Of matrices that do not follow each other, as q, k and v may: of no rows, which nothing takes.
PanelProductParams PanelsOf(const NormQkvParams& p);
PanelProductParams PanelsOf(const QkvParams& p);
PanelProductParams PanelsOf(const OutputResidualParams& p);
PanelProductParams PanelsOf(const NormGateUpParams& p);
PanelProductParams PanelsOf(const DownResidualParams& p);
PanelProductParams PanelsOf(const DownNormParams& p);

// In one part.
WideProductParams WideOf(const PanelProductParams& panels);

}  // namespace sirocco::cuda
