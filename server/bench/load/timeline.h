// What happened when in a level, in at most kMostBins bins of equal time: their width doubles as
// the level goes on.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace sirocco {

class Timeline {
 public:
  static constexpr size_t kMostBins = 240;
  static constexpr double kFirstBinSeconds = 0.05;

  enum Series {
    kArrivals,         // requests, by the time they were meant to be sent at
    kTokens,           // as they came
    kEnds,             // requests
    kWorstFirstToken,  // seconds, by the time the request was meant to be sent at
  };

  // `time`: seconds since the level's beginning, at least 0.
  void Add(Series series, double time, double value);

  double bin_seconds() const { return bin_seconds_; }
  size_t bins() const { return bins_.size(); }
  // The sum of the bin's values; of kWorstFirstToken their maximum.
  double At(Series series, size_t bin) const { return bins_[bin][series]; }

 private:
  using Bin = std::array<double, 4>;

  static void Put(Bin& bin, Series series, double value);
  void Fold();

  double bin_seconds_ = kFirstBinSeconds;
  std::vector<Bin> bins_;
};

}  // namespace sirocco
