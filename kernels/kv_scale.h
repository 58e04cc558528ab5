// The KV cache in float8: how a slot's vectors are scaled, and where the scales stand.
//
// Each head's k and v of each slot have a scale of their own, a power of two that is made when they
// are written: the largest element becomes 128 ... 256, and E4M3 goes to 448. So nothing is
// calibrated, and nothing is cut off, whatever the model. Scales of a whole tensor, which others
// have, are 1 unless a checkpoint brings better ones, and then values beyond 448 are lost: vLLM
// (pull request 11906) gives a perplexity of 34.8 for Qwen2-7B so, and of 22.6 with scales that are
// taken from a first prompt. E4M3 is as precise in one of its binades as in another, so that a
// scale which is no power of two would gain nothing; a power of two is one byte, is applied without
// rounding, and lets an element times its scale stand in bfloat16 exactly. In a head of 128
// dimensions it is 0.8% of the bytes; a float32 would be 3%.
//
// A block's layer in float8 is [k, v][head][slot][dim] elements, [head][slot][k, v] scales, and as
// many bytes as are missing to a multiple of 16.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/params.h"

namespace sirocco {

// Of a magnitude: numbers are in their order, and below infinity and NaN.
constexpr uint32_t MagnitudeBits(float x) { return std::bit_cast<uint32_t>(x) & 0x7fffffffu; }

// Scale b is 2^(b - 127); the last one is NaN, for vectors with an element that is not finite.
inline constexpr uint8_t kNoKvScale = 255;

// Of a vector whose largest magnitude has these bits. An element of 2^e or more, and less than
// 2^(e + 1), becomes one of 2^7 or more.
constexpr uint8_t KvScaleFor(uint32_t largest) {
  const uint32_t exponent = largest >> 23;
  if (exponent == 255) return kNoKvScale;
  return static_cast<uint8_t>(exponent > 8 ? exponent - 7 : 1);
}

// What a stored element is multiplied by.
constexpr float KvScaleValue(uint8_t scale) {
  return std::bit_cast<float>(scale == kNoKvScale ? 0x7fc00000u : uint32_t{scale} << 23);
}

// What an element is multiplied by before it is stored: 1 / KvScaleValue.
constexpr float KvScaleInverse(uint8_t scale) {
  return std::bit_cast<float>(scale == kNoKvScale ? 0x7fc00000u : (254u - scale) << 23);
}

// From KvLayer::data, in a block: the scale of k of a slot (0 ... block_size - 1); v's is the next.
constexpr int64_t KvScaleOffset(const KvLayer& kv, int64_t block, int32_t kv_head, int32_t slot) {
  return block * kv.block_stride + 2 * kv.value_offset +
         2 * (int64_t{kv_head} * kv.block_size + slot);
}

// Elements of one layer in one block.
constexpr int64_t KvLayerElements(DType dtype, int32_t kv_heads, int32_t block_size,
                                  int32_t head_dim) {
  const int64_t vectors = int64_t{2} * kv_heads * block_size;
  if (dtype != DType::kFloat8) return vectors * head_dim;
  return (vectors * (head_dim + 1) + 15) / 16 * 16;
}

}  // namespace sirocco
