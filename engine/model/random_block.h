// Random values for weights that mean nothing, made once and given out again and again from
// changing places: 8e9 draws would take minutes, and a model's speed depends on its shapes alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>

#include "kernels/dtype.h"

namespace sirocco {

class RandomBlock {
 public:
  static constexpr uint64_t kBytes = uint64_t{16} << 20;

  // Fills `memory` [kBytes], which outlives it, with `dtype`. The variance is 1 / `width`: sums
  // over rows of that many elements stay about 1. The same for the same seed.
  RandomBlock(std::byte* memory, DType dtype, int64_t width, uint64_t seed);

  // The next values of a matrix that lacks `bytes`: at least one, as many as stand together. No two
  // matrices are made of equal parts.
  std::span<const std::byte> Next(uint64_t bytes);

 private:
  std::byte* const memory_;
  std::mt19937_64 random_;
};

}  // namespace sirocco
