// Random draws of a load: a function of the seed, what they are for, and an index, so that a
// request is the same however many were sent before it and by which thread.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "kernels/philox.h"

namespace sirocco {

class Draws {
 public:
  enum Purpose : uint32_t { kArrivals, kPromptLength, kOutputLength, kPrompt };

  Draws(uint64_t seed, Purpose purpose, uint64_t index)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        counter_{0, static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), purpose} {}

  uint32_t Word() {
    if (used_ == words_.size()) {
      words_ = Philox(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return words_[used_++];
  }
  // 0 ... n - 1; n: at least 1.
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>((uint64_t{Word()} * n) >> 32); }
  // Above 0, below 1.
  double Share() {
    const uint64_t high = Word();
    return (static_cast<double>((high << 32 | Word()) >> 12) + 0.5) * 0x1p-52;
  }
  // Of mean 1.
  double Exponential() { return -std::log(Share()); }
  // Of mean 0 and variance 1, by Box and Muller, 1958.
  double Normal() {
    const double radius = std::sqrt(2 * Exponential());
    return radius * std::cos(2 * std::numbers::pi * Share());
  }

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> words_{};
  size_t used_ = 4;
};

}  // namespace sirocco
