// The order of a panel's sums of normed rows (panel_product.cu), which others may follow: into how
// many parts a product's columns are cut, and where. Columns are added up in *chains* of 64, each
// 16 columns after the other. A part is some stages of columns. Of gate and up, which are one part,
// what is added up are the chains in their order; else the two chains of a stage first, then the
// stages in their order, then the parts in theirs.
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kOrderOutputs = 64;  // of a block
inline constexpr int kMostSplit = 8;      // parts
inline constexpr int kOrderChain = 64;    // columns

// Columns of a stage; a part is some whole stages.
constexpr int PanelStage(bool gate_up) { return gate_up ? 64 : 128; }

// So many blocks share a tile's columns that all blocks together are about one a multiprocessor; of
// unnormed rows more, where each block's share waits in its ring as a whole.
constexpr int32_t PanelSplitOf(int32_t tiles, int32_t stages, int multiprocessors, bool unnormed) {
  int32_t split = 1;
  while (split < kMostSplit && 4 * split <= stages) {
    const int32_t share = stages / (2 * split);
    const bool whole = unnormed && share >= 4 && share <= 6;
    const int room = multiprocessors + multiprocessors / (whole ? 2 : 8);
    if (2 * split * tiles > room) break;
    split *= 2;
  }
  return split;
}

// Of normed rows.
constexpr int32_t PanelSplit(int32_t outputs, int32_t columns, bool gate_up, int multiprocessors) {
  if (gate_up) return 1;
  const int stage = PanelStage(gate_up);
  return PanelSplitOf((outputs + kOrderOutputs - 1) / kOrderOutputs, (columns + stage - 1) / stage,
                      multiprocessors, false);
}
constexpr int32_t PanelPartBegin(int32_t columns, int32_t parts, int32_t part) {
  return columns / PanelStage(false) * part / parts * PanelStage(false);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
