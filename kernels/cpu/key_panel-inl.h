// Scores of queries with keys. 16 slots stand side by side, as the products read weights
// (panel-inl.h): a query's scores with them are the lanes of a vector, and no sum runs across one.
//
// Included once a target by Highway's foreach_target; no ordinary include guard.
#if defined(SIROCCO_KERNELS_CPU_KEY_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SIROCCO_KERNELS_CPU_KEY_PANEL_INL_H_
#undef SIROCCO_KERNELS_CPU_KEY_PANEL_INL_H_
#else
#define SIROCCO_KERNELS_CPU_KEY_PANEL_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cpu/attend.h"
#include "kernels/cpu/panel-inl.h"
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

HWY_INLINE float ToFloat(float value) { return value; }
HWY_INLINE float ToFloat(BFloat16 value) { return value.ToFloat(); }

// Elements [first, dim) of 16 rows of k, one by one. panel[d][slot].
template <typename T>
void TurnElements(const T* const (&rows)[kPack], int32_t first, int32_t dim, float* panel) {
  for (int i = 0; i < kPack; ++i) {
    for (int32_t d = first; d < dim; ++d) panel[int64_t{d} * kPack + i] = ToFloat(rows[i][d]);
  }
}

#if HWY_MAX_BYTES >= 32
using Words = hn::FixedTag<uint32_t, 8>;

// Word w of vector i becomes word i of vector w.
HWY_INLINE void Turn(hn::Vec<Words> (&v)[8]) {
  const Words words;
  const hn::Repartition<uint64_t, Words> pairs;
  hn::Vec<Words> two[8], four[8];
  for (int i = 0; i < 8; i += 2) {
    two[i] = hn::InterleaveLower(words, v[i], v[i + 1]);
    two[i + 1] = hn::InterleaveUpper(words, v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const auto a = hn::BitCast(pairs, two[i + j]);
      const auto b = hn::BitCast(pairs, two[i + j + 2]);
      four[i + 2 * j] = hn::BitCast(words, hn::InterleaveLower(pairs, a, b));
      four[i + 2 * j + 1] = hn::BitCast(words, hn::InterleaveUpper(pairs, a, b));
    }
  }
  for (int i = 0; i < 4; ++i) {
    v[i] = hn::ConcatLowerLower(words, four[i + 4], four[i]);
    v[i + 4] = hn::ConcatUpperUpper(words, four[i + 4], four[i]);
  }
}

// Of eight words.
template <typename T>
inline constexpr int32_t kWordElements = 32 / static_cast<int32_t>(sizeof(T));
using Floats = hn::FixedTag<float, 8>;

// Elements d ... d + kWordElements - 1 of eight rows, element by element.
template <typename T>
struct EightWords {
  hn::Vec<Words> words[8];

  HWY_INLINE EightWords(const T* const* rows, int32_t d) {
    for (int i = 0; i < 8; ++i) {
      words[i] = hn::LoadU(Words(), reinterpret_cast<const uint32_t*>(rows[i] + d));
    }
    Turn(words);
  }

  // Element d + i of the rows.
  HWY_INLINE hn::Vec<Floats> At(int i) const {
    if constexpr (std::is_same_v<T, float>) {
      return hn::BitCast(Floats(), words[i]);
    } else {  // a word is two elements
      return hn::BitCast(Floats(), i % 2 == 0
                                       ? hn::ShiftLeft<16>(words[i / 2])
                                       : hn::And(words[i / 2], hn::Set(Words(), 0xffff0000u)));
    }
  }
};
#endif

// Where 16 slots' vectors stand, and the keys that are needed two such runs later: memory answers
// more slowly than one is computed. Where there are fewer slots, the last one stands in for the
// rest.
template <typename T>
struct SlotRows {
  const T* keys[kPack];
  const T* values[kPack];  // of the same slots
  const T* next_keys[kPack];

  // Slots first ... last, of those up to `end`.
  HWY_INLINE SlotRows(const Slots<T>& k, const Slots<T>& v, int32_t first, int32_t last,
                      int32_t end) {
    Find(k, first, last, keys);
    Find(v, first, last, values);
    if (last + kPack < end) {
      Find(k, last + 1 + kPack, std::min(end, last + 2 * kPack), next_keys);
    } else {
      std::copy_n(keys, kPack, next_keys);
    }
  }

  // Asks for the later keys and these slots' values, while elements d ... d + count - 1 of eight
  // slots are computed: for as large a part of the eight. Blocks are too short for the processor's
  // own prefetching, and it waits where too much is asked for at once. Slot by slot: memory gives
  // lines faster in the order of their addresses.
  HWY_INLINE void Ask(int half, int32_t d, int32_t count, int32_t dim) const {
    constexpr int32_t kLine = 64 / static_cast<int32_t>(sizeof(T));
    for (int i = half + d * 8 / dim; i < half + std::min(8, (d + count) * 8 / dim); ++i) {
      for (int32_t at = 0; at < dim; at += kLine) {
        __builtin_prefetch(next_keys[i] + at, 0, 3);
        __builtin_prefetch(values[i] + at, 0, 2);
      }
    }
  }

 private:
  static void Find(const Slots<T>& slots, int32_t first, int32_t last, const T* (&rows)[kPack]) {
    slots.EachRun(first, last, [&](int32_t slot, const T* run, int32_t count) HWY_ATTR {
      for (int32_t i = 0; i < count; ++i) {
        rows[slot - first + i] = run + int64_t{i} * slots.head_dim;
      }
    });
    for (int32_t i = last - first + 1; i < kPack; ++i) rows[i] = rows[last - first];
  }
};

