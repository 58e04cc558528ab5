// Products of rows with packed plain weights (pack.h): the lanes of a vector are the 16 columns of
// a group, and no sum ever runs across a vector.
//
// Each output element is one chain: along k by fused multiply-add in stretches of 256, from 0, and
// the stretches' sums added up in order. How many elements are computed side by side never changes
// an element's chain, so that results do not depend on rows, tiles or threads. In one stretch the
// weights of a group and the rows that meet them stay in the first cache.
//
// Included once a target by Highway's foreach_target; no ordinary include guard.
#if defined(SIROCCO_KERNELS_CPU_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SIROCCO_KERNELS_CPU_PANEL_INL_H_
#undef SIROCCO_KERNELS_CPU_PANEL_INL_H_
#else
#define SIROCCO_KERNELS_CPU_PANEL_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

inline constexpr int32_t kStretch = 256;

// Elements side by side: as many as the vector registers hold (32 of AVX-512, 16 before it).
inline constexpr int kPanelRows = kParts == 1 ? 12 : 6;
// The 16 columns' weights at one k.
HWY_INLINE Pack LoadColumns(const float* from) { return Load(from); }
// Columns c and c + 8 share 32 bits, c below.
HWY_INLINE Pack LoadColumns(const BFloat16* from) {
  const auto* bits = reinterpret_cast<const uint32_t*>(from);
  Pack result;
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 8; ++i) {
    const hn::CappedTag<uint32_t, 1> d;
    const auto both = hn::LoadU(d, bits + i);
    result.part[i] = hn::BitCast(PackTag(), hn::ShiftLeft<16>(both));
    result.part[i + 8] = hn::BitCast(PackTag(), hn::And(both, hn::Set(d, 0xffff0000u)));
  }
#else
  if constexpr (kParts == 1) {
    const hn::Half<hn::Rebind<uint32_t, PackTag> > d;
    const hn::Half<PackTag> half;
    const auto both = hn::LoadU(d, bits);
    result.part[0] =
        hn::Combine(PackTag(), hn::BitCast(half, hn::And(both, hn::Set(d, 0xffff0000u))),
                    hn::BitCast(half, hn::ShiftLeft<16>(both)));
  } else {
    const hn::Rebind<uint32_t, PackTag> d;
    for (int i = 0; i < kParts / 2; ++i) {
      const auto both = hn::LoadU(d, bits + i * kPartLanes);
      result.part[i] = hn::BitCast(PackTag(), hn::ShiftLeft<16>(both));
      result.part[i + kParts / 2] = hn::BitCast(PackTag(), hn::And(both, hn::Set(d, 0xffff0000u)));
    }
  }
#endif
  return result;
}

// How far ahead weights are asked for, where the processor's own prefetching of one or two streams
// is too slow: four kilobytes.
template <typename W>
inline constexpr int32_t kAhead = 4096 / static_cast<int32_t>(sizeof(W));

// What a tile asks memory for: nothing; the weights that it reads itself a little later (kAhead);
// or a line of something else (`next`) each kNextSteps k.
enum class Ask { kNothing, kAhead, kNext };
inline constexpr int32_t kNextSteps = 8;
inline constexpr int32_t kLineBytes = 64;

// Rows times groups over one stretch of `count` k. `first`: the outputs are made, else added to.
template <int kRows, int kGroups, Ask kAsk, typename W>
HWY_INLINE void PanelTile(const float* HWY_RESTRICT x, int64_t x_stride, const W* HWY_RESTRICT w,
                          int64_t group_stride, int32_t count, bool first, float* HWY_RESTRICT out,
                          int64_t out_stride, const std::byte* next = nullptr) {
  Pack sum[kRows][kGroups];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) sum[r][g] = Zero();
  }
  // Rows are found at the same distances from two places: twelve distances from one would not leave
  // the loop registers enough. The empty instruction hides that the one place follows the other.
  constexpr int kHalf = kRows > 6 ? kRows / 2 : kRows;
  const float* later = x + kHalf * x_stride;
  __asm__("" : "+r"(later));
  const auto step = [&](int32_t k) HWY_ATTR {
    Pack weight[kGroups];
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      const W* const at = w + g * group_stride + k * kPack;
      if constexpr (kAsk == Ask::kAhead) hwy::Prefetch(at + kAhead<W>);
      weight[g] = LoadColumns(at);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const float* const from = r < kHalf ? x + r * x_stride : later + (r - kHalf) * x_stride;
      const PackVec in = hn::Set(PackTag(), from[k]);
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 16
        for (int i = 0; i < kParts; ++i) {
          sum[r][g].part[i] = hn::MulAdd(in, weight[g].part[i], sum[r][g].part[i]);
        }
      }
    }
  };
  int32_t k = 0;
  if constexpr (kAsk == Ask::kNext) {
    for (; k + kNextSteps <= count; k += kNextSteps, next += kLineBytes) {
      __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 1
      for (int i = 0; i < kNextSteps; ++i) step(k + i);
    }
  }
  for (; k < count; ++k) step(k);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      float* to = out + r * out_stride + g * kPack;
      Store(first ? sum[r][g] : Add(Load(to), sum[r][g]), to);
    }
  }
}

