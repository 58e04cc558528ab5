#include "kernels/cpu/attend.h"

#include <limits>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attend.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once a target.
#include "kernels/cpu/key_panel-inl.h"
#include "kernels/cpu/panel-inl.h"
#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

template <typename T>
Slots<T> SlotsOf(const KvLayer& kv, const AttendQueries& queries, bool value) {
  const int64_t head = int64_t{queries.kv_head} * kv.block_size * kv.head_dim;
  return {static_cast<const T*>(kv.data) + (value ? kv.value_offset : 0) + head,
          queries.block_table, kv.block_stride, kv.block_size, kv.head_dim};
}

// Turns `count` scores into weights exp(score - maximum); the scores' buffer has room for the
// vector that `count` ends in. Returns maximum and sum.
HWY_INLINE void SoftmaxScores(const AttentionShape& shape, int32_t count, float* scores,
                              float* maximum, float* sum) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const int32_t padded = (count + kPack - 1) / kPack * kPack;
  const Pack scale = Broadcast(shape.scale);
  for (int32_t i = count; i < padded; ++i) scores[i] = 0;
  Pack most = Broadcast(kNone);
  for (int32_t i = 0; i < padded; i += kPack) {
    Pack score = Mul(Load(scores + i), scale);
    if (shape.soft_cap > 0) {
      const Pack cap = Broadcast(shape.soft_cap);
      score = Mul(cap, Tanh(Div(score, cap)));
    }
    Store(score, scores + i);
    if (i + kPack <= count) most = Max(most, score);
  }
  if (count < padded) {
    for (int32_t i = count; i < padded; ++i) scores[i] = kNone;
    most = Max(most, Load(scores + padded - kPack));
  }
  *maximum = MaxOf(most);
  const Pack shift = Broadcast(*maximum);
  Pack total = Zero();
  for (int32_t i = 0; i < padded; i += kPack) {
    const Pack weight = Exp(Sub(Load(scores + i), shift));
    Store(weight, scores + i);
    total = Add(total, weight);
  }
  *sum = Sum(total);
}

// Queries side by side, for whom a slot's vectors are loaded once.
inline constexpr int kWeighRows = 6;

// out[r][d] += the sum over slots first ... last, in order, of weights[r][slot - first] *
// v[slot][d], one chain of fused multiply-adds that goes on from out; for kRows queries and kGroups
// vectors of dimensions from `dim` on, or one that is only `tail` long (0: whole).
template <int kRows, int kGroups, typename T>
HWY_INLINE void WeighTile(const Slots<T>& values, int32_t first, int32_t last, const float* weights,
                          int32_t dim, int tail, float* out, int64_t out_stride) {
  Pack sum[kRows][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      const float* from = out + r * out_stride + dim + g * kPack;
      sum[r][g] = tail == 0 ? Load(from) : LoadFirst(from, tail);
    }
  }
  values.EachRun(first, last, [&](int32_t slot, const T* run, int32_t count) HWY_ATTR {
    const float* weight = weights + (slot - first);
    for (int32_t s = 0; s < count; ++s) {
      Pack value[kGroups];
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        const T* from = run + int64_t{s} * values.head_dim + dim + g * kPack;
        value[g] = tail == 0 ? Load(from) : LoadFirst(from, tail);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const PackVec factor = hn::Set(PackTag(), weight[int64_t{r} * kScoreStride + s]);
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
          for (int i = 0; i < kParts; ++i) {
            sum[r][g].part[i] = hn::MulAdd(factor, value[g].part[i], sum[r][g].part[i]);
          }
        }
      }
    }
  });
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      float* to = out + r * out_stride + dim + g * kPack;
      if (tail == 0) {
        Store(sum[r][g], to);
      } else {
        StoreFirst(sum[r][g], to, tail);
      }
    }
  }
}

// The same for all dimensions.
template <int kRows, typename T>
HWY_NOINLINE void WeighRows(const Slots<T>& values, int32_t first, int32_t last,
                            const float* weights, float* out, int64_t out_stride) {
  constexpr int kGroups = SideBySide(kRows);
  const int32_t dim = values.head_dim;
  int32_t d = 0;
  for (; d + kGroups * kPack <= dim; d += kGroups * kPack) {
    WeighTile<kRows, kGroups>(values, first, last, weights, d, 0, out, out_stride);
  }
  for (; d + kPack <= dim; d += kPack) {
    WeighTile<kRows, 1>(values, first, last, weights, d, 0, out, out_stride);
  }
  if (d < dim) WeighTile<kRows, 1>(values, first, last, weights, d, dim - d, out, out_stride);
}

