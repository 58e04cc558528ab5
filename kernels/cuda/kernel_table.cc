#include "kernels/cuda/kernel_table.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"

namespace sirocco::cuda {
namespace {

struct Entry {
  std::string_view gpu;
  ProductShape shape;
  ProductAlgorithm algorithm;
};

constexpr Entry kEntries[] = {
    {},  // of no GPU: an array has one element at least
#include "kernels/cuda/kernel_table.inc"
};

constexpr uint32_t kSmallestBucket = 16;

}  // namespace

int32_t RowBucket(int32_t rows) {
  return static_cast<int32_t>(
      std::bit_ceil(std::max(static_cast<uint32_t>(rows), kSmallestBucket)));
}

const ProductAlgorithm* FindAlgorithm(std::string_view gpu, const ProductShape& shape) {
  if (gpu.empty()) return nullptr;
  for (const Entry& entry : kEntries) {
    if (entry.gpu == gpu && entry.shape == shape) return &entry.algorithm;
  }
  return nullptr;
}

std::string EntryText(std::string_view gpu, const ProductShape& shape,
                      const ProductAlgorithm& algorithm) {
  const auto type = [](DType dtype) {
    return dtype == DType::kBFloat16  ? "DType::kBFloat16"
           : dtype == DType::kFloat16 ? "DType::kFloat16"
                                      : "DType::kFloat32";
  };
  const ProductAlgorithm& a = algorithm;
  return absl::StrCat("{\"", std::string(gpu), "\", {", shape.rows, ", ", shape.outputs, ", ",
                      shape.inputs, ", ", type(shape.dtype), ", ", type(shape.out), "}, {", a.id,
                      ", ", a.tile, ", ", a.stages, ", ", a.split_k, ", ", a.reduction, ", ",
                      a.swizzling, ", ", a.custom, ", ", a.inner_shape, ", ", a.cluster_shape,
                      "}},");
}

}  // namespace sirocco::cuda
