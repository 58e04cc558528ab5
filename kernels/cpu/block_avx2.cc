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
// Four activations, for every weight row of the vector.
inline __m256i BroadcastWord(const int8_t* from) {
  int32_t word;
  __builtin_memcpy(&word, from, sizeof(word));
  return _mm256_set1_epi32(word);
}

// Sums of one block column: rows x (8 * kHalves) weight rows, in int32.
template <DType kType, int kRows, int kHalves>
inline void MultiplyBlock(const std::byte* words, const int8_t* const (&x)[kRows],
                          __m256i (&products)[kRows][kHalves]) {
  constexpr int kWords = WordsOf(kType);
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (kType == DType::kQ8_0) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) products[r][h] = _mm256_setzero_si256();
    }
#pragma GCC unroll 8
    for (int w = 0; w < kWords; ++w) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const __m256i q = LoadWords(words + 4 * (w * kGroupRows + h * kLanes));
        const __m256i magnitude = _mm256_abs_epi8(q);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const __m256i turned = _mm256_sign_epi8(BroadcastWord(x[r] + 4 * w), q);
          const __m256i pairs = _mm256_maddubs_epi16(magnitude, turned);
          products[r][h] = _mm256_add_epi32(products[r][h], _mm256_madd_epi16(pairs, ones));
        }
      }
    }
  } else {
    const __m256i low_bits = _mm256_set1_epi8(15);
    __m256i pairs[kRows][kHalves];
#pragma GCC unroll 4
    for (int w = 0; w < kWords; ++w) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const __m256i q = LoadWords(words + 4 * (w * kGroupRows + h * kLanes));
        const __m256i low = _mm256_and_si256(q, low_bits);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(q, 4), low_bits);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const __m256i a = _mm256_maddubs_epi16(low, BroadcastWord(x[r] + 4 * w));
          const __m256i b =
              _mm256_maddubs_epi16(high, BroadcastWord(x[r] + kBlockElements / 2 + 4 * w));
          const __m256i both = _mm256_add_epi16(a, b);
          pairs[r][h] = w == 0 ? both : _mm256_add_epi16(pairs[r][h], both);
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) products[r][h] = _mm256_madd_epi16(pairs[r][h], ones);
    }
  }
}

// Rows [first, first + kRows) with the weight rows from 8 * `half` on.
template <DType kType, int kRows, int kHalves>
void MultiplyRows(const GroupProduct& product, int32_t first, int half) {
  const int8_t* x[kRows];
  const BlockScale* scales[kRows];
  __m256 sums[kRows][kHalves];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    x[r] = product.x.values(product.first_row + first + r);
    scales[r] = product.x.scales(product.first_row + first + r);
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) sums[r][h] = _mm256_setzero_ps();
  }
  const std::byte* block = product.group;
  const int32_t blocks = product.x.blocks();
  for (int32_t b = 0; b < blocks; ++b, block += GroupBlockBytes(kType)) {
    PrefetchAfter(block, kType);
    __m256i products[kRows][kHalves];
    MultiplyBlock<kType, kRows, kHalves>(block + WordsAt(kType) + 4 * half * kLanes, x, products);
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      const std::byte* halves = block + 2 * (half + h) * kLanes;
      const __m256 d = LoadHalves(halves);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        __m256i exact = products[r][h];
        if constexpr (kType == DType::kQ4_0) {
          exact = _mm256_sub_epi32(exact, _mm256_set1_epi32(8 * scales[r][b].total));
        }
        const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(scales[r][b].scale));
        sums[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(exact), scale, sums[r][h]);
        if constexpr (kType == DType::kQ4_1) {
          sums[r][h] = _mm256_fmadd_ps(LoadHalves(halves + MinimaAt()),
                                       _mm256_set1_ps(scales[r][b].scaled_total), sums[r][h]);
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) x[r] += kBlockElements;
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      _mm256_storeu_ps(product.out + (first + r) * product.out_stride + (half + h) * kLanes,
                       sums[r][h]);
    }
  }
}

template <DType kType>
void MultiplyGroupOf(const GroupProduct& product) {
  int32_t r = 0;
  for (; r + 4 <= product.rows; r += 4) {
    MultiplyRows<kType, 4, 1>(product, r, 0);
    MultiplyRows<kType, 4, 1>(product, r, 1);
  }
  if (r + 2 <= product.rows) {
    MultiplyRows<kType, 2, 2>(product, r, 0);
    r += 2;
  }
  if (r < product.rows) MultiplyRows<kType, 1, 2>(product, r, 0);
}

}  // namespace

void MultiplyGroupAvx2(const GroupProduct& product) {
  switch (product.type) {
    case DType::kQ8_0:
      return MultiplyGroupOf<DType::kQ8_0>(product);
    case DType::kQ4_0:
      return MultiplyGroupOf<DType::kQ4_0>(product);
    default:
      return MultiplyGroupOf<DType::kQ4_1>(product);
  }
}

}  // namespace sirocco::cpu

#pragma GCC pop_options

#else

namespace sirocco::cpu {
void MultiplyGroupAvx2(const GroupProduct& product) { MultiplyGroupPortable(product); }
}  // namespace sirocco::cpu

#endif