// Any number of queries that see the same slots.
template <typename T>
void WeighSlots(const Slots<T>& values, int32_t first, int32_t last, const float* weights,
                int32_t queries, float* out, int64_t out_stride) {
  if (first > last) return;
  int32_t q = 0;
  const auto take = [&](auto count) HWY_ATTR {
    constexpr int kRows = decltype(count)::value;
    for (; q + kRows <= queries; q += kRows) {
      WeighRows<kRows>(values, first, last, weights + int64_t{q} * kScoreStride,
                       out + q * out_stride, out_stride);
    }
  };
  take(std::integral_constant<int, kWeighRows>());
  take(std::integral_constant<int, 3>());
  take(std::integral_constant<int, 2>());
  take(std::integral_constant<int, 1>());
}

// Slots first ... last in float32, one after the other.
template <typename T>
void WidenSlots(const Slots<T>& slots, int32_t first, int32_t last, float* to) {
  const int64_t dim = slots.head_dim;
  slots.EachRun(first, last, [&](int32_t slot, const T* run, int32_t count) HWY_ATTR {
    float* const out = to + (slot - first) * dim;
    const int64_t elements = count * dim;
    int64_t i = 0;
    for (; i + kPack <= elements; i += kPack) Store(Load(run + i), out + i);
    for (; i < elements; ++i) out[i] = ToFloat(run[i]);
  });
}

// Of one split, what queries see: row 0 the earliest slot, the last row the latest.
struct Seen {
  const AttentionShape& shape;
  const AttendQueries& queries;
  int32_t first;  // of any row
  int32_t last;

  Seen(const AttentionShape& of_shape, const AttendQueries& of_queries, int32_t split)
      : shape(of_shape), queries(of_queries) {
    first = std::max(split * kSplitSlots, FirstSlot(shape, queries.first_position));
    last = std::min((split + 1) * kSplitSlots, queries.first_position + queries.rows) - 1;
  }
  int32_t FirstOf(int32_t row) const {
    return std::max(first, FirstSlot(shape, queries.first_position + row));
  }
  int32_t LastOf(int32_t row) const { return std::min(last, queries.first_position + row); }
};

// The partials' values, from the weights. `values` counts slots from `zero` on.
template <typename T>
void WeighAll(const Seen& seen, const Slots<T>& values, int32_t zero, const float* weights,
              float* partials) {
  const int32_t heads = seen.queries.heads;
  const int64_t stride = PartialFloats(values.head_dim);
  // Rows that share most of their slots: those before the first that all of them see, those that
  // all of them see, and those after them.
  const int32_t together = std::max(1, kWeighRows / heads);
  for (int32_t row = 0; row < seen.queries.rows; row += together) {
    const int32_t end = std::min(seen.queries.rows, row + together);
    const auto weigh = [&](int32_t from, int32_t to, int32_t row_begin, int32_t row_end) {
      const int64_t query = int64_t{row_begin} * heads;
      WeighSlots(values, from - zero, to - zero,
                 weights + query * kScoreStride + (from - seen.first),
                 (row_end - row_begin) * heads, partials + query * stride + 2, stride);
    };
    const int32_t common_first = seen.FirstOf(end - 1);
    const int32_t common_last = seen.LastOf(row);
    if (common_first > common_last) {
      for (int32_t r = row; r < end; ++r) weigh(seen.FirstOf(r), seen.LastOf(r), r, r + 1);
      continue;
    }
    for (int32_t r = row; r < end; ++r) weigh(seen.FirstOf(r), common_first - 1, r, r + 1);
    weigh(common_first, common_last, row, end);
    for (int32_t r = row; r < end; ++r) weigh(common_last + 1, seen.LastOf(r), r, r + 1);
  }
}

