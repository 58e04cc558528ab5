#include "server/bench/load/timeline.h"

#include <algorithm>

namespace sirocco {

void Timeline::Add(Series series, double time, double value) {
  time = std::max(time, 0.0);
  while (time >= bin_seconds_ * kMostBins) Fold();
  const auto bin = static_cast<size_t>(time / bin_seconds_);
  if (bin >= bins_.size()) bins_.resize(bin + 1);
  Put(bins_[bin], series, value);
}

void Timeline::Put(Bin& bin, Series series, double value) {
  bin[series] = series == kWorstFirstToken ? std::max(bin[series], value) : bin[series] + value;
}

void Timeline::Fold() {
  bin_seconds_ *= 2;
  for (size_t i = 0; i < bins_.size(); ++i) {
    const Bin from = bins_[i];
    Bin& to = bins_[i / 2];
    if (i % 2 == 0) {
      to = from;
      continue;
    }
    for (const Series series : {kArrivals, kTokens, kEnds, kWorstFirstToken}) {
      Put(to, series, from[series]);
    }
  }
  bins_.resize((bins_.size() + 1) / 2);
}

}  // namespace sirocco