// panel[dim][16] of the slots' keys.
template <typename T>
HWY_NOINLINE void KeysByDim(const SlotRows<T>& rows, int32_t dim, float* panel) {
  int32_t d = 0;
#if HWY_MAX_BYTES >= 32
  for (; d + kWordElements<T> <= dim; d += kWordElements<T>) {
    for (int half = 0; half < kPack; half += 8) {
      rows.Ask(half, d, kWordElements<T>, dim);
      const EightWords<T> words(rows.keys + half, d);
      for (int i = 0; i < kWordElements<T>; ++i) {
        hn::StoreU(words.At(i), Floats(), panel + int64_t{d + i} * kPack + half);
      }
    }
  }
#endif
  TurnElements(rows.keys, d, dim, panel);
}

// A score is one chain along so many dimensions, and the chains' sums added up in order.
inline constexpr int32_t kScoreStretch = 32;

#if HWY_MAX_BYTES >= 32
// The scores of kQueries queries with 16 slots, without a panel in between: what MultiplyPanels
// makes of one, chain by chain. to[query][slot].
template <int kQueries, typename T>
HWY_NOINLINE void ScoreFew(const float* q, const SlotRows<T>& rows, int32_t dim, float* to) {
  for (int half = 0; half < kPack; half += 8) {
    hn::Vec<Floats> sum[kQueries];
    for (int i = 0; i < kQueries; ++i) sum[i] = hn::Zero(Floats());
    const auto add = [&](int32_t d, const hn::Vec<Floats>& keys) HWY_ATTR {
#pragma GCC unroll 4
      for (int i = 0; i < kQueries; ++i) {
        sum[i] = hn::MulAdd(hn::Set(Floats(), q[int64_t{i} * dim + d]), keys, sum[i]);
      }
    };
    hn::Vec<Floats> total[kQueries];
    const auto end_stretch = [&](int32_t d) HWY_ATTR {
#pragma GCC unroll 4
      for (int i = 0; i < kQueries; ++i) {
        total[i] = d <= kScoreStretch ? sum[i] : hn::Add(total[i], sum[i]);
        sum[i] = hn::Zero(Floats());
      }
    };
    int32_t d = 0;
    for (; d + kWordElements<T> <= dim;) {
      rows.Ask(half, d, kWordElements<T>, dim);
      const EightWords<T> words(rows.keys + half, d);
#pragma GCC unroll 16
      for (int i = 0; i < kWordElements<T>; ++i) add(d + i, words.At(i));
      d += kWordElements<T>;
      if (d % kScoreStretch == 0) end_stretch(d);
    }
    for (; d < dim;) {
      float keys[8];
      for (int i = 0; i < 8; ++i) keys[i] = ToFloat(rows.keys[half + i][d]);
      add(d, hn::LoadU(Floats(), keys));
      if (++d % kScoreStretch == 0) end_stretch(d);
    }
    if (dim % kScoreStretch != 0) end_stretch(dim);
    for (int i = 0; i < kQueries; ++i) {
      hn::StoreU(total[i], Floats(), to + int64_t{i} * kScoreStride + half);
    }
  }
}
#endif

// From so many queries on a panel is worth its making.
inline constexpr int32_t kManyQueries = HWY_MAX_BYTES >= 32 ? 5 : 1;

// The scores of `queries` queries with 16 slots, where they are few.
template <typename T>
void ScoreFew([[maybe_unused]] const float* q, [[maybe_unused]] int32_t queries,
              [[maybe_unused]] const SlotRows<T>& rows, [[maybe_unused]] int32_t dim,
              [[maybe_unused]] float* to) {
#if HWY_MAX_BYTES >= 32
  if (queries == 4) return ScoreFew<4>(q, rows, dim, to);
  if (queries == 3) return ScoreFew<3>(q, rows, dim, to);
  if (queries == 2) return ScoreFew<2>(q, rows, dim, to);
  ScoreFew<1>(q, rows, dim, to);
#endif
}

// Scores of queries with slots first ... last: scores[query][slot - first], of those slots that a
// query sees, and of others. `panel`: kKeySlots * dim floats of scratch. Asks for the slots'
// values, for whom reads them next.
template <typename T>
void ScoreSlots(const Slots<T>& keys, const Slots<T>& values, int32_t first, int32_t last,
                const AttendQueries& queries, float* panel, float* scores) {
  const int32_t dim = keys.head_dim;
  const int32_t all = queries.rows * queries.heads;
  const bool few = all < kManyQueries;
  int32_t groups = 0;  // in the panel
  for (int32_t slot = first; slot <= last; slot += kPack) {
    const SlotRows<T> rows(keys, values, slot, std::min(last, slot + kPack - 1), last);
    if (few) {
      ScoreFew(queries.q, all, rows, dim, scores + (slot - first));
      continue;
    }
    KeysByDim(rows, dim, panel + int64_t{groups++} * dim * kPack);
    if (groups == kKeySlots / kPack || slot + kPack > last) {
      const int32_t begin = slot - (groups - 1) * kPack;
      // Rows at earlier positions see none of these slots.
      const int64_t blind = int64_t{std::max(0, begin - queries.first_position)} * queries.heads;
      MultiplyPanels<false, kScoreStretch>(
          queries.q + blind * dim, dim, all - static_cast<int32_t>(blind), panel, groups, dim,
          scores + blind * kScoreStride + (begin - first), kScoreStride);
      groups = 0;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#endif
