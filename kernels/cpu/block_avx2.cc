// Products of blocks with AVX2. Bytes are multiplied in pairs (u8 times i8, saturating int16),
// which never saturates here:
//   4 bits: a pair is at most 2 * 15 * 127, and eight of them 30,480
//   8 bits: |q| times the activation with q's sign, 2 * 128 * 127 at most
#include "kernels/cpu/block_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace sirocco::cpu {
namespace {

constexpr int kLanes = 8;  // weight rows a vector

inline __m256i LoadWords(const std::byte* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
inline __m256 LoadHalves(const std::byte* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// Keeps a sum a running one: compilers reorder a block's additions into a tree, all of whose leaves
// then wait in memory, for there are more than registers.
inline void KeepRunning(__m256i& sum) { asm("" : "+x"(sum)); }

// Exact products of one block column with 8 weight rows, for kRows rows: in int32.
template <DType kType, int kRows>
inline void MultiplyBlock(const std::byte* words, const BlockRows<kRows>& rows,
                          __m256i (&products)[kRows]) {
  constexpr int kWords = WordsOf(kType);
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (kType == DType::kQ8_0) {
#pragma GCC unroll 8
    for (int w = 0; w < kWords; ++w) {
      const __m256i q = LoadWords(words + 4 * w * kGroupRows);
      const __m256i magnitude = _mm256_abs_epi8(q);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m256i turned = _mm256_sign_epi8(_mm256_set1_epi32(rows.WordOf(r, 4 * w)), q);
        const __m256i sum = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, turned), ones);
        products[r] = w == 0 ? sum : _mm256_add_epi32(products[r], sum);
        KeepRunning(products[r]);
      }
    }
  } else {
    const __m256i low_bits = _mm256_set1_epi8(15);
    __m256i pairs[kRows];
#pragma GCC unroll 4
    for (int w = 0; w < kWords; ++w) {
      const __m256i q = LoadWords(words + 4 * w * kGroupRows);
      const __m256i low = _mm256_and_si256(q, low_bits);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(q, 4), low_bits);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m256i a = _mm256_maddubs_epi16(low, _mm256_set1_epi32(rows.WordOf(r, 4 * w)));
        const __m256i b = _mm256_maddubs_epi16(
            high, _mm256_set1_epi32(rows.WordOf(r, kBlockElements / 2 + 4 * w)));
        pairs[r] = _mm256_add_epi16(w == 0 ? b : _mm256_add_epi16(pairs[r], b), a);
        KeepRunning(pairs[r]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) products[r] = _mm256_madd_epi16(pairs[r], ones);
  }
}

// Rows [first, first + kRows) with kGroups groups from `group` on, of each kHalves times 8 weight
// rows from 8 * `half` on.
template <DType kType, int kRows, int kGroups, int kHalves>
void MultiplyRows(const GroupProduct& product, int32_t first, int32_t group, int half) {
  BlockRows<kRows> rows(product, first);
  __m256 sums[kGroups][kHalves][kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kGroups * kHalves * kRows; ++i) (&sums[0][0][0])[i] = _mm256_setzero_ps();
  const int32_t blocks = product.x.blocks();
  const int64_t group_bytes = blocks * GroupBlockBytes(kType);
  const std::byte* block = product.group + group * group_bytes;
  for (int32_t b = 0; b < blocks; ++b, block += GroupBlockBytes(kType)) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      const std::byte* const at = block + g * group_bytes;
      PrefetchAfter(at, kType);
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        __m256i products[kRows];
        MultiplyBlock<kType, kRows>(at + WordsAt(kType) + 4 * (half + h) * kLanes, rows, products);
        const std::byte* const halves = at + 2 * (half + h) * kLanes;
        const __m256 d = LoadHalves(halves);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          __m256i exact = products[r];
          if constexpr (kType == DType::kQ4_0) {
            exact = _mm256_sub_epi32(exact, _mm256_set1_epi32(8 * rows.scales[r][b].total));
          }
          __m256& sum = sums[g][h][r];
          const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(rows.scales[r][b].scale));
          sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(exact), scale, sum);
          if constexpr (kType == DType::kQ4_1) {
            sum = _mm256_fmadd_ps(LoadHalves(halves + MinimaAt()),
                                  _mm256_set1_ps(rows.scales[r][b].scaled_total), sum);
          }
        }
      }
    }
    rows.NextBlock();
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    float* out = product.out + (first + r) * product.out_stride + group * kGroupRows;
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        _mm256_storeu_ps(out + g * kGroupRows + (half + h) * kLanes, sums[g][h][r]);
      }
    }
  }
}

// From so many bytes on groups are read side by side: memory gives a single stream less than a core
// can take, but streams that soon end cost more than they bring. (One row of Q4_1 out of memory on
// one core of an AMD Milan: groups of 15 KiB 17 GB/s instead of 14, of 6 KiB 11 instead of 13.)
constexpr int64_t kLongStream = 12 << 10;

// kRows rows with all groups, long ones as many side by side as their sums fit the registers; tiles
// have three groups or six (split.h).
template <DType kType, int kRows>
void MultiplyGroups(const GroupProduct& product, int32_t first) {
  constexpr int kGroups = kRows == 1 ? 3 : 2;
  int32_t g = 0;
  if (product.x.blocks() * GroupBlockBytes(kType) >= kLongStream) {
    for (; g + kGroups <= product.groups; g += kGroups) {
      MultiplyRows<kType, kRows, kGroups, 2>(product, first, g, 0);
    }
  }
  for (; g < product.groups; ++g) MultiplyRows<kType, kRows, 1, 2>(product, first, g, 0);
}

template <DType kType>
void MultiplyGroupOf(const GroupProduct& product) {
  // A group stays in the first cache for all rows.
  const int32_t by_four = product.rows / 4 * 4;
  for (int32_t g = 0; g < product.groups; ++g) {
    for (int32_t r = 0; r < by_four; r += 4) {
      for (int half = 0; half < 2; ++half) MultiplyRows<kType, 4, 1, 1>(product, r, g, half);
    }
  }
  if (product.rows - by_four >= 2) MultiplyGroups<kType, 2>(product, by_four);
  if (product.rows % 2 == 1) MultiplyGroups<kType, 1>(product, product.rows - 1);
}

}  // namespace

void MultiplyGroupAvx2(const GroupProduct& product) {
  ForBlockType(product.type, [&](auto type) { MultiplyGroupOf<type()>(product); });
}

}  // namespace sirocco::cpu

#pragma GCC pop_options

#else

namespace sirocco::cpu {
void MultiplyGroupAvx2(const GroupProduct& product) { MultiplyGroupPortable(product); }
}  // namespace sirocco::cpu

#endif
