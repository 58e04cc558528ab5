// Implementations of the product of activations with groups of 16 weight rows (pack.h), by
// instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "kernels/cpu/blocks.h"
#include "kernels/cpu/pack.h"

namespace sirocco::cpu {

// The parts of a block column of a group. Of Q4_1 the minima follow the scales.
constexpr int64_t GroupBlockBytes(DType type) { return int64_t{kGroupRows} * LayoutOf(type).bytes; }
constexpr int64_t MinimaAt() { return int64_t{kGroupRows} * 2; }
constexpr int64_t WordsAt(DType type) { return MinimaAt() * (type == DType::kQ4_1 ? 2 : 1); }
constexpr int WordsOf(DType type) { return type == DType::kQ8_0 ? 8 : 4; }

// out[r * out_stride + i] = x row (first_row + r) . row i of the groups, r < rows, i < 16 * groups.
struct GroupProduct {
  DType type = DType::kQ8_0;
  const std::byte* group = nullptr;  // packed, the first of them
  QuantisedRows x;
  int32_t first_row = 0;
  int32_t rows = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  int32_t groups = 1;  // that lie one after the other
};
// Group `index` of a product, alone.
inline GroupProduct GroupOf(GroupProduct product, int32_t index) {
  product.group += index * (product.x.blocks() * GroupBlockBytes(product.type));
  product.groups = 1;
  product.out += index * kGroupRows;
  return product;
}

// Of kRows rows of a product from `first` on, what the weights of one block after the other meet.
template <int kRows>
struct BlockRows {
  const int8_t* x[kRows];  // at the block's first value
  const BlockScale* scales[kRows];

  BlockRows(const GroupProduct& product, int32_t first) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      x[r] = product.x.values(product.first_row + first + r);
      scales[r] = product.x.scales(product.first_row + first + r);
    }
  }
  // Four values of row r, from the block's `at`-th on.
  int32_t WordOf(int r, int at) const {
    int32_t word;
    std::memcpy(&word, x[r] + at, sizeof(word));
    return word;
  }
  void NextBlock() {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) x[r] += kBlockElements;
  }
};

// Calls multiply(std::integral_constant<DType, type>()).
template <typename Multiply>
inline void ForBlockType(DType type, const Multiply& multiply) {
  switch (type) {
    case DType::kQ8_0:
      return multiply(std::integral_constant<DType, DType::kQ8_0>());
    case DType::kQ4_0:
      return multiply(std::integral_constant<DType, DType::kQ4_0>());
    default:
      return multiply(std::integral_constant<DType, DType::kQ4_1>());
  }
}

using GroupKernel = void (*)(const GroupProduct& product);

void MultiplyGroupPortable(const GroupProduct& product);
// Where the processor has AVX2, FMA and F16C.
void MultiplyGroupAvx2(const GroupProduct& product);
// Where it has AVX512F, BW, VL and VNNI.
void MultiplyGroupVnni(const GroupProduct& product);

enum class BlockTarget : uint8_t { kPortable, kAvx2, kVnni };

// What this processor has; kPortable always.
bool Supports(BlockTarget target);
// Takes another implementation than the best that the processor has; for tests, between operations.
void SetBlockTargetForTest(BlockTarget target);
BlockTarget BestBlockTarget();
std::string_view NameOf(BlockTarget target);

// Asks for what comes four kilobytes after a block column: the processor's own prefetching of a
// single stream is too slow. (One row of Q4_1 out of memory, by the CPU time of one core of an AMD
// Milan under other load: 11 to 16 GB/s without, 14 to 27 with.)
inline void PrefetchAfter(const std::byte* block, DType type) {
  constexpr int64_t kAhead = 4096;
  constexpr int64_t kLine = 64;
  for (int64_t at = kAhead; at < kAhead + GroupBlockBytes(type); at += kLine) {
    __builtin_prefetch(block + at);
  }
}

}  // namespace sirocco::cpu
