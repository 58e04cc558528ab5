// Durations counted in buckets whose width grows with them, so that any number of samples takes
// little memory and every percentile is as exact as the clock is steady.
#pragma once

#include <cstdint>
#include <vector>

namespace sirocco {

class Histogram {
 public:
  // Of a sample that counts `times`; below a nanosecond: 0.
  void Add(double seconds, uint64_t times = 1);

  uint64_t count() const { return count_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }
  double max() const { return max_; }

  // Nearest rank: the least value that `part` (0 ... 1) of all samples do not exceed, rounded up by
  // less than 0.4% to the end of its bucket: never flattered. `beyond`: so many more samples are
  // longer than all; infinity where the rank falls on one of them. 0 without any sample.
  double Percentile(double part, uint64_t beyond = 0) const;

 private:
  std::vector<uint64_t> buckets_;  // to the last that holds a sample
  uint64_t count_ = 0;
  double sum_ = 0;
  double max_ = 0;
};

}  // namespace sirocco
