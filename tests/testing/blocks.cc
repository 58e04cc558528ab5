#include "tests/testing/blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sirocco {
namespace {

constexpr int kBlock = 32;

void PutHalf(float value, std::vector<uint8_t>& to) {
  const uint16_t bits = FloatToFloat16(value);
  to.push_back(static_cast<uint8_t>(bits & 255));
  to.push_back(static_cast<uint8_t>(bits >> 8));
}

float GetHalf(const uint8_t* from) {
  return Float16ToFloat(static_cast<uint16_t>(from[0] | from[1] << 8));
}

int Quantise(float value, float scale, int least, int most) {
  return scale == 0 ? 0 : std::clamp(static_cast<int>(std::lround(value / scale)), least, most);
}

void EncodeBlock(const float* values, DType type, std::vector<uint8_t>& to) {
  const auto [low, high] = std::minmax_element(values, values + kBlock);
  const float largest = std::max(-*low, *high);
  if (type == DType::kQ8_0) {
    const float scale = largest / 127;
    PutHalf(scale, to);
    for (int i = 0; i < kBlock; ++i) {
      to.push_back(static_cast<uint8_t>(Quantise(values[i], scale, -128, 127)));
    }
    return;
  }
  const bool with_least = type == DType::kQ4_1;
  const float scale = with_least ? (*high - *low) / 15 : largest / 7;
  const float least = with_least ? *low : -8 * scale;
  PutHalf(scale, to);
  if (with_least) PutHalf(least, to);
  for (int i = 0; i < kBlock / 2; ++i) {
    const int first = Quantise(values[i] - least, scale, 0, 15);
    const int second = Quantise(values[i + kBlock / 2] - least, scale, 0, 15);
    to.push_back(static_cast<uint8_t>(first | second << 4));
  }
}

}  // namespace

std::vector<uint8_t> EncodeBlocks(const std::vector<float>& values, DType type) {
  std::vector<uint8_t> blocks;
  for (size_t i = 0; i + kBlock <= values.size(); i += kBlock) {
    EncodeBlock(&values[i], type, blocks);
  }
  return blocks;
}

std::vector<float> DecodeBlocks(const std::vector<uint8_t>& blocks, DType type) {
  std::vector<float> values;
  const size_t bytes = static_cast<size_t>(LayoutOf(type).bytes);
  for (size_t at = 0; at + bytes <= blocks.size(); at += bytes) {
    const uint8_t* block = &blocks[at];
    const float d = GetHalf(block);
    const float m = type == DType::kQ4_1 ? GetHalf(block + 2) : 0;
    const uint8_t* q = block + (type == DType::kQ4_1 ? 4 : 2);
    for (int i = 0; i < kBlock; ++i) {
      if (type == DType::kQ8_0) {
        values.push_back(static_cast<float>(static_cast<int8_t>(q[i])) * d);
      } else {
        const int value = i < kBlock / 2 ? q[i] & 15 : q[i - kBlock / 2] >> 4;
        const int offset = type == DType::kQ4_0 ? 8 : 0;
        values.push_back(static_cast<float>(value - offset) * d + m);
      }
    }
  }
  return values;
}

}  // namespace sirocco