template <typename T>
void AttendSplitOf(const AttentionShape& shape, const KvLayer& kv, const AttendQueries& queries,
                   int32_t split, float* partials, const AttendScratch& scratch) {
  const int32_t heads = queries.heads;
  const int32_t all = queries.rows * heads;
  const Seen seen(shape, queries, split);
  if (seen.first > seen.last) return;
  const Slots<T> keys = SlotsOf<T>(kv, queries, false);
  const Slots<T> values = SlotsOf<T>(kv, queries, true);
  ScoreSlots(keys, values, seen.first, seen.last, queries, scratch.keys, scratch.scores);
  for (int32_t row = 0; row < queries.rows; ++row) {
    const int32_t first = seen.FirstOf(row);
    const int32_t count = seen.LastOf(row) - first + 1;
    if (count <= 0) continue;
    for (int32_t query = row * heads; query < (row + 1) * heads; ++query) {
      float* partial = partials + query * PartialFloats(kv.head_dim);
      SoftmaxScores(shape, count,
                    scratch.scores + int64_t{query} * kScoreStride + (first - seen.first),
                    &partial[0], &partial[1]);
      std::fill_n(partial + 2, kv.head_dim, 0.0f);
    }
  }
  if (all < kWidenQueries) {
    WeighAll(seen, values, 0, scratch.scores, partials);
    return;
  }
  static constexpr int32_t kOnlyBlock = 0;
  WidenSlots(values, seen.first, seen.last, scratch.values);
  const Slots<float> wide = {scratch.values, &kOnlyBlock, 0, kSplitSlots, kv.head_dim};
  WeighAll(seen, wide, seen.first, scratch.scores, partials);
}

void AttendSplitTarget(const AttentionShape& shape, const KvLayer& kv, const AttendQueries& queries,
                       int32_t split, float* partials, const AttendScratch& scratch) {
  if (kv.dtype == DType::kBFloat16) {
    AttendSplitOf<BFloat16>(shape, kv, queries, split, partials, scratch);
  } else {
    AttendSplitOf<float>(shape, kv, queries, split, partials, scratch);
  }
}

void MergePartialTarget(int32_t head_dim, const float* partial, float* total) {
  const float maximum = std::max(total[0], partial[0]);
  float factors[kPack] = {total[0] - maximum, partial[0] - maximum};
  Store(Exp(Load(factors)), factors);
  total[0] = maximum;
  total[1] = total[1] * factors[0] + partial[1] * factors[1];
  for (int32_t i = 2; i < head_dim + 2; ++i) {
    total[i] = total[i] * factors[0] + partial[i] * factors[1];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sirocco::cpu {

HWY_EXPORT(AttendSplitTarget);
HWY_EXPORT(MergePartialTarget);

void AttendSplit(const AttentionShape& shape, const KvLayer& kv, const AttendQueries& queries,
                 int32_t split, float* partials, const AttendScratch& scratch) {
  if (kv.dtype != DType::kFloat8) {
    HWY_DYNAMIC_DISPATCH(AttendSplitTarget)
    (shape, kv, queries, split, partials, scratch);
    return;
  }
  // As one block of float32, with positions counted from its first slot.
  static constexpr int32_t kOnlyBlock = 0;
  const int32_t begin = split * kSplitSlots;
  KvLayer wide = {.data = scratch.widened,
                  .value_offset = int64_t{kSplitSlots} * kv.head_dim,
                  .block_size = kSplitSlots,
                  .kv_heads = 1,
                  .head_dim = kv.head_dim};
  AttendQueries counted = queries;
  counted.first_position -= begin;
  counted.kv_head = 0;
  counted.block_table = &kOnlyBlock;
  const int32_t last = std::min(kSplitSlots, counted.first_position + queries.rows) - 1;
  for (int32_t slot = FirstSlot(shape, counted.first_position); slot <= last; ++slot) {
    for (const bool value : {false, true}) {
      LoadFloat8Kv(kv, queries.block_table, begin + slot, queries.kv_head, value,
                   scratch.widened + (value ? wide.value_offset : 0) + int64_t{slot} * kv.head_dim);
    }
  }
  HWY_DYNAMIC_DISPATCH(AttendSplitTarget)
  (shape, wide, counted, 0, partials, scratch);
}

void MergePartial(int32_t head_dim, const float* partial, float* total) {
  HWY_DYNAMIC_DISPATCH(MergePartialTarget)(head_dim, partial, total);
}

void FinishPartial(int32_t head_dim, const float* total, float* out) {
  for (int32_t i = 0; i < head_dim; ++i) out[i] = total[2 + i] / total[1];
}

}  // namespace sirocco::cpu
#endif  // HWY_ONCE
