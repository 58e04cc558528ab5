// Which tensors a model has, and where in its weights each belongs: what OpenModel checks and
// LoadWeights loads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/tensor_source.h"
#include "graphs/descriptor.h"
#include "graphs/weights.h"

namespace sirocco {

struct WeightPlace {
  std::string tensor;          // Hugging Face's name
  std::vector<int64_t> shape;  // outermost first
  // One of the two: a matrix in the model's dtype, a vector in float32.
  Matrix* matrix = nullptr;
  const float** vector = nullptr;
};

// All weights of a model but a tied head. Makes `weights.layers`; the places point into `weights`.
std::vector<WeightPlace> WeightPlaces(const ModelDescriptor& descriptor, ModelWeights& weights);

// INVALID_ARGUMENT: a tensor is missing, or has another shape; `where` names the model. What would
// be left over is UNIMPLEMENTED, named, unless it carries nothing of the model's.
absl::Status CheckTensors(const ModelDescriptor& descriptor, const TensorSource& tensors,
                          const std::string& where);

}  // namespace sirocco
