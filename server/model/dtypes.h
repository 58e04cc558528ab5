// Which types a model runs in: the keys `dtype` and `kv_cache_dtype`, and what auto means.
#pragma once

#include "absl/status/statusor.h"
#include "engine/model/tensor_source.h"
#include "kernels/device.h"
#include "kernels/dtype.h"
#include "server/config/config.h"

namespace sirocco {

struct ModelDTypes {
  DType weights = DType::kFloat32;  // of matrices
  DType kv = DType::kFloat32;
  DType activations = DType::kFloat32;  // Device::ActivationDType of the weights'
};

// auto is bfloat16; on CUDA float16 where `stored` is float16. The KV cache's auto is as the
// weights. INVALID_ARGUMENT: the backend has no such type.
absl::StatusOr<ModelDTypes> ChooseDTypes(const Config& config, const Device& device, DType stored);

// float16 where most elements of the matrices are stored as such, else bfloat16.
DType StoredDType(const TensorSource& tensors);

}  // namespace sirocco
