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
inline OutputResidualParams FirstOf(const OutputGateUpParams& p) {
  OutputResidualParams first = p.output;
  first.rows = p.rows;
  return first;
}
inline NormGateUpParams SecondOf(const OutputGateUpParams& p) {
  NormGateUpParams second = p.gate_up;
  second.rows = p.rows;
  return second;
}
inline DownNormParams FirstOf(const DownQkvParams& p) {
  DownNormParams first = p.down;
  first.rows = p.rows;
  return first;
}
inline QkvParams SecondOf(const DownQkvParams& p) {
  QkvParams second = p.qkv;
  second.rows = p.rows;
  return second;
}

}  // namespace sirocco
