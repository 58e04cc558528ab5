// The element types that CUDA's operations take.
#pragma once

#include "kernels/checks.h"

namespace sirocco::cuda {

inline constexpr DTypes kAllTypes = DTypes(DType::kFloat32, DType::kBFloat16, DType::kFloat16);
inline constexpr BackendTypes kTypes = {
    .backend = "CUDA", .activations = kAllTypes, .weights = kAllTypes, .kv = kAllTypes};

}  // namespace sirocco::cuda
