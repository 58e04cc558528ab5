// The AVX512_VNNI kernels, with the instructions emulated, against the portable ones: every bit, on
// every processor.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/block_kernels.h"
#include "tests/kernels/tensors.h"

namespace sirocco {
namespace cpu {

// kernels/cpu/block_vnni.cc, compiled with tests/kernels/emulated/immintrin.h.
void MultiplyGroupVnniEmulated(const GroupProduct& product);

}  // namespace cpu

namespace {

class VnniTest : public ::testing::TestWithParam<DType> {};

TEST_P(VnniTest, GivesThePortableKernelsBits) {
  constexpr int32_t kInputs = 96, kRows = 15;  // 8 + 4 + 2 + 1 rows side by side
  Values values(21);
  std::vector<uint8_t> group(BytesOf(GetParam(), 16 * kInputs));
  for (uint8_t& byte : group) byte = static_cast<uint8_t>(values.Below(256));
  for (int32_t block = 0; block < kInputs / 32; ++block) {
    uint8_t* halves = &group[block * cpu::GroupBlockBytes(GetParam())];
    for (int64_t at = 0; at < cpu::WordsAt(GetParam()); at += 2) {
      const uint16_t bits = FloatToFloat16(values.Floats(1, 0.05f)[0]);
      std::memcpy(halves + at, &bits, sizeof(bits));
    }
  }
  std::vector<std::byte> memory(cpu::QuantisedRows::Bytes(kRows, kInputs));
  const cpu::QuantisedRows x{memory.data(), kRows, kInputs};
  for (int32_t r = 0; r < kRows; ++r) {
    std::vector<float> row = values.Floats(kInputs, 2.0f);
    row[40] = r % 2 == 0 ? 2.0f : -2.0f;  // 127 and -127 meet every weight's extreme
    cpu::QuantiseRow(row.data(), x, r);
  }
  std::vector<float> portable(kRows * 16), emulated(kRows * 16);
  cpu::GroupProduct product{
      GetParam(), reinterpret_cast<const std::byte*>(group.data()), x, 0, kRows, portable.data(),
      16};
  cpu::MultiplyGroupPortable(product);
  product.out = emulated.data();
  cpu::MultiplyGroupVnniEmulated(product);
  EXPECT_EQ(emulated, portable);
}

INSTANTIATE_TEST_SUITE_P(Types, VnniTest,
                         ::testing::Values(DType::kQ8_0, DType::kQ4_0, DType::kQ4_1),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

}  // namespace
}  // namespace sirocco
