// What a step of a decode batch takes by the number of its rows, learned from those that have
// ended. Pure arithmetic; engine thread.
//
// Contexts grow and shrink with time, and what was learned of a number of rows some time ago need
// not hold any more: so only ratios are told, which hardly change.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sirocco {

class DecodeTimes {
 public:
  // A step of `rows` rows took so long, with a clear device; or beside others' work, which may have
  // held it up: believed as long as there is nothing better.
  void Add(int32_t rows, double seconds, bool clear);

  // How many times as long as one of `from` rows a step of `to` rows is, between what was seen
  // taken to go straight, and beyond it to stay. Neither is longer for fewer rows, nor in more
  // than their proportion.
  double Ratio(int32_t from, int32_t to) const;

 private:
  // Of numbers of rows that are close to each other, in the mean of late; 0 rows: none was seen.
  struct Point {
    double rows = 0, seconds = 0;
    bool clear = false;
  };
  // Four an octave: of up to 8 rows, one a number.
  static constexpr size_t kClasses = 32;
  static size_t ClassOf(int32_t rows);
  double Seconds(int32_t rows) const;

  std::array<Point, kClasses> points_;  // `rows` ascend
};

}  // namespace sirocco
