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

#include <cstdint>

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

// out[r * out_stride + c] = x row r . w row c, for r < kRows and c < kColumns, over k elements.
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

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#endif
