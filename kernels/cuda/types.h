// The element types that CUDA's operations take.
#pragma once

#include "kernels/checks.h"

namespace sirocco::cuda {

inline constexpr DTypes kAllTypes = DTypes(DType::kFloat32, DType::kBFloat16, DType::kFloat16);
inline constexpr DTypes kKvTypes =
    DTypes(DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat8);
inline constexpr BackendTypes kTypes = {
    .backend = "CUDA", .activations = kAllTypes, .weights = kAllTypes, .kv = kKvTypes};

}  // namespace sirocco::cuda
