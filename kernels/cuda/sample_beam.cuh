// The best ids of a beam whose lane has options, which act on log-probabilities (kLaneBeam).
//
// The row's logits are overwritten: first by their log-probabilities, then by what the options make
// of these. Every thread reads and writes the same ids all the time: no barrier is needed between.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/sample_lane.cuh"
#include "kernels/cuda/sample_options.cuh"
#include "kernels/cuda/sample_row.cuh"
#include "kernels/lanes.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// The same bits for the same x: warps by halving, then in order.
template <int kThreads>
__device__ __forceinline__ double BlockTotalOf(double x) {
  constexpr int kWarps = kThreads / kWarp;
  __shared__ double sums[kWarps];
  x = WarpSum(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < kWarps; ++i) sum += sums[i];
  return sum;
}

// Calls visit(logit, id) for this thread's ids of a row: those that ForEachFour gives it.
template <int kThreads, typename Visit>
__device__ __forceinline__ void ForEachOwn(const float* logits, int32_t vocab, bool aligned,
                                           Visit visit) {
  for (int32_t first = static_cast<int32_t>(threadIdx.x) * 4; first < vocab;
       first += kThreads * 4) {
    const Pack<float, 4> four = LoadFour(logits, first, vocab, aligned, 0.0f);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (first + e < vocab) visit(four.at[e], first + e);
    }
  }
}

template <int kThreads>
__device__ __forceinline__ void ToLogprobs(float* logits, int32_t vocab, bool aligned) {
  float highest = Excluded();
  ForEachOwn<kThreads>(logits, vocab, aligned,
                       [&](float x, int32_t) { highest = fmaxf(highest, Clamped(x)); });
  highest = BlockMaxOf<kThreads>(highest);
  double mass = 0;
  ForEachOwn<kThreads>(logits, vocab, aligned, [&](float x, int32_t) {
    mass += static_cast<double>(expf(Clamped(x) - highest));
  });
  mass = BlockTotalOf<kThreads>(mass);
  const float log_mass = static_cast<float>(highest + log(mass));
  ForEachOwn<kThreads>(logits, vocab, aligned, [&](float x, int32_t id) {
    logits[id] = Clamped(__fsub_rn(Clamped(x), log_mass));
  });
}

// Writes the row's score, and returns the best id, for all threads of the block. `row` reads
// `logits`. With ToLogprobs a row's logits are read five times and written twice, what its options
// need is read twice, and for each id reported the logits are read once more.
template <int kThreads>
__device__ __forceinline__ int32_t ReportBest(OptionRow& row, float* logits, int32_t asked,
                                              TokenScore* out) {
  SettleOptions<kThreads>(row);
  ForEachFour<kThreads>(row, [&](int32_t first, const FourLogits& four) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (first + e < row.vocab) logits[first + e] = four.at[e];
    }
  });
  const int32_t wanted = max(1, min(asked, min(kMaxTopLogprobs, row.vocab)));
  ReportId(out, 0);
  int32_t best_id = 0;
  int32_t count = 0;
  for (uint64_t last = ~uint64_t{0}; count < wanted; ++count) {
    uint64_t best = 0;
    ForEachOwn<kThreads>(logits, row.vocab, row.aligned, [&](float x, int32_t id) {
      if (x == Excluded()) return;
      const uint64_t rank = RankOf(x, id);
      if (rank < last) best = max(best, rank);
    });
    best = BlockMaxOf<kThreads>(best);  // after a barrier: what ReportId wrote is there
    if (best == 0) break;
    if (count == 0) best_id = IdOf(best);
    if (threadIdx.x == 0) {
      out->top_ids[count] = IdOf(best);
      out->top_logprobs[count] = LogitOf(best);
    }
    last = best;
  }
  if (threadIdx.x == 0) {
    out->token_id = best_id;
    out->top_count = count;
  }
  return best_id;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
