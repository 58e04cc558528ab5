// One block of a packed matrix, for what is too rare to be fast.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/block_kernels.h"
#include "kernels/cpu/pack.h"

namespace sirocco::cpu {

inline float HalfAt(const std::byte* from) {
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return Float16ToFloat(bits);
}

// One weight row's block as files store it: its scale, its minimum (0 but in Q4_1) and 32 integers.
struct PlainBlock {
  float d;
  float m;
  int8_t q[kBlockElements];
};

inline void UnpackWords(DType type, const std::byte* words, int8_t* q) {
  if (type == DType::kQ8_0) {
    std::memcpy(q, words, kBlockElements);
    return;
  }
  const int offset = type == DType::kQ4_0 ? 8 : 0;
  for (int i = 0; i < kBlockElements / 2; ++i) {
    const int byte = std::to_integer<int>(words[i]);
    q[i] = static_cast<int8_t>((byte & 15) - offset);
    q[i + kBlockElements / 2] = static_cast<int8_t>((byte >> 4) - offset);
  }
}

// Block `block` of a row of a packed matrix.
inline PlainBlock BlockAt(const Matrix& weight, int32_t row, int32_t block) {
  const DType type = weight.dtype;
  std::byte words[kBlockElements];
  PlainBlock plain = {};
  if (row >= PackedRows(weight)) {
    const std::byte* from = RowsAt(weight, row) + int64_t{block} * LayoutOf(type).bytes;
    plain.d = HalfAt(from);
    if (type == DType::kQ4_1) plain.m = HalfAt(from + 2);
    const int64_t header = WordsAt(type) / kGroupRows;
    std::memcpy(words, from + header, static_cast<size_t>(LayoutOf(type).bytes - header));
  } else {
    const int32_t in_group = row % kGroupRows;
    const std::byte* from = RowsAt(weight, row - in_group) + block * GroupBlockBytes(type);
    plain.d = HalfAt(from + 2 * in_group);
    if (type == DType::kQ4_1) plain.m = HalfAt(from + MinimaAt() + 2 * in_group);
    for (int w = 0; w < WordsOf(type); ++w) {
      std::memcpy(words + 4 * w, from + WordsAt(type) + 4 * (w * kGroupRows + in_group), 4);
    }
  }
  UnpackWords(type, words, plain.q);
  return plain;
}

}  // namespace sirocco::cpu
