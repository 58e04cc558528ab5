// The blocks of ggml's quantised types: what they stand for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/model/tensor_source.h"

namespace sirocco {

// Elements in a file need not be aligned.
inline uint16_t LoadHalf(const std::byte* data) {
  uint16_t bits;
  std::memcpy(&bits, data, sizeof(bits));
  return bits;
}

// One block of LayoutOf(type).bytes as its LayoutOf(type).elements values. Of a type in blocks.
void DequantiseBlock(StoredType type, const std::byte* block, float* out);

}  // namespace sirocco
