// Gumbel-max draws (the definition: kernels/cpu/sampler.h). The exact variable takes two logarithms
// in double precision, too dear for every id: each id first gets an estimate in float32, and only
// ids whose estimate is near the highest one are compared exactly. The choice is that of comparing
// all of them exactly.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/sample_row.cuh"
#include "kernels/lanes.h"
#include "kernels/philox.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Scaled logits are (logit - highest) / temperature: 0 at most. A Gumbel variable lies in
// [-3.2, 22.9] (words of 32 bits), so that a winner's scaled logit is above -27; there an estimated
// score is off by less than 10^-4.
inline constexpr float kNearScore = 1.0f / 1024;
inline constexpr float kCannotWin = -27;

__device__ __forceinline__ float ScaledLogit(float logit, float highest, float temperature) {
  return Clamped((logit - highest) / temperature);
}

class Gumbel {
 public:
  using Words = std::array<uint32_t, 4>;

  __device__ explicit Gumbel(const Lane& lane)
      : key_{static_cast<uint32_t>(lane.seed), static_cast<uint32_t>(lane.seed >> 32)},
        position_(static_cast<uint32_t>(lane.length)),
        index_(lane.index) {}

  // Of ids first ... first + 3; `first` is a multiple of 4.
  __device__ __forceinline__ Words WordsFrom(int32_t first) const {
    return Philox({position_, index_, static_cast<uint32_t>(first) / 4, 0}, key_);
  }
  __device__ __forceinline__ uint32_t WordOf(int32_t id) const {
    const Words words = WordsFrom(id & ~3);
    const uint32_t low = (id & 1) != 0 ? words[1] : words[0];
    const uint32_t high = (id & 1) != 0 ? words[3] : words[2];
    return (id & 2) != 0 ? high : low;
  }

  __device__ static double Value(uint32_t word) {
    const double v = (static_cast<double>(word) + 0.5) * 0x1p-32;
    return -log(-log1p(-v));
  }

  // Value within 5 * 10^-5. Near v = 0 a series of -log(1 - v) that ends before v^4 / 4; elsewhere
  // 1 - v from the word's complement, which loses no digits near v = 1.
  __device__ __forceinline__ static float Estimate(uint32_t word) {
    float exponential;
    if (word < 1u << 26) {
      const float v = (static_cast<float>(word) + 0.5f) * 0x1p-32f;
      exponential = v * (1 + v * (0.5f + v * (1.0f / 3)));
    } else {
      exponential = -__logf((static_cast<float>(~word) + 0.5f) * 0x1p-32f);
    }
    return -__logf(exponential);
  }

 private:
  std::array<uint32_t, 2> key_;
  uint32_t position_;
  uint32_t index_;
};

// The ids whose estimates are near the highest, in shared memory and in any order.
struct NearIds {
  // Gumbel variables make it one draw in a thousand that a second id is near, one in a million that
  // a third is, and so on. One that found no room would only not be chosen.
  static constexpr uint32_t kRoom = 256;
  uint32_t count;
  int32_t id[kRoom];
  float scaled[kRoom];
  uint32_t word[kRoom];

  __device__ __forceinline__ void Add(float scaled_logit, uint32_t gumbel_word, int32_t near_id) {
    const uint32_t at = atomicAdd(&count, 1u);
    if (at >= kRoom) return;
    id[at] = near_id;
    scaled[at] = scaled_logit;
    word[at] = gumbel_word;
  }
};

// The near id with the highest exact score, of equal ones the lowest, for all threads.
template <int kThreads>
__device__ __forceinline__ int32_t BestOfNear(const NearIds& near) {
  __syncthreads();
  const uint32_t i = threadIdx.x;
  uint64_t score = 0;  // in the order of the scores; below all
  if (i < min(near.count, NearIds::kRoom)) {
    score = OrderOf(static_cast<double>(near.scaled[i]) + Gumbel::Value(near.word[i]));
  }
  const uint64_t highest = BlockMaxOf<kThreads>(score);
  const bool best = score != 0 && score == highest;
  return static_cast<int32_t>(~BlockMaxOf<kThreads>(best ? ~static_cast<uint32_t>(near.id[i]) : 0));
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
