// Products of blocks with AVX512_VNNI, which sums four products of unsigned with signed bytes into
// int32: no pair can saturate. q of Q8_0 becomes unsigned by 128, taken back by the total of the
// activations.
#include "kernels/cpu/block_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#pragma GCC push_options
// Tests emulate the instructions (tests/kernels/vnni_test.cc); nothing else may use them then.
#if !defined(SIROCCO_EMULATED_AVX512)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")
#endif
// GCC 12's intrinsics themselves hold undefined vectors (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace sirocco::cpu {
namespace {

inline __m512i LoadWords(const std::byte* from) { return _mm512_loadu_si512(from); }
inline __m512 LoadHalves(const std::byte* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

// Sums of one block column: rows x 16 weight rows.
template <DType kType, int kRows>
inline void MultiplyBlock(const std::byte* words, const BlockRows<kRows>& rows,
                          __m512i (&products)[kRows]) {
  constexpr int kWords = WordsOf(kType);
#pragma GCC unroll 8
  for (int w = 0; w < kWords; ++w) {
    const __m512i q = LoadWords(words + 4 * w * kGroupRows);
    if constexpr (kType == DType::kQ8_0) {
      const __m512i raised = _mm512_xor_si512(q, _mm512_set1_epi8(-128));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        products[r] =
            _mm512_dpbusd_epi32(products[r], raised, _mm512_set1_epi32(rows.WordOf(r, 4 * w)));
      }
    } else {
      const __m512i low_bits = _mm512_set1_epi8(15);
      const __m512i low = _mm512_and_si512(q, low_bits);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(q, 4), low_bits);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        products[r] =
            _mm512_dpbusd_epi32(products[r], low, _mm512_set1_epi32(rows.WordOf(r, 4 * w)));
        products[r] = _mm512_dpbusd_epi32(
            products[r], high, _mm512_set1_epi32(rows.WordOf(r, kBlockElements / 2 + 4 * w)));
      }
    }
  }
}

// What the unsigned form of q has too much, for each unit of the activations' total.
constexpr int32_t Raised(DType type) {
  return type == DType::kQ8_0 ? 128 : type == DType::kQ4_0 ? 8 : 0;
}

template <DType kType, int kRows>
void MultiplyRows(const GroupProduct& product, int32_t first) {
  BlockRows<kRows> rows(product, first);
  __m512 sums[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  const std::byte* block = product.group;
  const int32_t blocks = product.x.blocks();
  for (int32_t b = 0; b < blocks; ++b, block += GroupBlockBytes(kType)) {
    PrefetchAfter(block, kType);
    __m512i products[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      products[r] = _mm512_set1_epi32(-Raised(kType) * rows.scales[r][b].total);
    }
    MultiplyBlock<kType, kRows>(block + WordsAt(kType), rows, products);
    const __m512 d = LoadHalves(block);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(rows.scales[r][b].scale));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[r]), scale, sums[r]);
      if constexpr (kType == DType::kQ4_1) {
        sums[r] = _mm512_fmadd_ps(LoadHalves(block + MinimaAt()),
                                  _mm512_set1_ps(rows.scales[r][b].scaled_total), sums[r]);
      }
    }
    rows.NextBlock();
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    _mm512_storeu_ps(product.out + (first + r) * product.out_stride, sums[r]);
  }
}

template <DType kType>
void MultiplyOne(const GroupProduct& product) {
  int32_t r = 0;
  for (; r + 8 <= product.rows; r += 8) MultiplyRows<kType, 8>(product, r);
  if (r + 4 <= product.rows) {
    MultiplyRows<kType, 4>(product, r);
    r += 4;
  }
  if (r + 2 <= product.rows) {
    MultiplyRows<kType, 2>(product, r);
    r += 2;
  }
  if (r < product.rows) MultiplyRows<kType, 1>(product, r);
}

template <DType kType>
void MultiplyGroupOf(const GroupProduct& product) {
  for (int32_t g = 0; g < product.groups; ++g) MultiplyOne<kType>(GroupOf(product, g));
}

}  // namespace

void MultiplyGroupVnni(const GroupProduct& product) {
  ForBlockType(product.type, [&](auto type) { MultiplyGroupOf<type()>(product); });
}

}  // namespace sirocco::cpu

#pragma GCC pop_options

#else

namespace sirocco::cpu {
void MultiplyGroupVnni(const GroupProduct& product) { MultiplyGroupPortable(product); }
}  // namespace sirocco::cpu

#endif
