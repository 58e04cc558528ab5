// Which types a model runs in: the keys `dtype` and `kv_cache_dtype`, and what auto means.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/tensor_source.h"
#include "engine/model/weight_places.h"
#include "kernels/device.h"
#include "kernels/dtype.h"
#include "server/config/config.h"

namespace sirocco {

struct ModelDTypes {
  DType weights = DType::kFloat32;  // of matrices, but those that stay in blocks
  DType blocks = DType::kFloat32;   // the type of most; a plain one: no matrix stays in blocks
  DType kv = DType::kFloat32;
  DType activations = DType::kFloat32;  // Device::ActivationDType of the weights'

  bool keep_blocks() const { return InBlocks(blocks); }
  // What matrices of a model with these tensors become; of one without files, null.
  WeightTypes TypesOf(const TensorSource* tensors) const {
    return {weights, keep_blocks() ? tensors : nullptr};
  }
  // Of most weights: "bfloat16", "Q4_1".
  std::string_view weights_name() const { return NameOf(keep_blocks() ? blocks : weights); }
};

// auto keeps blocks where `stored` says that most matrices are in them and the device computes from
// them; other matrices are bfloat16, on CUDA float16 where `stored` is float16. A named type
// dequantises. The KV cache's auto is as the weights that are not in blocks. INVALID_ARGUMENT: the
// backend has no such type.
absl::StatusOr<ModelDTypes> ChooseDTypes(const Config& config, const Device& device, DType stored);

// What most elements of the matrices are stored as: float16, a type of blocks, else bfloat16.
DType StoredDType(const TensorSource& tensors);

}  // namespace sirocco
