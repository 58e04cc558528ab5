#include "tests/engine/fake_model.h"

#include <algorithm>

namespace sirocco {
namespace {

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ (hash >> 29);
}

void AddScores(int32_t top, uint64_t hash, TokenScore* score) {
  score->logprob = -static_cast<float>(Mix(hash, score->token_id) % 4096) / 256;
  score->rank = 1 + static_cast<int32_t>(hash % 7);
  score->top_count = top;
  for (int32_t i = 0; i < top; ++i) {
    score->top_ids[i] = static_cast<int32_t>((hash + i) % kFakeVocabulary);
    score->top_logprobs[i] =
        -static_cast<float>(i) - static_cast<float>(Mix(hash, 100 + i) % 1024) / 1024;
  }
}

}  // namespace

std::vector<uint64_t> FakeHashes(std::span<const int32_t> tokens) {
  std::vector<uint64_t> hashes;
  uint64_t hash = 1;
  for (int32_t token : tokens) hashes.push_back(hash = Mix(hash, static_cast<uint64_t>(token) + 1));
  return hashes;
}

TokenScore FakeNext(const Lane& state, std::span<const int32_t> barred_ids,
                    std::span<const int32_t> tokens) {
  const uint64_t prefix = FakeHashes(tokens).back();
  const bool barred =
      (state.flags & kLaneBarred) != 0 && static_cast<int32_t>(tokens.size()) < state.min_length;
  uint64_t draw = Mix(Mix(prefix, state.seed), state.index);
  TokenScore score = {};
  do {
    draw = Mix(draw, 5);
    score.token_id = static_cast<int32_t>((draw >> 20) % kFakeVocabulary);
  } while (barred && std::count(barred_ids.begin(), barred_ids.end(), score.token_id) > 0);
  if ((state.flags & kLaneLogprobs) != 0) AddScores(state.top_logprobs, prefix, &score);
  return score;
}

TokenScore FakeScore(int32_t top, std::span<const int32_t> tokens, int32_t given) {
  TokenScore score = {};
  score.token_id = given;
  AddScores(top, FakeHashes(tokens).back(), &score);
  return score;
}

}  // namespace sirocco
