// Choosing a row's next token, on one thread. Pure functions of a lane and its logits.
//
// Not-a-number and infinite logits are first clamped to the finite range (a NaN to its lowest), so
// that only filters exclude an id (by -inf). Equal logits: the lower id comes first, everywhere.
//
// Draws: id i's word w of Philox (key: the seed's low and high half; counter: the drawn token's
// position = the lane's length, index, i / 4, 0; word i % 4) gives v = (w + 1/2) / 2^32 and the
// Gumbel variable -log(-log(1 - v)), in double precision. The id with the highest sum of scaled
// logit and variable is chosen: a draw from the softmax (Gumbel-max: Maddison et al., 2014).
#pragma once

#include <cstdint>

#include "kernels/lanes.h"

namespace sirocco::cpu {

// Scratch of one thread, each [vocab_size].
struct SamplerScratch {
  float* logits;
  int32_t* ids;
  double* masses;
};

// Samples for `lane` under `logits` ([vocab_size]; clamped in place), fills `out` and advances the
// lane.
void SampleRow(const Lanes& lanes, int32_t lane, float* logits, const SamplerScratch& scratch,
               TokenScore* out);

// Scores a given id: its logprob, rank, and the `top` most probable ids. `logits` is clamped in
// place.
void ScoreRow(float* logits, int32_t vocab_size, int32_t id, int32_t top, TokenScore* out);

}  // namespace sirocco::cpu
