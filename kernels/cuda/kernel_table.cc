#include "kernels/cuda/kernel_table.h"

#include <algorithm>
#include <bit>

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

}  // namespace sirocco::cuda
