#include "kernels/cpu/attend.h"

#include <limits>

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attend.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once a target.
#include "kernels/cpu/dot-inl.h"
#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

// One sequence's k or v of one KV head, found by slot.
template <typename T>
struct Slots {
  const T* data;  // of block 0, this head
  const int32_t* block_table;
  int64_t block_stride;
  int32_t block_size;
  int32_t head_dim;

  const T* At(int32_t slot) const {
    return data + block_table[slot / block_size] * block_stride +
           int64_t{slot % block_size} * head_dim;
  }

  // Calls visit(first slot, data of first slot, count) for each run within one block.
  template <typename Visit>
  HWY_INLINE void EachRun(int32_t first, int32_t last, const Visit& visit) const {
    for (int32_t slot = first; slot <= last;) {
      const int32_t count = std::min(block_size - slot % block_size, last - slot + 1);
      visit(slot, At(slot), count);
      slot += count;
    }
  }
};

// Asks for `count` elements: runs are too short for the processor's own prefetching. kLocality 2:
// into the second cache.
template <int kLocality, typename T>
HWY_INLINE void PrefetchRun(const T* from, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(from + i, 0, kLocality);
}

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
  const int32_t padded = (count + kPack - 1) / kPack * kPack;
  const Pack scale = Broadcast(shape.scale);
  for (int32_t i = count; i < padded; ++i) scores[i] = 0;
  for (int32_t i = 0; i < padded; i += kPack) {
    Pack score = Mul(Load(scores + i), scale);
    if (shape.soft_cap > 0) {
      const Pack cap = Broadcast(shape.soft_cap);
      score = Mul(cap, Tanh(Div(score, cap)));
    }
    Store(score, scores + i);
  }
  for (int32_t i = count; i < padded; ++i) scores[i] = -std::numeric_limits<float>::infinity();
  Pack most = Load(scores);
  for (int32_t i = kPack; i < padded; i += kPack) most = Max(most, Load(scores + i));
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

// ---- Scores ------------------------------------------------------------------------------

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

// The scores of all queries with `count` slots side by side in memory: many queries as lanes, which
// need no sum across a vector; few against slots one by one. The bits are the same.
template <typename T>
HWY_INLINE void ScoreRun(const T* run, int32_t count, const AttendQueries& queries, int32_t dim,
                         float* to) {
  if (queries.by_dim == nullptr) {
    DotBlock(queries.q, dim, queries.rows * queries.heads, run, dim, count, dim, to, kScoreStride);
    return;
  }
  int32_t s = 0;
  for (; s + kScoreSlots <= count; s += kScoreSlots) {
    ScoreSlots<kScoreSlots>(run + int64_t{s} * dim, queries, dim, to + s);
  }
  for (; s < count; ++s) ScoreSlots<1>(run + int64_t{s} * dim, queries, dim, to + s);
}

// Slots whose scores with few queries are computed between two requests for what comes.
inline constexpr int32_t kPrefetchedSlots = 6;

