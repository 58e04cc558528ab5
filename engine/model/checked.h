// Arithmetic on sizes that a file claims: the one place where they are added and multiplied.
// nullopt: the result does not fit.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace sirocco {

template <typename T>
constexpr std::optional<T> CheckedAdd(T a, T b) {
  T sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

template <typename T>
constexpr std::optional<T> CheckedMul(T a, T b) {
  T product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// The product of all; 1 of none.
template <typename T>
constexpr std::optional<T> CheckedProduct(std::span<const T> factors) {
  T product = 1;
  for (const T factor : factors) {
    if (__builtin_mul_overflow(product, factor, &product)) return std::nullopt;
  }
  return product;
}

// The next multiple of `alignment`, a power of two.
constexpr std::optional<uint64_t> CheckedAlignUp(uint64_t value, uint64_t alignment) {
  const std::optional<uint64_t> past = CheckedAdd(value, alignment - 1);
  if (!past) return std::nullopt;
  return *past & ~(alignment - 1);
}

// Whether [offset, offset + bytes) lies in [0, size).
constexpr bool FitsIn(uint64_t offset, uint64_t bytes, uint64_t size) {
  const std::optional<uint64_t> end = CheckedAdd(offset, bytes);
  return end && *end <= size;
}

}  // namespace sirocco
