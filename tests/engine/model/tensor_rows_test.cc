#include "engine/model/tensor_rows.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/dtype.h"
#include "tests/engine/model/gguf_writer.h"

namespace sirocco {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

StoredTensor View(StoredType type, std::vector<int64_t> shape, const std::string& bytes) {
  StoredTensor tensor;
  tensor.name = "t";
  tensor.file = "f";
  tensor.type = type;
  tensor.bytes = *StoredBytes(type, shape);
  tensor.shape = std::move(shape);
  EXPECT_EQ(tensor.bytes, bytes.size());
  tensor.data = reinterpret_cast<const std::byte*>(bytes.data());
  return tensor;
}

std::string FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

std::vector<float> Read(const StoredTensor& tensor, int64_t first, int64_t rows) {
  std::vector<float> values(rows * RowElements(tensor));
  const absl::Status status = ReadRows(tensor, first, values);
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

TEST(TensorRowsTest, WhatTheFileLeavesOutIsAdded) {
  const std::string bytes = Raw(0.5f) + Raw(-1.0f) + Raw(0.0f);
  StoredTensor tensor = View(StoredType::kF32, {3}, bytes);
  tensor.added = 1;
  EXPECT_THAT(Read(tensor, 0, 3), ElementsAre(1.5f, 0.0f, 1.0f));
  EXPECT_THAT(Read(tensor, 1, 1), ElementsAre(0.0f));
}

// Blocks and values of the `gguf` Python package: 64 normal values, quantised and dequantised.
TEST(TensorRowsTest, Q8_0AsThePythonPackage) {
  const std::string bytes = FromHex(
      "1a23000ff2d3e9ce0344e7e1191205d1ff23bce9a0bfa3f4c00e08f781e5fe06b3e8"
      "a521c2cd43cdfe38dbf90704b205569e3708d77f30b40525f42bfc2a5bd50de308b5");
  const std::vector<float> expected = {0,
                                       0.208053589f,
                                       -0.19418335f,
                                       -0.624160767f,
                                       -0.319015503f,
                                       -0.693511963f,
                                       0.0416107178f,
                                       0.94317627f,
                                       -0.346755981f,
                                       -0.429977417f,
                                       0.346755981f,
                                       0.249664307f,
                                       0.0693511963f,
                                       -0.651901245f,
                                       -0.0138702393f,
                                       0.485458374f,
                                       -0.94317627f,
                                       -0.319015503f,
                                       -1.33154297f,
                                       -0.901565552f,
                                       -1.28993225f,
                                       -0.166442871f,
                                       -0.887695312f,
                                       0.19418335f,
                                       0.110961914f,
                                       -0.124832153f,
                                       -1.76152039f,
                                       -0.37449646f,
                                       -0.0277404785f,
                                       0.0832214355f,
                                       -1.06800842f,
                                       -0.332885742f,
                                       -0.683517456f,
                                       -0.56224823f,
                                       0.738639832f,
                                       -0.56224823f,
                                       -0.0220489502f,
                                       0.617370605f,
                                       -0.407905579f,
                                       -0.0771713257f,
                                       0.0771713257f,
                                       0.0440979004f,
                                       -0.859909058f,
                                       0.0551223755f,
                                       0.948104858f,
                                       -1.08039856f,
                                       0.60634613f,
                                       0.0881958008f,
                                       -0.452003479f,
                                       1.40010834f,
                                       0.529174805f,
                                       -0.837860107f,
                                       0.0551223755f,
                                       0.407905579f,
                                       -0.132293701f,
                                       0.474052429f,
                                       -0.0440979004f,
                                       0.463027954f,
                                       1.00322723f,
                                       -0.474052429f,
                                       0.143318176f,
                                       -0.319709778f,
                                       0.0881958008f,
                                       -0.826835632f};
  EXPECT_THAT(Read(View(StoredType::kQ8_0, {1, 64}, bytes), 0, 1), ElementsAreArray(expected));
  // One block a row: the second alone.
  EXPECT_THAT(Read(View(StoredType::kQ8_0, {2, 32}, bytes), 1, 1),
              ElementsAreArray(expected.begin() + 32, expected.end()));
}

TEST(TensorRowsTest, Q4_0AsThePythonPackage) {
  const std::string bytes = FromHex("0c33487927452775489c86760a698885386a");
  EXPECT_THAT(
      Read(View(StoredType::kQ4_0, {1, 32}, bytes), 0, 1),
      ElementsAre(0, 0.220214844f, -0.220214844f, -0.660644531f, -0.220214844f, -0.660644531f, 0,
                  0.880859375f, -0.440429688f, -0.440429688f, 0.440429688f, 0.220214844f, 0,
                  -0.660644531f, 0, 0.440429688f, -0.880859375f, -0.220214844f, -1.32128906f,
                  -0.880859375f, -1.32128906f, -0.220214844f, -0.880859375f, 0.220214844f, 0,
                  -0.220214844f, -1.76171875f, -0.440429688f, 0, 0, -1.10107422f, -0.440429688f));
}

TEST(TensorRowsTest, Q4_1AsThePythonPackage) {
  const std::string bytes = FromHex("c2310cbf5a8b295638965abfa8970c8baaa64a8c");
  EXPECT_THAT(Read(View(StoredType::kQ4_1, {1, 32}, bytes), 0, 1),
              ElementsAre(0.0375976562f, 0.217529297f, -0.142333984f, -0.682128906f, -0.322265625f,
                          -0.682128906f, 0.0375976562f, 0.937255859f, -0.322265625f, -0.502197266f,
                          0.397460938f, 0.217529297f, 0.0375976562f, -0.682128906f, 0.0375976562f,
                          0.397460938f, -0.862060547f, -0.322265625f, -1.40185547f, -0.862060547f,
                          -1.22192383f, -0.142333984f, -0.862060547f, 0.217529297f, 0.0375976562f,
                          -0.142333984f, -1.76171875f, -0.322265625f, 0.0375976562f, 0.0375976562f,
                          -1.04199219f, -0.322265625f));
}

TEST(TensorRowsTest, PlainTypesAtAnyAddress) {
  // One byte in, so that no element is aligned.
  const std::string f32 = "x" + Raw(1.5f) + Raw(-2.0f);
  StoredTensor tensor = View(StoredType::kF32, {2, 1}, f32.substr(1));
  tensor.data = reinterpret_cast<const std::byte*>(f32.data()) + 1;
  EXPECT_THAT(Read(tensor, 0, 2), ElementsAre(1.5f, -2.0f));
  const std::string f16 = "x" + Raw<uint16_t>(0x3c00) + Raw<uint16_t>(0x0001);
  tensor = View(StoredType::kF16, {2}, f16.substr(1));
  tensor.data = reinterpret_cast<const std::byte*>(f16.data()) + 1;
  EXPECT_THAT(Read(tensor, 0, 2), ElementsAre(1.0f, 0x1p-24f));
  const std::string bf16 = "x" + Raw<uint16_t>(0x3f80) + Raw<uint16_t>(0xc040);
  tensor = View(StoredType::kBF16, {1, 2}, bf16.substr(1));
  tensor.data = reinterpret_cast<const std::byte*>(bf16.data()) + 1;
  EXPECT_THAT(Read(tensor, 0, 1), ElementsAre(1.0f, -3.0f));
}

// Two heads of four rows: stored 0 1 2 3 are the pairs (0, 1), (2, 3), which become rows 0 2 1 3.
TEST(TensorRowsTest, PermutedRowsAreReadInHuggingFacesOrder) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += Raw<float>(i);
  StoredTensor matrix = View(StoredType::kF32, {8, 1}, bytes);
  matrix.permuted_heads = 2;
  EXPECT_THAT(Read(matrix, 0, 8), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_THAT(Read(matrix, 3, 3), ElementsAre(3, 4, 6));
  StoredTensor bias = View(StoredType::kF32, {8}, bytes);
  bias.permuted_heads = 1;
  EXPECT_THAT(Read(bias, 0, 8), ElementsAre(0, 2, 4, 6, 1, 3, 5, 7));
}

TEST(TensorRowsTest, RangesOutsideTheTensor) {
  const std::string bytes(2 * 64 / 32 * 34, '\0');
  const StoredTensor tensor = View(StoredType::kQ8_0, {2, 64}, bytes);
  std::vector<float> out(128);
  EXPECT_TRUE(ReadRows(tensor, 0, out).ok());
  for (const int64_t row : {int64_t{-1}, int64_t{1}, int64_t{3}, int64_t{1} << 62,
                            std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(ReadRows(tensor, row, out).code(), absl::StatusCode::kInvalidArgument) << row;
  }
  out.resize(32);  // half a row
  EXPECT_EQ(ReadRows(tensor, 0, out).code(), absl::StatusCode::kInvalidArgument);
  StoredTensor odd = tensor;
  odd.permuted_heads = 2;  // heads of one row have no pairs
  out.resize(64);
  EXPECT_EQ(ReadRows(odd, 0, out).code(), absl::StatusCode::kInvalidArgument);
}

TEST(Float16Test, RoundsToNearestEven) {
  // Every float16 comes back; halfway between two goes to the even one, a hair further up.
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float value = Float16ToFloat(static_cast<uint16_t>(bits));
    ASSERT_EQ(FloatToFloat16(value), bits);
    ASSERT_EQ(FloatToFloat16(-value), bits | 0x8000);
    const float next = bits == 0x7bff ? 65536 : Float16ToFloat(static_cast<uint16_t>(bits + 1));
    const float middle = (value + next) / 2;
    ASSERT_EQ(FloatToFloat16(middle), (bits & 1) ? bits + 1 : bits);
    ASSERT_EQ(FloatToFloat16(std::nextafter(middle, 1e9f)), bits + 1);
    ASSERT_EQ(FloatToFloat16(std::nextafter(middle, 0.0f)), bits);
  }
  EXPECT_EQ(FloatToFloat16(1e30f), 0x7c00);
  EXPECT_EQ(FloatToFloat16(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(FloatToFloat16(std::numeric_limits<float>::quiet_NaN()) & 0x7fff, 0x7e00);
}

}  // namespace
}  // namespace sirocco
