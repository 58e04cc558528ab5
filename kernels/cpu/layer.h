// The layer that a LayerRef names at the time an operation runs.
#pragma once

#include "kernels/ops.h"

namespace sirocco::cpu {

inline const LayerParams& LayerOf(const LayerRef& ref) {
  return ref.table[ref.counter != nullptr ? *ref.counter : ref.index];
}

}  // namespace sirocco::cpu
