// The options that come before the temperature: bias and allowed or banned ids, penalties, n-grams,
// bars before the minimum length (order and meaning: kernels/cpu/sampler.cc).
//
// A row's logits stay as they are, since logprobs are of the raw ones: what the options make of
// them is computed each time they are read, from the raw logit, bias, count and flags of the id (13
// bytes) and one bit of the ids that n-grams bar.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/sample_lane.cuh"
#include "kernels/cuda/sample_row.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

struct OptionRow {
  const float* logits;         // [vocab]
  const float* bias;           // [vocab]
  const uint32_t* counts;      // [vocab]
  const uint8_t* token_flags;  // [vocab]
  uint32_t* ngram_bits;        // [vocab / 32, rounded up] barred ids
  int32_t vocab;
  bool aligned;
  uint32_t options;
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
};

// Four ids after the options: Excluded() where one bars the id, or there is none.
struct FourLogits {
  float at[4];
  // Whether the options up to each leave any of the four: bits kLaneBias, kLaneNgrams, kLaneBarred.
  uint32_t left;
};

// Keskar et al., 2019; no multiplication joins an addition, as on the CPU.
__device__ __forceinline__ float Penalised(const OptionRow& row, float logit, uint32_t count) {
  logit = logit > 0 ? __fdiv_rn(logit, row.repetition_penalty)
                    : __fmul_rn(logit, row.repetition_penalty);
  if (count > 0) {
    logit = __fsub_rn(logit, row.presence_penalty);
    logit = __fsub_rn(logit, __fmul_rn(row.frequency_penalty, static_cast<float>(count)));
  }
  return Clamped(logit);
}

// `first` is a multiple of 4, and may be beyond the vocabulary.
__device__ __forceinline__ FourLogits ReadFour(const OptionRow& row, int32_t first) {
  const bool biased = (row.options & kLaneBias) != 0;
  const bool penalised = (row.options & kLanePenalties) != 0;
  const bool flagged = (row.options & (kLanePenalties | kLaneBarred)) != 0;
  const Pack<float, 4> raw = LoadFour(row.logits, first, row.vocab, row.aligned, 0.0f);
  Pack<float, 4> bias = {};
  Pack<uint32_t, 4> counts = {};
  Pack<uint8_t, 4> flags = {};
  uint32_t barred_bits = 0;
  if (biased) bias = LoadFour(row.bias, first, row.vocab, row.aligned, 0.0f);
  if (penalised) counts = LoadFour(row.counts, first, row.vocab, row.aligned, 0u);
  if (flagged) flags = LoadFour(row.token_flags, first, row.vocab, row.aligned, uint8_t{0});
  if ((row.options & kLaneNgrams) != 0 && first < row.vocab) {
    barred_bits = row.ngram_bits[first / 32] >> (first % 32);
  }
  FourLogits four;
  four.left = 0;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    float logit = Clamped(raw.at[e]);
    bool left = first + e < row.vocab;
    if (biased) {
      left = left && bias.at[e] != Excluded();
      logit = Clamped(__fadd_rn(logit, bias.at[e]));
    }
    if (left) four.left |= kLaneBias;
    if (penalised && (counts.at[e] != 0 || (flags.at[e] & kTokenInPrompt) != 0)) {
      logit = Penalised(row, logit, counts.at[e]);
    }
    left = left && ((barred_bits >> e) & 1) == 0;
    if (left) four.left |= kLaneNgrams;
    if ((row.options & kLaneBarred) != 0) left = left && (flags.at[e] & kTokenBarred) == 0;
    if (left) four.left |= kLaneBarred;
    four.at[e] = left ? logit : Excluded();
  }
  return four;
}

// Calls visit(first, logits of four ids) for all ids, with kThreads threads. Loads of two packs are
// under way at once.
template <int kThreads, typename Visit>
__device__ __forceinline__ void ForEachFour(const OptionRow& row, Visit visit) {
  constexpr int32_t kStride = kThreads * 4;
  for (int32_t first = static_cast<int32_t>(threadIdx.x) * 4; first < row.vocab;
       first += 2 * kStride) {
    FourLogits four = ReadFour(row, first);
    const FourLogits other = ReadFour(row, first + kStride);
    const int32_t end = min(first + 2 * kStride, row.vocab);
#pragma unroll 1  // one copy of what may be long code
    for (int32_t at = first; at < end; at += kStride) {
      visit(at, four);
      four = other;
    }
  }
}

// Marks what would complete an n-gram that the lane's tokens hold already.
template <int kThreads>
__device__ __forceinline__ void MarkNgrams(const OptionRow& row, const int32_t* history,
                                           int32_t length, int32_t ngram) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int32_t i = thread; i < CeilDiv(row.vocab, 32); i += kThreads) row.ngram_bits[i] = 0;
  __syncthreads();
  const int32_t prefix = ngram - 1;
  for (int32_t i = thread; i < length - prefix; i += kThreads) {
    const int32_t* last = history + length - prefix;
    int32_t same = 0;
    while (same < prefix && history[i + same] == last[same]) ++same;
    const int32_t id = history[i + prefix];
    if (same == prefix && id >= 0 && id < row.vocab) {
      atomicOr(&row.ngram_bits[id / 32], 1u << (id % 32));
    }
  }
  __syncthreads();
}

// Drops each option that would leave no id, in the order of the CPU, and returns the highest id's
// rank under the others.
template <int kThreads>
__device__ __forceinline__ uint64_t SettleOptions(OptionRow& row) {
  while (true) {
    uint64_t highest = 0;
    uint32_t left = 0;
    ForEachFour<kThreads>(row, [&](int32_t first, const FourLogits& four) {
      left |= four.left;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (four.at[e] != Excluded()) highest = max(highest, RankOf(four.at[e], first + e));
      }
    });
    highest = BlockMaxOf<kThreads>(highest);
    if (highest != 0) return highest;
    // With all options there is none: the first one after which none is left goes.
    uint32_t failed = kLaneBarred;
    if (BlockMaxOf<kThreads>(left & kLaneNgrams) == 0) failed = kLaneNgrams;
    if (BlockMaxOf<kThreads>(left & kLaneBias) == 0) failed = kLaneBias;
    row.options &= ~failed;
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
