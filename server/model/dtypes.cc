#include "server/model/dtypes.h"

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sirocco {
namespace {

constexpr std::array<DType, 3> kDTypes = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

// `word`: the value of `key`; `automatic`: what auto means.
absl::StatusOr<DType> Choose(std::string_view key, std::string_view word, DType automatic,
                             const Device& device) {
  if (word == "auto") return automatic;
  std::vector<std::string> allowed = {"auto"};
  for (const DType dtype : kDTypes) {
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
  absl::StatusOr<DType> weights =
      Choose("dtype", config.dtype, half ? DType::kFloat16 : DType::kBFloat16, device);
  if (!weights.ok()) return weights.status();
  dtypes.weights = *weights;
  absl::StatusOr<DType> kv =
      Choose("kv_cache_dtype", config.kv_cache_dtype, dtypes.weights, device);
  if (!kv.ok()) return kv.status();
  dtypes.kv = *kv;
  dtypes.activations = device.ActivationDType(dtypes.weights);
  return dtypes;
}

DType StoredDType(const TensorSource& tensors) {
  int64_t all = 0, half = 0;
  for (const StoredTensor& tensor : tensors.tensors()) {
    if (tensor.shape.size() < 2) continue;
    int64_t elements = 1;
    for (const int64_t extent : tensor.shape) elements *= extent;
    all += elements;
    if (tensor.type == StoredType::kF16) half += elements;
  }
  return 2 * half > all ? DType::kFloat16 : DType::kBFloat16;
}

}  // namespace sirocco
