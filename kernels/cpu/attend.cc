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

  // Calls visit(first slot, data of first slot, count) for each run within one block.
  template <typename Visit>
  HWY_INLINE void EachRun(int32_t first, int32_t last, const Visit& visit) const {
    for (int32_t slot = first; slot <= last;) {
      const int32_t within = slot % block_size;
      const int32_t count = std::min(block_size - within, last - slot + 1);
      const T* run =
          data + block_table[slot / block_size] * block_stride + int64_t{within} * head_dim;
      visit(slot, run, count);
      slot += count;
    }
  }
};

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

// out[d] = sum over slots first ... last, in order, of weights[slot - first] * v[slot][d]; for
// kCount vectors of dimensions from `dim` on, the last of them `tail` long (16: whole).
template <int kCount, typename T>
HWY_INLINE void WeighValues(const Slots<T>& values, int32_t first, int32_t last,
                            const float* weights, int32_t dim, int tail, float* out) {
  Pack sum[kCount];
  for (int i = 0; i < kCount; ++i) sum[i] = Zero();
  values.EachRun(first, last, [&](int32_t slot, const T* run, int32_t count) HWY_ATTR {
    for (int32_t s = 0; s < count; ++s) {
      const Pack weight = Broadcast(weights[slot - first + s]);
      const T* value = run + int64_t{s} * values.head_dim + dim;
      for (int i = 0; i < kCount - 1; ++i) {
        sum[i] = MulAdd(weight, Load(value + i * kPack), sum[i]);
      }
      const T* end = value + (kCount - 1) * kPack;
      const Pack whole_or_tail = tail == kPack ? Load(end) : LoadFirst(end, tail);
      sum[kCount - 1] = MulAdd(weight, whole_or_tail, sum[kCount - 1]);
    }
  });
  for (int i = 0; i < kCount - 1; ++i) Store(sum[i], out + dim + i * kPack);
  StoreFirst(sum[kCount - 1], out + dim + (kCount - 1) * kPack, tail);
}

template <typename T>
void AttendSplitOf(const AttentionShape& shape, const KvLayer& kv, const AttendQueries& queries,
                   int32_t split, float* partials, float* scores) {
  const int32_t dim = kv.head_dim;
  const int32_t split_first = split * kSplitSlots;
  const int32_t split_last = split_first + kSplitSlots - 1;
  // What any row sees: row 0 the earliest slot, the last row the latest.
  const int32_t first = std::max(split_first, FirstSlot(shape, queries.first_position));
  const int32_t last = std::min(split_last, queries.first_position + queries.rows - 1);
  if (first > last) return;
  SlotsOf<T>(kv, queries, false)
      .EachRun(first, last, [&](int32_t slot, const T* run, int32_t count) HWY_ATTR {
        DotBlock(queries.q, dim, queries.rows * queries.heads, run, dim, count, dim,
                 scores + (slot - first), kScoreStride);
      });
  const Slots<T> values = SlotsOf<T>(kv, queries, true);
  for (int32_t row = 0; row < queries.rows; ++row) {
    const int32_t position = queries.first_position + row;
    const int32_t row_first = std::max(first, FirstSlot(shape, position));
    const int32_t row_last = std::min(last, position);
    if (row_first > row_last) continue;
    for (int32_t head = 0; head < queries.heads; ++head) {
      const int64_t query = int64_t{row} * queries.heads + head;
      float* weights = scores + query * kScoreStride + (row_first - first);
      float* partial = partials + query * PartialFloats(dim);
      SoftmaxScores(shape, row_last - row_first + 1, weights, &partial[0], &partial[1]);
      float* out = partial + 2;
      for (int32_t d = 0; d < dim; d += 4 * kPack) {
        const int32_t left = std::min(4 * kPack, dim - d);
        const int tail = (left - 1) % kPack + 1;
        switch ((left + kPack - 1) / kPack) {
          case 4:
            WeighValues<4>(values, row_first, row_last, weights, d, tail, out);
            break;
          case 3:
            WeighValues<3>(values, row_first, row_last, weights, d, tail, out);
            break;
          case 2:
            WeighValues<2>(values, row_first, row_last, weights, d, tail, out);
            break;
          default:
            WeighValues<1>(values, row_first, row_last, weights, d, tail, out);
        }
      }
    }
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

void FinishPartial(int32_t head_dim, const float* total, float* out) {
  for (int32_t i = 0; i < head_dim; ++i) out[i] = total[2 + i] / total[1];
}

}  // namespace sirocco::cpu
#endif  // HWY_ONCE
