// Element types of tensors, and bfloat16/float16 <-> float32 on the host.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sirocco {

enum class DType : uint8_t { kFloat32, kBFloat16, kFloat16 };

constexpr size_t BytesOf(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

// "float32", "bfloat16", "float16": the words of the configuration.
constexpr std::string_view NameOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
  }
  return "?";
}

// The upper half of a float32.
struct BFloat16 {
  uint16_t bits;

  float ToFloat() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

  // Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
  static BFloat16 FromFloat(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
    return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
  }
};

// IEEE 754 binary16, by its bits.
float Float16ToFloat(uint16_t bits);
// Rounds to nearest, ties to even; beyond the largest to infinity; a NaN stays a (quiet) NaN.
uint16_t FloatToFloat16(float value);

}  // namespace sirocco