// kAsk: the weights come from memory.
template <int kRows, bool kAsk, typename W>
HWY_NOINLINE void PanelRows(const float* x, int64_t x_stride, const W* w, int64_t group_stride,
                            int32_t groups, int32_t count, bool first, float* out,
                            int64_t out_stride) {
  constexpr int kGroups = SideBySide(kRows);
  int32_t g = 0;
  const auto take = [&](auto side_by_side) HWY_ATTR {
    constexpr int kTaken = decltype(side_by_side)::value;
    for (; g + kTaken <= groups; g += kTaken) {
      PanelTile<kRows, kTaken, kAsk ? Ask::kAhead : Ask::kNothing>(
          x, x_stride, w + g * group_stride, group_stride, count, first, out + g * kPack,
          out_stride);
    }
  };
  if constexpr (kGroups >= 4) take(std::integral_constant<int, 4>());
  if constexpr (kGroups >= 3) take(std::integral_constant<int, 3>());
  if constexpr (kGroups >= 2) take(std::integral_constant<int, 2>());
  take(std::integral_constant<int, 1>());
}

// Rows times groups over the whole of k.
template <bool kStream, int32_t kOwnStretch, typename W>
void PanelBlock(const float* x, int64_t x_stride, int32_t rows, const W* w, int32_t groups,
                int32_t inputs, float* out, int64_t out_stride) {
  const int64_t group_stride = int64_t{inputs} * kPack;
  for (int32_t k = 0; k < inputs; k += kOwnStretch) {
    const int32_t count = std::min(kOwnStretch, inputs - k);
    int32_t r = 0;
    const auto take = [&](auto side_by_side) HWY_ATTR {
      constexpr int kRows = decltype(side_by_side)::value;
      for (; r + kRows <= rows; r += kRows) {
        // Later rows find the weights in a cache, from which asking ahead would drive others.
        const auto multiply = r == 0 ? PanelRows<kRows, kStream, W> : PanelRows<kRows, false, W>;
        multiply(x + r * x_stride + k, x_stride, w + int64_t{k} * kPack, group_stride, groups,
                 count, k == 0, out + r * out_stride, out_stride);
      }
    };
    if constexpr (kPanelRows == 12) take(std::integral_constant<int, 12>());
    take(std::integral_constant<int, 6>());
    take(std::integral_constant<int, 4>());
    take(std::integral_constant<int, 2>());
    take(std::integral_constant<int, 1>());
  }
}

// ---- Many rows, where a vector is 16 lanes -------------------------------------------------
// A stretch of some groups is widened to float32 once, where it is in bfloat16, for all rows: three
// instructions a vector that else compete with the multiply-adds every 12 rows. Meanwhile the next
// stretch is asked for: on two cores the third cache gives less than the first 12 rows would take.

inline constexpr int32_t kManyRows = 24;   // from so many on
inline constexpr int32_t kManyGroups = 6;  // at once: 96 KiB of float32

// One group's part of a stretch.
HWY_INLINE void WidenPart(const BFloat16* HWY_RESTRICT from, int32_t count,
                          float* HWY_RESTRICT to) {
  int32_t k = 0;
#if HWY_MAX_BYTES >= 64
  if constexpr (kParts == 1) {
    const hn::Rebind<uint32_t, PackTag> d;
    for (; k + 2 <= count; k += 2) {
      const auto both = hn::LoadU(d, reinterpret_cast<const uint32_t*>(from + k * kPack));
      const auto low = hn::ShiftLeft<16>(both);
      const auto high = hn::And(both, hn::Set(d, 0xffff0000u));
      hn::StoreU(hn::BitCast(PackTag(), hn::ConcatLowerLower(d, high, low)), PackTag(),
                 to + k * kPack);
      hn::StoreU(hn::BitCast(PackTag(), hn::ConcatUpperUpper(d, high, low)), PackTag(),
                 to + (k + 1) * kPack);
    }
  }
#endif
  for (; k < count; ++k) Store(LoadColumns(from + k * kPack), to + k * kPack);
}

// Parts of groups that are needed next, for tiles to ask for.
struct Coming {
  const std::byte* part;  // the first group's
  int64_t group_bytes;    // from one group to the next
  int64_t part_bytes;
  int32_t groups;
  int64_t at = 0;

