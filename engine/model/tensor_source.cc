#include "engine/model/tensor_source.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/checked.h"
#include "engine/model/file_error.h"

namespace sirocco {

namespace {

struct TypeFacts {
  std::string_view name;
  std::optional<DType> dtype;
  BlockLayout layout;
};

TypeFacts Same(std::string_view name, DType dtype) { return {name, dtype, LayoutOf(dtype)}; }

TypeFacts FactsOf(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return Same("F32", DType::kFloat32);
    case StoredType::kF16:
      return Same("F16", DType::kFloat16);
    case StoredType::kBF16:
      return Same("BF16", DType::kBFloat16);
    case StoredType::kQ8_0:
      return Same("Q8_0", DType::kQ8_0);
    case StoredType::kQ4_0:
      return Same("Q4_0", DType::kQ4_0);
    case StoredType::kQ4_1:
      return Same("Q4_1", DType::kQ4_1);
    case StoredType::kQ5_0:
      return {"Q5_0", std::nullopt, {32, 22}};
    case StoredType::kQ5_1:
      return {"Q5_1", std::nullopt, {32, 24}};
    case StoredType::kQ4_K:
      return {"Q4_K", std::nullopt, {256, 144}};
    case StoredType::kQ5_K:
      return {"Q5_K", std::nullopt, {256, 176}};
    case StoredType::kQ6_K:
      return {"Q6_K", std::nullopt, {256, 210}};
  }
  return Same("?", DType::kFloat32);
}

}  // namespace

std::string_view NameOf(StoredType type) { return FactsOf(type).name; }

std::optional<DType> DTypeOf(StoredType type) { return FactsOf(type).dtype; }

BlockLayout LayoutOf(StoredType type) { return FactsOf(type).layout; }

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
