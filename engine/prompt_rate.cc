#include "engine/prompt_rate.h"

namespace sirocco {

void PromptRate::Add(bool beside, int32_t prefill_tokens, double seconds) {
  Sums& sums = beside ? beside_ : alone_;
  sums.tokens = sums.tokens * kDecay + prefill_tokens;
  sums.seconds = sums.seconds * kDecay + seconds;
}

std::optional<double> PromptRate::SecondsAToken(bool beside) const {
  const Sums& sums = beside && beside_.tokens > 0 ? beside_ : alone_;
  if (sums.tokens == 0) return std::nullopt;
  return sums.seconds / sums.tokens;
}

void PromptRate::Doubt() {
  for (Sums* sums : {&alone_, &beside_}) sums->seconds *= kDecay;
}

}  // namespace sirocco