  // Where a tile that asks for `bytes` begins; null once all has been asked for.
  const std::byte* Take(int64_t bytes) {
    if (groups == 0) return nullptr;
    const std::byte* const from = part + at;
    at += bytes;
    if (at >= part_bytes) {
      at = 0;
      part += group_bytes;
      --groups;
    }
    return from;
  }
};

template <int kRows, int kGroups>
HWY_NOINLINE void ManyTile(const float* x, int64_t x_stride, const float* w, int64_t group_stride,
                           int32_t count, bool first, float* out, int64_t out_stride,
                           const std::byte* next) {
  if (next != nullptr) {
    PanelTile<kRows, kGroups, Ask::kNext>(x, x_stride, w, group_stride, count, first, out,
                                          out_stride, next);
  } else {
    PanelTile<kRows, kGroups, Ask::kNothing>(x, x_stride, w, group_stride, count, first, out,
                                             out_stride);
  }
}

// As MultiplyPanels, of up to kManyGroups groups.
template <typename W>
HWY_NOINLINE void MultiplyMany(const float* x, int64_t x_stride, int32_t rows, const W* w,
                               int32_t groups, int32_t inputs, float* out, int64_t out_stride) {
  constexpr bool kWiden = sizeof(W) != sizeof(float);
  constexpr int64_t kBytesAtK = kPack * sizeof(W);
  alignas(64) float wide[kWiden ? kManyGroups * kStretch * kPack : 1];
  const int64_t group_stride = int64_t{inputs} * kPack;
  for (int32_t k = 0; k < inputs; k += kStretch) {
    const int32_t count = std::min(kStretch, inputs - k);
    const W* const part = w + int64_t{k} * kPack;
    const float* from = nullptr;
    int64_t from_stride = group_stride;
    if constexpr (kWiden) {
      for (int32_t g = 0; g < groups; ++g) {
        WidenPart(part + g * group_stride, count, wide + g * kStretch * kPack);
      }
      from = wide;
      from_stride = kStretch * kPack;
    } else {
      from = part;
    }
    // The next stretch, or the first of the groups after these.
    const int32_t left = inputs - k - count;
    Coming coming{reinterpret_cast<const std::byte*>(left > 0 ? part + kStretch * kPack
                                                              : w + groups * group_stride),
                  inputs * kBytesAtK, std::min(kStretch, left > 0 ? left : inputs) * kBytesAtK,
                  groups};
    int32_t r = 0;
    const auto take = [&](auto side_by_side) HWY_ATTR {
      constexpr int kRows = decltype(side_by_side)::value;
      for (; r + kRows <= rows; r += kRows) {
        const float* const rows_x = x + r * x_stride + k;
        float* const to = out + r * out_stride;
        int32_t g = 0;
        for (; g + 2 <= groups; g += 2) {
          ManyTile<kRows, 2>(rows_x, x_stride, from + g * from_stride, from_stride, count, k == 0,
                             to + g * kPack, out_stride,
                             coming.Take(count / kNextSteps * kLineBytes));
        }
        if (g < groups) {
          ManyTile<kRows, 1>(rows_x, x_stride, from + g * from_stride, from_stride, count, k == 0,
                             to + g * kPack, out_stride,
                             coming.Take(count / kNextSteps * kLineBytes));
        }
      }
    };
    take(std::integral_constant<int, 12>());
    take(std::integral_constant<int, 6>());
    take(std::integral_constant<int, 4>());
    take(std::integral_constant<int, 2>());
    take(std::integral_constant<int, 1>());
  }
}

// out[r * out_stride + c] = x row r . column c, for r < rows and c < 16 * groups; the groups' `w`
// lie one after the other. kStream: they come from memory, and are asked for ahead.
template <bool kStream, int32_t kOwnStretch = kStretch, typename W>
void MultiplyPanels(const float* x, int64_t x_stride, int32_t rows, const W* w, int32_t groups,
                    int32_t inputs, float* out, int64_t out_stride) {
  if constexpr (kParts == 1 && kStream && kOwnStretch == kStretch) {
    if (rows >= kManyRows) {
      for (int32_t g = 0; g < groups; g += kManyGroups) {
        MultiplyMany(x, x_stride, rows, w + int64_t{g} * inputs * kPack,
                     std::min(kManyGroups, groups - g), inputs, out + g * kPack, out_stride);
      }
      return;
    }
  }
  // Few rows: no more groups than are read side by side, so that each is read from end to end.
  // Many: all of them, while the rows of one stretch are in the first cache.
  const int32_t at_once = rows > kPanelRows ? groups : SideBySide(rows);
  for (int32_t g = 0; g < groups; g += at_once) {
    PanelBlock<kStream, kOwnStretch>(x, x_stride, rows, w + int64_t{g} * inputs * kPack,
                                     std::min(at_once, groups - g), inputs, out + g * kPack,
                                     out_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#endif
