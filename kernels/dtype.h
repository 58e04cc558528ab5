// Element types of tensors, and bfloat16/float16 <-> float32 on the host.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sirocco {

// Plain types, and those of weights in blocks, as ggml defines them: 32 values of a row share a
// scale, two in Q4_1.
//   Q8_0  float16 d, 32 int8 q                     value = q * d
//   Q4_0  float16 d, 16 bytes of q                 value = (q - 8) * d
//   Q4_1  float16 d, float16 m, 16 bytes of q      value = q * d + m
// Of 4-bit bytes the low halves are the first 16 values.
enum class DType : uint8_t { kFloat32, kBFloat16, kFloat16, kQ8_0, kQ4_0, kQ4_1 };
inline constexpr int kDTypeCount = 6;

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

// "float32", "bfloat16", "float16": the words of the configuration; "Q8_0", ...: ggml's.
constexpr std::string_view NameOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
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

// IEEE 754 binary16, by its bits.
float Float16ToFloat(uint16_t bits);
// Rounds to nearest, ties to even; beyond the largest to infinity; a NaN stays a (quiet) NaN.
uint16_t FloatToFloat16(float value);

}  // namespace sirocco
