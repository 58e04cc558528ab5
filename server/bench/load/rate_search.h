// The search for the highest rate that keeps a goal: doubled until the goal is missed, then halved
// in between.
#pragma once

#include <optional>

namespace sirocco {

class RateSearch {
 public:
  // Ends when the highest rate that kept the goal and the lowest that missed it differ by no more.
  static constexpr double kResolution = 0.05;
  // Gives up below this part of the first rate: the goal does not depend on the rate.
  static constexpr double kLowest = 1.0 / 16;
  // And above: the client cannot send so fast.
  static constexpr double kMost = 1e6;

  explicit RateSearch(double first) : first_(first) {}

  // The next rate to measure; nullopt: the search has ended.
  std::optional<double> Next() const;
  void Record(double rate, bool kept);

  std::optional<double> highest_kept() const { return kept_; }
  std::optional<double> lowest_missed() const { return missed_; }

 private:
  const double first_;
  std::optional<double> kept_, missed_;
};

}  // namespace sirocco
