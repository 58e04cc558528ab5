#include "kernels/cpu/blocks.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "kernels/cpu/block_at.h"
#include "kernels/cpu/block_kernels.h"
#include "kernels/cpu/pack.h"

namespace sirocco::cpu {
namespace {

// A row that is in no whole group.
float DotTailRow(const Matrix& weight, int32_t column, const QuantisedRows& x, int32_t row) {
  const int8_t* values = x.values(row);
  const BlockScale* scales = x.scales(row);
  float sum = 0;
  for (int32_t b = 0; b < x.blocks(); ++b) {
    const PlainBlock block = BlockAt(weight, column, b);
    int32_t product = 0;
    for (int i = 0; i < kBlockElements; ++i) product += block.q[i] * values[b * kBlockElements + i];
    sum = std::fma(static_cast<float>(product), block.d * scales[b].scale, sum);
    if (weight.dtype == DType::kQ4_1) sum = std::fma(block.m, scales[b].scaled_total, sum);
  }
  return sum;
}

// One group.
void MultiplyOne(const GroupProduct& product) {
  const int words = WordsOf(product.type);
  const bool halves = words == 4;
  for (int32_t r = 0; r < product.rows; ++r) {
    const int8_t* x = product.x.values(product.first_row + r);
    const BlockScale* scales = product.x.scales(product.first_row + r);
    float* out = product.out + r * product.out_stride;
    float sums[kGroupRows] = {};
    for (int32_t b = 0; b < product.x.blocks(); ++b, x += kBlockElements) {
      const std::byte* block = product.group + b * GroupBlockBytes(product.type);
      const std::byte* q = block + WordsAt(product.type);
      int32_t products[kGroupRows] = {};
      for (int i = 0; i < 4 * words; ++i) {
        for (int c = 0; c < kGroupRows; ++c) {
          const std::byte byte = q[4 * (i / 4 * kGroupRows + c) + i % 4];
          if (halves) {
            products[c] += (std::to_integer<int>(byte) & 15) * x[i] +
                           (std::to_integer<int>(byte) >> 4) * x[i + kBlockElements / 2];
          } else {
            products[c] += std::to_integer<int8_t>(byte) * x[i];
          }
        }
      }
      for (int c = 0; c < kGroupRows; ++c) {
        if (product.type == DType::kQ4_0) products[c] -= 8 * scales[b].total;
        sums[c] = std::fma(static_cast<float>(products[c]), HalfAt(block + 2 * c) * scales[b].scale,
                           sums[c]);
        if (product.type == DType::kQ4_1) {
          sums[c] = std::fma(HalfAt(block + MinimaAt() + 2 * c), scales[b].scaled_total, sums[c]);
        }
      }
    }
    std::copy(sums, sums + kGroupRows, out);
  }
}

GroupKernel KernelOf(BlockTarget target) {
  switch (target) {
    case BlockTarget::kVnni:
      return MultiplyGroupVnni;
    case BlockTarget::kAvx2:
      return MultiplyGroupAvx2;
    case BlockTarget::kPortable:
      break;
  }
  return MultiplyGroupPortable;
}

std::atomic<GroupKernel>& ChosenKernel() {
  static std::atomic<GroupKernel> kernel{KernelOf(BestBlockTarget())};
  return kernel;
}

}  // namespace

bool Supports(BlockTarget target) {
#if defined(__x86_64__)
  if (target == BlockTarget::kVnni) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  }
  if (target == BlockTarget::kAvx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
  }
#endif
  return target == BlockTarget::kPortable;
}

BlockTarget BestBlockTarget() {
  if (Supports(BlockTarget::kVnni)) return BlockTarget::kVnni;
  return Supports(BlockTarget::kAvx2) ? BlockTarget::kAvx2 : BlockTarget::kPortable;
}

std::string_view NameOf(BlockTarget target) {
  switch (target) {
    case BlockTarget::kVnni:
      return "AVX-512 with VNNI";
    case BlockTarget::kAvx2:
      return "AVX2";
    case BlockTarget::kPortable:
      break;
  }
  return "portable code";
}

void SetBlockTargetForTest(BlockTarget target) {
  ChosenKernel().store(KernelOf(target), std::memory_order_relaxed);
}

void MultiplyGroupPortable(const GroupProduct& product) {
  for (int32_t g = 0; g < product.groups; ++g) MultiplyOne(GroupOf(product, g));
}

void DotBlocks(const Matrix& weight, int32_t first_column, int32_t columns, const QuantisedRows& x,
               int32_t first_row, int32_t rows, float* out, int64_t out_stride) {
  const GroupKernel kernel = ChosenKernel().load(std::memory_order_relaxed);
  const int32_t end = first_column + columns;
  const int32_t packed_end = std::min(end, PackedRows(weight));
  int32_t c = first_column;
  while (c < packed_end) {
    const int32_t group = c / kGroupRows * kGroupRows;
    int32_t next = std::min(group + kGroupRows, packed_end);
    GroupProduct product{weight.dtype, RowsAt(weight, group), x, first_row, rows, nullptr, 0};
    if (next - c == kGroupRows) {
      product.groups = (packed_end - c) / kGroupRows;
      next = c + product.groups * kGroupRows;
      product.out = out + (c - first_column);
      product.out_stride = out_stride;
      kernel(product);
    } else {
      // A part of a group is asked for: few rows at a time, and the part is copied.
      constexpr int32_t kRowsAtOnce = 32;
      float whole[kRowsAtOnce * kGroupRows];
      for (int32_t r = 0; r < rows; r += kRowsAtOnce) {
        product.first_row = first_row + r;
        product.rows = std::min(kRowsAtOnce, rows - r);
        product.out = whole;
        product.out_stride = kGroupRows;
        kernel(product);
        for (int32_t i = 0; i < product.rows; ++i) {
          const float* from = whole + i * kGroupRows + (c - group);
          std::copy(from, from + (next - c), out + (r + i) * out_stride + (c - first_column));
        }
      }
    }
    c = next;
  }
  for (; c < end; ++c) {
    for (int32_t r = 0; r < rows; ++r) {
      out[r * out_stride + (c - first_column)] = DotTailRow(weight, c, x, first_row + r);
    }
  }
}

}  // namespace sirocco::cpu
