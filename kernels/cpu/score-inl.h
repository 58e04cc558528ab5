// Scores of queries with the keys of a run of slots: few queries with slots side by side, or many
// queries as the lanes of vectors, which need no sum across one. The bits are the same.
//
// Included once a target by Highway's foreach_target; no ordinary include guard.
#if defined(SIROCCO_KERNELS_CPU_SCORE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SIROCCO_KERNELS_CPU_SCORE_INL_H_
#undef SIROCCO_KERNELS_CPU_SCORE_INL_H_
#else
#define SIROCCO_KERNELS_CPU_SCORE_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cpu/attend.h"
#include "kernels/cpu/dot-inl.h"
#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

// ---- Many queries ------------------------------------------------------------------------

static_assert(kQueryLanes == kPack);
// Groups of 16 queries side by side.
inline constexpr int kScoreGroups = kParts == 1 ? 2 : 1;

// Dot products of kSlots rows of k, in float32, with kGroups groups of 16 queries (AttendQueries::
// by_dim): for each element what DotTile does, 16 chains along the dimensions and their sum by
// Sum's tree, here one chain after the other. to[query][slot].
template <int kSlots, int kGroups>
HWY_INLINE void ScoreTile(const float* HWY_RESTRICT k, int32_t dim, const float* HWY_RESTRICT q,
                          int32_t queries, float* HWY_RESTRICT to) {
  // Chain j and chain j + 8 are added, then sums whose j differ by 4, and so on: in the order of j
  // with its bits reversed, what is to be added next is always the sum made last.
  constexpr int kOrder[kPack] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};
  float by_slot[kSlots][kGroups * kPack];
  // Through memory: a Pack that is indexed at run time would be copied piece by piece.
  float waiting[4][kSlots][kGroups * kPack];
  Pack sum[kSlots][kGroups];
  for (int n = 0; n < kPack; ++n) {
#pragma GCC unroll 4
    for (int s = 0; s < kSlots; ++s) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) sum[s][g] = Zero();
    }
    for (int32_t d = kOrder[n]; d < dim; d += kPack) {
      Pack in[kGroups];
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) in[g] = Load(q + (int64_t{g} * dim + d) * kPack);
#pragma GCC unroll 4
      for (int s = 0; s < kSlots; ++s) {
        const PackVec element = hn::Set(PackTag(), k[int64_t{s} * dim + d]);
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
          for (int i = 0; i < kParts; ++i) {
            sum[s][g].part[i] = hn::MulAdd(element, in[g].part[i], sum[s][g].part[i]);
          }
        }
      }
    }
    int level = 0;
    for (; (n >> level & 1) != 0; ++level) {
#pragma GCC unroll 4
      for (int s = 0; s < kSlots; ++s) {
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
          sum[s][g] = Add(Load(waiting[level][s] + g * kPack), sum[s][g]);
        }
      }
    }
    float(*const to_wait)[kGroups * kPack] = level < 4 ? waiting[level] : by_slot;
#pragma GCC unroll 4
    for (int s = 0; s < kSlots; ++s) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) Store(sum[s][g], to_wait[s] + g * kPack);
    }
  }
  for (int32_t i = 0; i < std::min(queries, kGroups * kPack); ++i) {
    for (int s = 0; s < kSlots; ++s) to[int64_t{i} * kScoreStride + s] = by_slot[s][i];
  }
}

// The scores of all queries with kSlots rows of k.
template <int kSlots, typename T>
HWY_NOINLINE void ScoreSlots(const T* k, const AttendQueries& queries, int32_t dim, float* to) {
  const float* rows = nullptr;
  if constexpr (sizeof(T) == sizeof(float)) {
    rows = k;
  } else {
    const int32_t count = kSlots * dim;
    int32_t i = 0;
    for (; i + kPack <= count; i += kPack) Store(Load(k + i), queries.key_rows + i);
    for (; i < count; ++i) queries.key_rows[i] = k[i].ToFloat();
    rows = queries.key_rows;
  }
  const int32_t all = queries.rows * queries.heads;
  int32_t i = 0;
  for (; i + kPack < all; i += kScoreGroups * kPack) {
    ScoreTile<kSlots, kScoreGroups>(rows, dim, queries.by_dim + int64_t{i} * dim, all - i,
                                    to + int64_t{i} * kScoreStride);
  }
  if (i < all) {
    ScoreTile<kSlots, 1>(rows, dim, queries.by_dim + int64_t{i} * dim, all - i,
                         to + int64_t{i} * kScoreStride);
  }
}

// ---- Few queries -------------------------------------------------------------------------

// What is needed after a run of keys, slot by slot: the next run's keys and this one's values. Runs
// are too short for the processor's own prefetching.
template <typename T>
struct Coming {
  const T* keys;
  const T* values;

  // Asks for `count` elements from `first` on: keys at once, values for the second cache.
  HWY_INLINE void Ask(int64_t first, int64_t count) const {
    constexpr int64_t kLine = 64 / sizeof(T);
    for (int64_t i = first; i < first + count; i += kLine) {
      __builtin_prefetch(keys + i, 0, 3);
      __builtin_prefetch(values + i, 0, 2);
    }
  }
};

// Slots side by side for `queries`: as many sums as the vector registers hold.
constexpr int SlotsTogether(int queries) {
  return kParts == 1 ? (queries == 1 ? 8 : 4) : queries == 1 ? 4 : queries == 2 ? 3 : 2;
}

// kQueries queries with `count` slots. `coming`: asked for between computing, evenly, since the
// processor waits where too much is asked for at once. Null: another call does.
template <int kQueries, typename T>
HWY_NOINLINE void ScoreFew(const float* q, const T* run, int32_t count, int32_t dim,
                           const Coming<T>* coming, float* to) {
  int32_t s = 0;
  const auto take = [&](auto slots) HWY_ATTR {
    constexpr int kSlots = decltype(slots)::value;
    for (; s + kSlots <= count; s += kSlots) {
      const int64_t at = int64_t{s} * dim;
      if (coming != nullptr) coming->Ask(at, kSlots * dim);
      DotTile<kQueries, kSlots>(q, dim, run + at, dim, dim, to + s, kScoreStride);
    }
  };
  take(std::integral_constant<int, SlotsTogether(kQueries)>());
  take(std::integral_constant<int, 1>());
}

// The scores of all queries with `count` slots side by side in memory.
template <typename T>
HWY_INLINE void ScoreRun(const T* run, int32_t count, const AttendQueries& queries, int32_t dim,
                         const Coming<T>& coming, float* to) {
  if (queries.by_dim != nullptr) {
    coming.Ask(0, int64_t{count} * dim);
    int32_t s = 0;
    for (; s + kScoreSlots <= count; s += kScoreSlots) {
      ScoreSlots<kScoreSlots>(run + int64_t{s} * dim, queries, dim, to + s);
    }
    for (; s < count; ++s) ScoreSlots<1>(run + int64_t{s} * dim, queries, dim, to + s);
    return;
  }
  const int32_t all = queries.rows * queries.heads;
  int32_t i = 0;
  const auto take = [&](auto together) HWY_ATTR {
    constexpr int kQueries = decltype(together)::value;
    for (; i + kQueries <= all; i += kQueries) {
      ScoreFew<kQueries>(queries.q + int64_t{i} * dim, run, count, dim, i == 0 ? &coming : nullptr,
                         to + int64_t{i} * kScoreStride);
    }
  };
  take(std::integral_constant<int, 3>());
  take(std::integral_constant<int, 2>());
  take(std::integral_constant<int, 1>());
}

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#endif
