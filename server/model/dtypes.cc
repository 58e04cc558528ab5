#include "server/model/dtypes.h"

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sirocco {
namespace {

constexpr DType kWeightTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
constexpr DType kKvTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat8};

// `word`: the value of `key`, one of `types` or auto; `automatic`: what auto means.
absl::StatusOr<DType> Choose(std::string_view key, std::string_view word,
                             std::span<const DType> types, DType automatic, const Device& device) {
  if (word == "auto") return automatic;
  std::vector<std::string> allowed = {"auto"};
  for (const DType dtype : types) {
    if (!device.Offers(dtype)) continue;
    if (NameOf(dtype) == word) return dtype;
    allowed.emplace_back(NameOf(dtype));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      std::string(key), ": '", std::string(word), "' is not offered by the ",
      std::string(device.backend()), " backend; allowed there: ", absl::StrJoin(allowed, ", ")));
}

}  // namespace

absl::StatusOr<ModelDTypes> ChooseDTypes(const Config& config, const Device& device, DType stored) {
  const bool half = stored == DType::kFloat16 && device.Offers(DType::kFloat16);
  ModelDTypes dtypes;
  absl::StatusOr<DType> weights = Choose("dtype", config.dtype, kWeightTypes,
                                         half ? DType::kFloat16 : DType::kBFloat16, device);
  if (!weights.ok()) return weights.status();
  dtypes.weights = *weights;
  dtypes.blocks = *weights;
  if (config.dtype == "auto" && InBlocks(stored) && device.ComputesFromBlocks(stored)) {
    dtypes.blocks = stored;
  }
  absl::StatusOr<DType> kv =
      Choose("kv_cache_dtype", config.kv_cache_dtype, kKvTypes, dtypes.weights, device);
  if (!kv.ok()) return kv.status();
  dtypes.kv = *kv;
  dtypes.activations = device.ActivationDType(dtypes.weights);
  return dtypes;
}

DType StoredDType(const TensorSource& tensors) {
  std::array<int64_t, kDTypeCount> elements = {};
  for (const StoredTensor& tensor : tensors.tensors()) {
    if (tensor.shape.size() < 2) continue;
    DType type = DTypeOf(tensor.type).value_or(DType::kBFloat16);
    if (type == DType::kFloat32) type = DType::kBFloat16;
    int64_t count = 1;
    for (const int64_t extent : tensor.shape) count *= extent;
    elements[static_cast<size_t>(type)] += count;
  }
  // Of two with as many, bfloat16.
  DType most = DType::kBFloat16;
  for (size_t i = 0; i < elements.size(); ++i) {
    if (elements[i] > elements[static_cast<size_t>(most)]) most = static_cast<DType>(i);
  }
  return most;
}

}  // namespace sirocco
