// What blocks of one running kernel leave for each other: words of 8 bytes, a value and a tag,
// stored and loaded whole. Who needs a word reads it until its tag is the one that is wanted: no
// flag beside it, no fence, one way through the L2 cache. As NCCL's low-latency protocol does it.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

__device__ __forceinline__ void StoreWord(uint64_t* to, uint32_t value, uint32_t tag) {
  const uint64_t word = uint64_t{tag} << 32 | value;
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"(word) : "memory");
}
__device__ __forceinline__ void StoreWord(uint64_t* to, float value, uint32_t tag) {
  StoreWord(to, __float_as_uint(value), tag);
}
// Of two words that lie together, aligned to 16 bytes.
__device__ __forceinline__ void StoreTwoWords(uint64_t* to, float a, float b, uint32_t tag) {
  const uint64_t first = uint64_t{tag} << 32 | __float_as_uint(a);
  const uint64_t second = uint64_t{tag} << 32 | __float_as_uint(b);
  asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(to), "l"(first), "l"(second)
               : "memory");
}
struct TwoWords {
  uint64_t at[2];

  __device__ __forceinline__ bool Has(uint32_t tag) const {
    return static_cast<uint32_t>(at[0] >> 32) == tag && static_cast<uint32_t>(at[1] >> 32) == tag;
  }
  __device__ __forceinline__ uint32_t bits(int i) const { return static_cast<uint32_t>(at[i]); }
  __device__ __forceinline__ float value(int i) const { return __uint_as_float(bits(i)); }
};
__device__ __forceinline__ TwoWords LoadTwoWords(const uint64_t* from) {
  TwoWords words;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];"
               : "=l"(words.at[0]), "=l"(words.at[1])
               : "l"(from)
               : "memory");
  return words;
}
__device__ __forceinline__ uint64_t LoadWord(const uint64_t* from) {
  uint64_t word;
  asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(word) : "l"(from) : "memory");
  return word;
}

// Takes the pairs i = first, first + step, ... below `pairs`, kMost at most, all of which wait
// together: body(i, j, words) of the j-th.
template <int kMost, typename Body>
__device__ __forceinline__ void TakeWords(const uint64_t* words, int first, int step, int pairs,
                                          uint32_t tag, const Body& body) {
  // Those that there are not are the last again: no branches between loads.
  TwoWords taken[kMost];
  bool all;
  do {
    all = true;
#pragma unroll
    for (int j = 0; j < kMost; ++j) {
      taken[j] = LoadTwoWords(words + 2 * min(first + j * step, pairs - 1));
    }
#pragma unroll
    for (int j = 0; j < kMost; ++j) all = all && taken[j].Has(tag);
  } while (!all);
#pragma unroll
  for (int j = 0; j < kMost; ++j) {
    if (first + j * step < pairs) body(first + j * step, j, taken[j]);
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
