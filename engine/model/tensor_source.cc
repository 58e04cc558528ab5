#include "engine/model/tensor_source.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/checked.h"
#include "engine/model/file_error.h"

namespace sirocco {

std::string_view NameOf(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return "F32";
    case StoredType::kF16:
      return "F16";
    case StoredType::kBF16:
      return "BF16";
    case StoredType::kQ8_0:
      return "Q8_0";
    case StoredType::kQ4_0:
      return "Q4_0";
    case StoredType::kQ4_1:
      return "Q4_1";
  }
  return "?";
}

DType DTypeOf(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return DType::kFloat32;
    case StoredType::kF16:
      return DType::kFloat16;
    case StoredType::kBF16:
      return DType::kBFloat16;
    case StoredType::kQ8_0:
      return DType::kQ8_0;
    case StoredType::kQ4_0:
      return DType::kQ4_0;
    case StoredType::kQ4_1:
      return DType::kQ4_1;
  }
  return DType::kFloat32;
}

BlockLayout LayoutOf(StoredType type) { return LayoutOf(DTypeOf(type)); }

std::string DescribeTensor(const StoredTensor& tensor) {
  return absl::StrCat(std::string(NameOf(tensor.type)), " [", absl::StrJoin(tensor.shape, ", "),
                      "]");
}

std::optional<uint64_t> StoredBytes(StoredType type, std::span<const int64_t> shape) {
  const BlockLayout layout = LayoutOf(type);
  for (const int64_t dimension : shape) {
    if (dimension <= 0) return std::nullopt;
  }
  if (!shape.empty() && shape.back() % layout.elements != 0) return std::nullopt;
  const std::optional<int64_t> elements = CheckedProduct(shape);
  if (!elements) return std::nullopt;
  return CheckedMul<uint64_t>(static_cast<uint64_t>(*elements / layout.elements), layout.bytes);
}

absl::Status CheckDistinct(const std::string& path, const std::vector<StoredTensor>& tensors) {
  std::vector<const StoredTensor*> sorted;
  sorted.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) sorted.push_back(&tensor);

  std::sort(sorted.begin(), sorted.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return std::tie(a->offset, a->bytes) < std::tie(b->offset, b->bytes);
  });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (FitsIn(sorted[i - 1]->offset, sorted[i - 1]->bytes, sorted[i]->offset)) continue;
    return InvalidFile(path, absl::StrCat("tensors ", Shown(sorted[i - 1]->name), " and ",
                                          Shown(sorted[i]->name), " overlap"));
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const StoredTensor* a, const StoredTensor* b) { return a->name < b->name; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1]->name != sorted[i]->name) continue;
    return InvalidFile(path, absl::StrCat("has the tensor ", Shown(sorted[i]->name), " twice"));
  }
  return absl::OkStatus();
}

}  // namespace sirocco
