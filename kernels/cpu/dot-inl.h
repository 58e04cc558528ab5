// Dot products of rows with rows: attention scores, and the squares of norms.
//
// Each output element is one chain: 16 partial sums that walk along k in steps of 16 with fused
// multiply-add, then Sum's tree. How many elements are computed side by side never changes an
// element's chain, so that results do not depend on rows, tiles or threads.
//
// Included once a target by Highway's foreach_target; no ordinary include guard.
#if defined(SIROCCO_KERNELS_CPU_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SIROCCO_KERNELS_CPU_DOT_INL_H_
#undef SIROCCO_KERNELS_CPU_DOT_INL_H_
#else
#define SIROCCO_KERNELS_CPU_DOT_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

// Elements side by side: as many as the vector registers hold (32 of AVX-512, 16 before it).
inline constexpr int kDotRows = kParts == 1 ? 8 : 2;
constexpr int DotColumns(int rows) {
  if (kParts > 1) return rows == 1 ? 4 : 3;
  return rows == 8 ? 3 : rows == 1 ? 8 : 4;
}
// Columns that are finished for all rows before the next: their weights stay in the cache. A
// multiple of every DotColumns.
inline constexpr int kDotGroup = 24;

template <int kRows, int kColumns, typename W>
HWY_INLINE void DotTile(const float* HWY_RESTRICT x, int64_t x_stride, const W* HWY_RESTRICT w,
                        int64_t w_stride, int32_t k, float* HWY_RESTRICT out, int64_t out_stride) {
  Pack sum[kRows][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) sum[r][c] = Zero();
  }
  const auto step = [&](const auto& load, int32_t i) HWY_ATTR {
    Pack weight[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) weight[c] = load(w + c * w_stride + i);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Pack in = load(x + r * x_stride + i);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) sum[r][c] = MulAdd(in, weight[c], sum[r][c]);
    }
  };
  const int32_t whole = k - k % kPack;
  for (int32_t i = 0; i < whole; i += kPack) {
    step([](const auto* from) HWY_ATTR { return Load(from); }, i);
  }
  if (whole < k) {
    step([&](const auto* from) HWY_ATTR { return LoadFirst(from, k - whole); }, whole);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) out[r * out_stride + c] = Sum(sum[r][c]);
  }
}

template <int kRows, typename W>
HWY_NOINLINE void DotRows(const float* x, int64_t x_stride, const W* w, int64_t w_stride,
                          int32_t columns, int32_t k, float* out, int64_t out_stride) {
  constexpr int kColumns = DotColumns(kRows);
  int32_t c = 0;
  for (; c + kColumns <= columns; c += kColumns) {
    DotTile<kRows, kColumns>(x, x_stride, w + c * w_stride, w_stride, k, out + c, out_stride);
  }
  for (; c < columns; ++c) {
    DotTile<kRows, 1>(x, x_stride, w + c * w_stride, w_stride, k, out + c, out_stride);
  }
}

// out[r * out_stride + c] = x row r . w row c, for r < rows and c < columns, over k elements.
template <typename W>
void DotBlock(const float* x, int64_t x_stride, int32_t rows, const W* w, int64_t w_stride,
              int32_t columns, int32_t k, float* out, int64_t out_stride) {
  for (int32_t c = 0; c < columns; c += kDotGroup) {
    const int32_t group = std::min(kDotGroup, columns - c);
    const W* w_group = w + c * w_stride;
    int32_t r = 0;
    const auto take = [&](auto count) HWY_ATTR {
      constexpr int kRows = decltype(count)::value;
      for (; r + kRows <= rows; r += kRows) {
        DotRows<kRows>(x + r * x_stride, x_stride, w_group, w_stride, group, k,
                       out + r * out_stride + c, out_stride);
      }
    };
    if constexpr (kDotRows == 8) {
      take(std::integral_constant<int, 8>());
      take(std::integral_constant<int, 4>());
    }
    take(std::integral_constant<int, 2>());
    take(std::integral_constant<int, 1>());
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#endif
