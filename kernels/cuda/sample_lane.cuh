// What a lane asks of the sampler, and what sampling leaves in it.
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"
#include "kernels/lanes.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

struct Asked {
  uint32_t options;  // kLaneBias, kLanePenalties, kLaneNgrams, kLaneBarred that apply now
  bool drawn;        // else the highest logit
  bool filtered;     // top_k, top_p or min_p applies
  bool beam;         // kLaneBeam

  // The raw logits alone decide.
  __device__ bool plain() const { return options == 0 && !filtered && !beam; }
};

// Once it is plain it stays so: an advanced lane has only grown, and kLaneBarred is what growth
// may end. So a later kernel of the step sees no row as its own that an earlier one has sampled.
__device__ __forceinline__ Asked AskedOf(const Lane& lane, int32_t vocab) {
  Asked asked;
  asked.options = lane.flags & (kLaneBias | kLanePenalties | kLaneNgrams | kLaneBarred);
  if (lane.length >= lane.min_length) asked.options &= ~uint32_t{kLaneBarred};
  if (lane.no_repeat_ngram < 1) asked.options &= ~uint32_t{kLaneNgrams};
  asked.beam = (lane.flags & kLaneBeam) != 0;
  asked.drawn = lane.temperature > 0;
  asked.filtered =
      asked.drawn && ((lane.top_k > 0 && lane.top_k < vocab) || lane.top_p < 1 || lane.min_p > 0);
  return asked;
}

// A score without anything but the id: by the first threads of a block.
__device__ __forceinline__ void ReportId(TokenScore* out, int32_t id) {
  constexpr int kWords = sizeof(TokenScore) / sizeof(int32_t);
  static_assert(sizeof(TokenScore) % sizeof(int32_t) == 0 && kWords <= 256);
  const int word = static_cast<int>(threadIdx.x);
  if (word < kWords) reinterpret_cast<int32_t*>(out)[word] = word == 0 ? id : 0;
}

// The lane has one token more. By one thread, when no other reads the lane any more. A full history
// is left as it is.
__device__ __forceinline__ void AdvanceLane(const Lanes& lanes, int32_t lane, int32_t id) {
  Lane& state = lanes.lane[lane];
  const int32_t length = state.length;
  if (length >= lanes.max_length) return;
  lanes.history[int64_t{lane} * lanes.max_length + length] = id;
  state.length = length + 1;
  if ((state.flags & (kLanePenalties | kLaneBeam)) == kLanePenalties) {
    lanes.counts[int64_t{lane} * lanes.vocab_size + id] += 1;
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