template <typename T>
void AttendSplitOf(const AttentionShape& shape, const KvLayer& kv, const AttendQueries& queries,
                   int32_t split, float* partials, float* scores) {
  const int32_t dim = kv.head_dim;
  const int32_t heads = queries.heads;
  const int32_t split_first = split * kSplitSlots;
  const int32_t split_last = split_first + kSplitSlots - 1;
  // What any row sees: row 0 the earliest slot, the last row the latest.
  const int32_t first = std::max(split_first, FirstSlot(shape, queries.first_position));
  const int32_t last = std::min(split_last, queries.first_position + queries.rows - 1);
  if (first > last) return;
  const Slots<T> keys = SlotsOf<T>(kv, queries, false);
  const Slots<T> values = SlotsOf<T>(kv, queries, true);
  // Few queries wait for memory: what comes, the next run's keys and this one's values, is asked
  // for in small parts, between computing.
  const int32_t part = queries.by_dim == nullptr ? kPrefetchedSlots : kv.block_size;
  keys.EachRun(first, last, [&](int32_t slot, const T* run, int32_t count) HWY_ATTR {
    const int32_t next = slot + count;
    const T* const next_run = next <= last ? keys.At(next) : run;
    const T* const value_run = values.At(slot);
    for (int32_t s = 0; s < count; s += part) {
      const int32_t taken = std::min(part, count - s);
      const int64_t offset = int64_t{s} * dim;
      PrefetchRun<3>(next_run + offset, int64_t{taken} * dim);
      PrefetchRun<2>(value_run + offset, int64_t{taken} * dim);
      ScoreRun(run + offset, taken, queries, dim, scores + (slot + s - first));
    }
  });
  const int64_t stride = PartialFloats(dim);
  const auto first_of = [&](int32_t row) {
    return std::max(first, FirstSlot(shape, queries.first_position + row));
  };
  const auto last_of = [&](int32_t row) { return std::min(last, queries.first_position + row); };
  for (int32_t row = 0; row < queries.rows; ++row) {
    const int32_t count = last_of(row) - first_of(row) + 1;
    if (count <= 0) continue;
    for (int32_t query = row * heads; query < (row + 1) * heads; ++query) {
      float* partial = partials + query * stride;
      SoftmaxScores(shape, count, scores + int64_t{query} * kScoreStride + (first_of(row) - first),
                    &partial[0], &partial[1]);
      std::fill_n(partial + 2, dim, 0.0f);
    }
  }
  // Rows that share most of their slots: those before the first that all of them see, those that
  // all of them see, and those after them.
  const int32_t together = std::max(1, kWeighRows / heads);
  for (int32_t row = 0; row < queries.rows; row += together) {
    const int32_t end = std::min(queries.rows, row + together);
    const auto weigh = [&](int32_t from, int32_t to, int32_t row_begin, int32_t row_end) {
      const int64_t query = int64_t{row_begin} * heads;
      WeighSlots(values, from, to, scores + query * kScoreStride + (from - first),
                 (row_end - row_begin) * heads, partials + query * stride + 2, stride);
    };
    const int32_t common_first = first_of(end - 1);
    const int32_t common_last = last_of(row);
    if (common_first > common_last) {
      for (int32_t r = row; r < end; ++r) weigh(first_of(r), last_of(r), r, r + 1);
      continue;
    }
    for (int32_t r = row; r < end; ++r) weigh(first_of(r), common_first - 1, r, r + 1);
    weigh(common_first, common_last, row, end);
    for (int32_t r = row; r < end; ++r) weigh(common_last + 1, last_of(r), r, r + 1);
  }
}

void AttendSplitTarget(const AttentionShape& shape, const KvLayer& kv, const AttendQueries& queries,
                       int32_t split, float* partials, float* scores) {
  if (kv.dtype == DType::kBFloat16) {
    AttendSplitOf<BFloat16>(shape, kv, queries, split, partials, scores);
  } else {
    AttendSplitOf<float>(shape, kv, queries, split, partials, scores);
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
                 int32_t split, float* partials, float* scores) {
  HWY_DYNAMIC_DISPATCH(AttendSplitTarget)(shape, kv, queries, split, partials, scores);
}

void MergePartial(int32_t head_dim, const float* partial, float* total) {
  HWY_DYNAMIC_DISPATCH(MergePartialTarget)(head_dim, partial, total);
}

void QueriesByDim(const float* q, int32_t queries, int32_t head_dim, float* out) {
  const int64_t group_floats = int64_t{head_dim} * kQueryLanes;
  const int32_t groups = (queries + kQueryLanes - 1) / kQueryLanes;
  std::fill_n(out, groups * group_floats, 0.0f);
  for (int32_t i = 0; i < queries; ++i) {
    float* to = out + i / kQueryLanes * group_floats + i % kQueryLanes;
    for (int32_t d = 0; d < head_dim; ++d) to[d * kQueryLanes] = q[int64_t{i} * head_dim + d];
  }
}

void FinishPartial(int32_t head_dim, const float* total, float* out) {
  for (int32_t i = 0; i < head_dim; ++i) out[i] = total[2 + i] / total[1];
}

}  // namespace sirocco::cpu
#endif  // HWY_ONCE
