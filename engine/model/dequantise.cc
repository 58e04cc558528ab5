// Layouts, with d and m as float16 and all integers little-endian:
//   Q8_0  d, 32 int8 q                                    q * d
//   Q4_0  d, 16 bytes of q                                (q - 8) * d
//   Q4_1  d, m, 16 bytes of q                             q * d + m
//   Q5_0  d, 4 bytes of fifth bits, 16 bytes of q         (q - 16) * d
//   Q5_1  d, m, 4 bytes of fifth bits, 16 bytes of q      q * d + m
// where a byte of q has a value of the first half of the block below one of the second, and bit i
// of the fifth bits is value i's. The "K" types have blocks of 256 values with scales of their own
// for parts of them:
//   Q4_K  d, m, 12 bytes of scales, 128 bytes of q        q * d * scale - m * least
//   Q5_K  d, m, 12 bytes of scales, 32 of fifth bits, 128 bytes of q
//   Q6_K  128 bytes of q, 64 of upper bits, 16 int8 scales, d      (q - 32) * d * scale
#include "engine/model/dequantise.h"

#include "kernels/dtype.h"

namespace sirocco {
namespace {

float Half(const std::byte* data) { return Float16ToFloat(LoadHalf(data)); }

int Byte(const std::byte* data) { return std::to_integer<int>(*data); }

// The 32 values of a block of 4-bit q, each with 16 more where its bit of `fifth` is set.
void Unpack(const std::byte* packed, uint32_t fifth, float scale, float offset, float* out) {
  const auto upper = [&](int i) { return static_cast<int>(fifth >> i & 1) << 4; };
  for (int i = 0; i < 16; ++i) {
    const int byte = Byte(packed + i);
    out[i] = static_cast<float>((byte & 15) | upper(i)) * scale + offset;
    out[i + 16] = static_cast<float>((byte >> 4) | upper(i + 16)) * scale + offset;
  }
}

uint32_t LoadBits(const std::byte* data) {
  uint32_t bits;
  std::memcpy(&bits, data, sizeof(bits));
  return bits;
}

void Q8(const std::byte* block, float* out) {
  const float scale = Half(block);
  for (int i = 0; i < 32; ++i) {
    out[i] = static_cast<float>(std::to_integer<int8_t>(block[2 + i])) * scale;
  }
}

// Six bits of scale and six of least value for each of eight parts: those of parts 0 to 3 in the
// lower bits of bytes 0 to 3 and 4 to 7; of parts 4 to 7 four bits in bytes 8 to 11, scale below
// least, and the other two in the upper bits of the bytes of parts 0 to 3.
struct PartScale {
  float scale, least;

  PartScale(const std::byte* scales, int part) {
    if (part < 4) {
      scale = static_cast<float>(Byte(scales + part) & 63);
      least = static_cast<float>(Byte(scales + part + 4) & 63);
      return;
    }
    const int low = Byte(scales + part + 4);
    scale = static_cast<float>((low & 15) | (Byte(scales + part - 4) >> 6) << 4);
    least = static_cast<float>((low >> 4) | (Byte(scales + part) >> 6) << 4);
  }
};

// Eight parts of 32 values: 32 bytes of q have a part below the next one. `fifth` (null: none):
// 32 bytes, of which bit p of byte i is of value i of part p.
void Q4Or5(const std::byte* block, const std::byte* fifth, const std::byte* packed, float* out) {
  const float d = Half(block);
  const float m = Half(block + 2);
  for (int part = 0; part < 8; ++part) {
    const PartScale of(block + 4, part);
    const float scale = d * of.scale;
    const float least = m * of.least;
    for (int i = 0; i < 32; ++i) {
      const int byte = Byte(packed + part / 2 * 32 + i);
      int q = part % 2 == 0 ? byte & 15 : byte >> 4;
      if (fifth != nullptr) q |= (Byte(fifth + i) >> part & 1) << 4;
      out[part * 32 + i] = scale * static_cast<float>(q) - least;
    }
  }
}

// Two halves of 128 values, each of four quarters: bytes i and 32 + i of the half's 64 have the
// lower four bits of value i of quarters 0 and 1, and above them of 2 and 3; byte i of the half's
// 32 upper ones has two bits of each. A scale is of 16 values.
void Q6(const std::byte* block, float* out) {
  const std::byte* const lower = block;
  const std::byte* const upper = block + 128;
  const std::byte* const scales = block + 192;
  const float d = Half(block + 208);
  for (int at = 0; at < 256; ++at) {
    const int half = at / 128;
    const int quarter = at % 128 / 32;
    const int i = at % 32;
    const int byte = Byte(lower + half * 64 + quarter % 2 * 32 + i);
    const int low = quarter < 2 ? byte & 15 : byte >> 4;
    const int high = Byte(upper + half * 32 + i) >> 2 * quarter & 3;
    const float scale = d * static_cast<float>(std::to_integer<int8_t>(scales[at / 16]));
    out[at] = scale * static_cast<float>((low | high << 4) - 32);
  }
}

}  // namespace

void DequantiseBlock(StoredType type, const std::byte* block, float* out) {
  switch (type) {
    case StoredType::kQ8_0:
      return Q8(block, out);
    // (q - 8) * d and q * d - 8 * d are the same float32: all products are exact.
    case StoredType::kQ4_0:
      return Unpack(block + 2, 0, Half(block), -8 * Half(block), out);
    case StoredType::kQ4_1:
      return Unpack(block + 4, 0, Half(block), Half(block + 2), out);
    case StoredType::kQ5_0:
      return Unpack(block + 6, LoadBits(block + 2), Half(block), -16 * Half(block), out);
    case StoredType::kQ5_1:
      return Unpack(block + 8, LoadBits(block + 4), Half(block), Half(block + 2), out);
    case StoredType::kQ4_K:
      return Q4Or5(block, nullptr, block + 16, out);
    case StoredType::kQ5_K:
      return Q4Or5(block, block + 16, block + 48, out);
    case StoredType::kQ6_K:
      return Q6(block, out);
    case StoredType::kF32:
    case StoredType::kF16:
    case StoredType::kBF16:
      return;  // no blocks
  }
}

}  // namespace sirocco
