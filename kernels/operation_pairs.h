// Two operations of a step plan as one: what they mean is the first and then the second. A device
// may make more of the two than of each (Device::paired_rows): a norm between two products need not
// be a pass over rows. Apart from params.h, so that only what knows them is compiled again when
// they change.
#pragma once

#include <cstdint>

#include "kernels/params.h"

namespace sirocco {

// `rows` of both are set from the pair's. The second's `hidden` and `delta` are the first's.
// Afterwards `normed` is undefined, and so is `delta`.
struct OutputGateUpParams {
  int32_t rows = 0;
  OutputResidualParams output;
  NormGateUpParams gate_up;
};

// Across the layers' boundary: the second's layer comes after the first's, and its `normed` is the
// first's. Afterwards `normed` is undefined, and so is `delta`.
struct DownQkvParams {
  int32_t rows = 0;
  DownNormParams down;
  QkvParams qkv;
};

// The operations of a pair, with its rows.
template <typename Params>
Params OfRows(Params params, int32_t rows) {
  params.rows = rows;
  return params;
}
inline OutputResidualParams FirstOf(const OutputGateUpParams& p) {
  return OfRows(p.output, p.rows);
}
inline NormGateUpParams SecondOf(const OutputGateUpParams& p) { return OfRows(p.gate_up, p.rows); }
inline DownNormParams FirstOf(const DownQkvParams& p) { return OfRows(p.down, p.rows); }
inline QkvParams SecondOf(const DownQkvParams& p) { return OfRows(p.qkv, p.rows); }

}  // namespace sirocco
