// Which tensors a model has, where in its weights each belongs, and where in the device's memory:
// what OpenModel checks, and LoadWeights and RandomWeights fill.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/tensor_source.h"
#include "graphs/descriptor.h"
#include "graphs/weights.h"
#include "kernels/device.h"

namespace sirocco {

// What a model's matrices become on a device.
struct WeightTypes {
  // Not explicit: most models have one type.
  WeightTypes(DType all) : dtype(all) {}  // NOLINT
  WeightTypes(DType other, const TensorSource* kept) : dtype(other), blocks(kept) {}

  DType dtype;
  // Where set, matrices that these files hold in blocks stay so, and `dtype` is the others' and the
  // experts', whose operation computes from no blocks.
  const TensorSource* blocks = nullptr;
};

struct WeightPlace {
  std::string tensor;          // Hugging Face's name; with `parts` only people's
  std::vector<int64_t> shape;  // outermost first
  // Where files hold the matrix as several tensors of as many rows each: their names, in order.
  std::vector<std::string> parts = {};
  // One of the two: a matrix, or a vector in float32.
  Matrix* matrix = nullptr;
  const float** vector = nullptr;
  bool may_stay_in_blocks = true;  // whether operations compute from blocks of this matrix
  // LayOut's: its place in the one buffer of all weights.
  DType dtype = DType::kFloat32;
  uint64_t elements = 0;
  uint64_t offset = 0;
  uint64_t bytes() const { return BytesOf(dtype, elements); }
};

// Calls with (tensor's name, shape, elements before it) for each tensor of a place.
template <typename Body>
absl::Status ForEachTensor(const WeightPlace& place, const Body& body) {
  if (place.parts.empty()) return body(place.tensor, place.shape, uint64_t{0});
  std::vector<int64_t> shape = place.shape;
  shape.front() /= static_cast<int64_t>(place.parts.size());
  uint64_t elements = 1;
  for (const int64_t extent : shape) elements *= static_cast<uint64_t>(extent);
  uint64_t before = 0;
  for (const std::string& part : place.parts) {
    if (absl::Status status = body(part, shape, before); !status.ok()) return status;
    before += elements;
  }
  return absl::OkStatus();
}

// All weights of a model but a tied head. Makes `weights.layers`; the places point into `weights`.
std::vector<WeightPlace> WeightPlaces(const ModelDescriptor& descriptor, ModelWeights& weights);

struct WeightLayout {
  std::vector<WeightPlace> places;
  uint64_t bytes = 0;         // of the buffer
  uint64_t weight_bytes = 0;  // of the weights, without the gaps between them: what progress counts
};

// Gives all weights their places in a buffer. They point into `weights`, as WeightPlaces' do, whose
// matrices have their shapes and types from now on.
WeightLayout LayOutWeights(const ModelDescriptor& descriptor, const WeightTypes& types,
                           ModelWeights& weights);

// Makes `weights`, which `layout` points into, views of the buffer, which holds them as files do,
// and the buffer theirs; has the device pack the matrices.
absl::Status BindWeights(const ModelDescriptor& descriptor, const WeightLayout& layout,
                         Device& device, std::unique_ptr<Buffer> buffer, ModelWeights& weights);

// INVALID_ARGUMENT: a tensor is missing, or has another shape; `where` names the model. What would
// be left over is UNIMPLEMENTED, named, unless it carries nothing of the model's.
absl::Status CheckTensors(const ModelDescriptor& descriptor, const TensorSource& tensors,
                          const std::string& where);

}  // namespace sirocco
