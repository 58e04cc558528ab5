// A model by arithmetic: the next token is a hash of all tokens before it, of the seed and of the
// sequence's index. So an answer is known without batches, lanes or blocks, and one wrong KV slot
// anywhere changes it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/lanes.h"

namespace sirocco {

inline constexpr int32_t kFakeVocabulary = 64;

// For each token, the hash of all up to it.
std::vector<uint64_t> FakeHashes(std::span<const int32_t> tokens);

// The token after `tokens`; logprob, rank and alternatives where state.flags asks.
TokenScore FakeNext(const Lane& state, std::span<const int32_t> barred_ids,
                    std::span<const int32_t> tokens);

// The score of `given` after `tokens`.
TokenScore FakeScore(int32_t top, std::span<const int32_t> tokens, int32_t given);

}  // namespace sirocco
