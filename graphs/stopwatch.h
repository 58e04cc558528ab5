// Wall-clock seconds of what happens at start-up, and of what is measured.
#pragma once

#include <chrono>
#include <utility>

namespace sirocco {

class Stopwatch {
 public:
  // Since it was made, or since the last Lap.
  double Seconds() const { return Between(start_, Now()); }
  // The same, and begins anew.
  double Lap() {
    const Time now = Now();
    return Between(std::exchange(start_, now), now);
  }

 private:
  using Time = std::chrono::steady_clock::time_point;
  static Time Now() { return std::chrono::steady_clock::now(); }
  static double Between(Time from, Time to) {
    return std::chrono::duration<double>(to - from).count();
  }

  Time start_ = Now();
};

}  // namespace sirocco
