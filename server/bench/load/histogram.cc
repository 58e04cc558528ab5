#include "server/bench/load/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace sirocco {
namespace {

// Buckets an octave. Nanoseconds below twice as many have a bucket each.
constexpr int kBits = 8;
constexpr uint64_t kBuckets = uint64_t{1} << kBits;
constexpr double kMostNanoseconds = 1e18;

uint64_t BucketOf(uint64_t nanoseconds) {
  const int shift = std::max(0, static_cast<int>(std::bit_width(nanoseconds)) - kBits - 1);
  return shift * kBuckets + (nanoseconds >> shift);
}

double EndOf(uint64_t bucket) {
  const uint64_t shift = bucket < 2 * kBuckets ? 0 : bucket / kBuckets - 1;
  return static_cast<double>(((bucket - shift * kBuckets + 1) << shift) - 1) * 1e-9;
}

}  // namespace

void Histogram::Add(double seconds, uint64_t times) {
  if (times == 0) return;
  const double nanoseconds = std::clamp(seconds * 1e9, 0.0, kMostNanoseconds);
  const uint64_t bucket = BucketOf(static_cast<uint64_t>(std::llround(nanoseconds)));
  if (bucket >= buckets_.size()) buckets_.resize(bucket + 1);
  buckets_[bucket] += times;
  count_ += times;
  sum_ += std::max(0.0, seconds) * static_cast<double>(times);
  max_ = std::max(max_, seconds);
}

double Histogram::Percentile(double part, uint64_t beyond) const {
  const uint64_t all = count_ + beyond;
  if (all == 0) return 0;
  // 0.07 * 100 is a little more than 7.
  const double exact = std::ceil(part * static_cast<double>(all) - 1e-6);
  const uint64_t rank = std::clamp<uint64_t>(static_cast<uint64_t>(std::max(exact, 1.0)), 1, all);
  if (rank > count_) return std::numeric_limits<double>::infinity();
  uint64_t seen = 0;
  for (uint64_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    seen += buckets_[bucket];
    if (seen >= rank) return std::min(EndOf(bucket), max_);
  }
  return max_;
}

}  // namespace sirocco
