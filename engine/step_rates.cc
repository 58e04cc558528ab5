#include "engine/step_rates.h"

#include <algorithm>

namespace sirocco {
namespace {

constexpr double kDecay = 0.9;         // a prefill counts for about ten steps
constexpr double kDecodeShare = 0.25;  // of the newest step in the time of a decode batch
// How far beyond the largest prefill of late the line is believed.
constexpr double kReach = 2;

}  // namespace

void StepRates::Add(int32_t prefill_tokens, double prefill_seconds, int32_t decode_rows,
                    double decode_seconds) {
  if (decode_rows > 0) {
    decode_seconds_ = decode_seconds_ < 0
                          ? decode_seconds
                          : decode_seconds_ + kDecodeShare * (decode_seconds - decode_seconds_);
  }
  if (prefill_tokens == 0) return;
  const double tokens = prefill_tokens;
  for (double* sum : {&count_, &tokens_, &seconds_, &tokens_tokens_, &tokens_seconds_}) {
    *sum *= kDecay;
  }
  count_ += 1;
  tokens_ += tokens;
  seconds_ += prefill_seconds;
  tokens_tokens_ += tokens * tokens;
  tokens_seconds_ += tokens * prefill_seconds;
  largest_ = std::max(tokens, largest_ * kDecay);
}

StepRates::Line StepRates::Fit() const {
  const Line through_origin = {.start = 0, .slope = seconds_ / tokens_};
  const double spread = count_ * tokens_tokens_ - tokens_ * tokens_;
  // Below a deviation of a twentieth of the mean, the slope would be made of noise.
  if (spread < tokens_ * tokens_ / 400) return through_origin;
  const double slope = (count_ * tokens_seconds_ - tokens_ * seconds_) / spread;
  const double start = (seconds_ - slope * tokens_) / count_;
  if (slope <= 0 || start < 0) return through_origin;
  return {.start = start, .slope = slope};
}

int32_t StepRates::TokensBeside(double factor, int32_t most) const {
  const int32_t least = std::min(kLeast, most);
  if (decode_seconds_ < 0 || count_ == 0) return least;
  const Line line = Fit();
  const double room = (factor - 1) * decode_seconds_ - line.start;
  const double believed = std::max<double>(least, kReach * largest_);
  // Written so that a slope of 0 divides nothing.
  const double limit = std::min<double>(most, believed);
  if (room >= line.slope * limit) return static_cast<int32_t>(limit);
  return std::max(least, static_cast<int32_t>(room / line.slope));
}

void StepRates::AddFull(bool beside, int32_t prefill_tokens, double seconds) {
  Rate& rate = beside ? full_beside_ : full_alone_;
  rate.tokens = rate.tokens * kDecay + prefill_tokens;
  rate.seconds = rate.seconds * kDecay + seconds;
}

std::optional<double> StepRates::SecondsAPromptToken(bool beside) const {
  const Rate& rate = beside && full_beside_.tokens > 0 ? full_beside_ : full_alone_;
  if (rate.tokens == 0) return std::nullopt;
  return rate.seconds / rate.tokens;
}

void StepRates::Doubt() {
  for (Rate* rate : {&full_alone_, &full_beside_}) rate->seconds *= kDecay;
}

}  // namespace sirocco
