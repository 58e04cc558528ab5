// Tensors that files hold as one and a model has apart: Phi-3's q, k and v, or gate and up; all
// experts' in GGUF files.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/families.h"
#include "engine/model/tensor_source.h"
#include "graphs/descriptor.h"

namespace sirocco {

// The same tensors, each fused one as its parts: places in the same bytes. Names are Hugging
// Face's. INVALID_ARGUMENT: a fused tensor has another shape than its parts together.
absl::StatusOr<std::vector<StoredTensor>> SplitFused(const ModelDescriptor& descriptor,
                                                     std::span<const FusedTensor> fused,
                                                     std::vector<StoredTensor> tensors);

// The same of GGUF's tensors of all experts, [experts, rows, cols]: matrices named
// "...experts.{number}.{name}" instead of "...experts.{name}".
absl::StatusOr<std::vector<StoredTensor>> SplitExperts(int32_t experts,
                                                       std::vector<StoredTensor> tensors);

}  // namespace sirocco
