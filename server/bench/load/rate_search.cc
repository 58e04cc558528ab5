#include "server/bench/load/rate_search.h"

#include <algorithm>
#include <cmath>

namespace sirocco {

std::optional<double> RateSearch::Next() const {
  if (!kept_ && !missed_) return first_;
  if (!missed_) return *kept_ < kMost ? std::optional(std::min(2 * *kept_, kMost)) : std::nullopt;
  if (!kept_) {
    const double lower = *missed_ / 2;
    return lower < kLowest * first_ ? std::nullopt : std::optional(lower);
  }
  if (*missed_ <= (1 + kResolution) * *kept_) return std::nullopt;
  return std::sqrt(*kept_ * *missed_);
}

void RateSearch::Record(double rate, bool kept) {
  if (kept) {
    kept_ = std::max(kept_.value_or(rate), rate);
  } else {
    missed_ = std::min(missed_.value_or(rate), rate);
  }
}

}  // namespace sirocco
