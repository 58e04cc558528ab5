// The element types that the CPU's operations take.
#pragma once

#include "kernels/checks.h"

namespace sirocco::cpu {

inline constexpr BackendTypes kTypes = {
    .backend = "the CPU",
    .activations = DTypes(DType::kFloat32),
    .weights = DTypes(DType::kFloat32, DType::kBFloat16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1),
    .kv = DTypes(DType::kFloat32, DType::kBFloat16, DType::kFloat8),
};

}  // namespace sirocco::cpu
