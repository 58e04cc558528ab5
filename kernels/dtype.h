// Element types of tensors, and bfloat16, float16 and float8 <-> float32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sirocco {

// Plain types, float8 being of the KV cache alone (kv_scale.h); and those of weights in blocks, as
// ggml defines them: 32 values of a row share a scale, two in Q4_1.
//   Q8_0  float16 d, 32 int8 q                     value = q * d
//   Q4_0  float16 d, 16 bytes of q                 value = (q - 8) * d
//   Q4_1  float16 d, float16 m, 16 bytes of q      value = q * d + m
// Of 4-bit bytes the low halves are the first 16 values.
enum class DType : uint8_t { kFloat32, kBFloat16, kFloat16, kFloat8, kQ8_0, kQ4_0, kQ4_1 };
inline constexpr int kDTypeCount = 7;

constexpr bool InBlocks(DType dtype) { return dtype >= DType::kQ8_0; }

// A row is stored as whole blocks; a plain type's block is one element.
struct BlockLayout {
  int32_t elements;
  int32_t bytes;
};
constexpr BlockLayout LayoutOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return {1, 4};
    case DType::kBFloat16:
    case DType::kFloat16:
      return {1, 2};
    case DType::kFloat8:
      return {1, 1};
    case DType::kQ8_0:
      return {32, 34};
    case DType::kQ4_0:
      return {32, 18};
    case DType::kQ4_1:
      return {32, 20};
  }
  return {1, 4};
}

// Of one element, of plain types.
constexpr size_t BytesOf(DType dtype) { return static_cast<size_t>(LayoutOf(dtype).bytes); }
// Of rows of whole blocks.
constexpr uint64_t BytesOf(DType dtype, uint64_t elements) {
  const BlockLayout layout = LayoutOf(dtype);
  return elements / static_cast<uint64_t>(layout.elements) * static_cast<uint64_t>(layout.bytes);
}

// "float32", "bfloat16", "float16", "fp8": the words of the configuration; "Q8_0", ...: ggml's.
constexpr std::string_view NameOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    case DType::kFloat8:
      return "fp8";
    case DType::kQ8_0:
      return "Q8_0";
    case DType::kQ4_0:
      return "Q4_0";
    case DType::kQ4_1:
      return "Q4_1";
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

// E4M3 (Micikevicius et al., 2022): a sign, four bits of exponent with the bias 7, three of
// mantissa. The largest is 448, the least step 2^-9; no infinities; all ones are NaN.
struct Float8 {
  uint8_t bits;

  constexpr float ToFloat() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
    const uint32_t magnitude = bits & 0x7fu;
    if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
    // Below 2^-6 a count of 2^-9; else the bias changes from 7 to 127.
    const float value = magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9f
                                      : std::bit_cast<float>((magnitude << 20) + (120u << 23));
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }

  // Rounds to nearest, ties to even; what is larger than 448 becomes 448, infinity too.
  static constexpr Float8 FromFloat(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (u >> 24) & 0x80u;
    const uint32_t magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {static_cast<uint8_t>(sign | 0x7fu)};
    if (magnitude >= std::bit_cast<uint32_t>(448.0f)) return {static_cast<uint8_t>(sign | 0x7eu)};
    if (magnitude < std::bit_cast<uint32_t>(0x1p-6f)) {
      // Floats from 2^14 on count in 2^-9, and the addition rounds to them.
      const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
      return {static_cast<uint8_t>(
          sign | (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0x1p14f)))};
    }
    const uint32_t rounded = magnitude - (120u << 23) + 0x7ffffu + ((magnitude >> 20) & 1u);
    return {static_cast<uint8_t>(sign | (rounded >> 20))};
  }
};

// IEEE 754 binary16, by its bits.
float Float16ToFloat(uint16_t bits);
// Rounds to nearest, ties to even; beyond the largest to infinity; a NaN stays a (quiet) NaN.
uint16_t FloatToFloat16(float value);

}  // namespace sirocco
