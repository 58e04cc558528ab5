#include "engine/model/tensor_rows.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/dtype.h"
#include "tests/engine/model/gguf_writer.h"
#include "tests/testing/golden.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

// Bytes in memory.
class StringReader final : public ByteReader {
 public:
  explicit StringReader(std::string bytes) : bytes_(std::move(bytes)) {}
  uint64_t size() const { return bytes_.size(); }
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const override {
    if (offset > size() || out.size() > size() - offset) return absl::DataLossError("cut short");
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return absl::OkStatus();
  }

 private:
  const std::string bytes_;
};

// All that the reader reads from byte `offset` on.
StoredTensor View(StoredType type, std::vector<int64_t> shape, const StringReader& reader,
                  uint64_t offset = 0) {
  StoredTensor tensor;
  tensor.name = "t";
  tensor.file = "f";
  tensor.type = type;
  tensor.bytes = *StoredBytes(type, shape);
  tensor.shape = std::move(shape);
  tensor.reader = &reader;
  tensor.offset = offset;
  EXPECT_EQ(tensor.bytes, reader.size() - offset);
  return tensor;
}

std::vector<float> Read(const StoredTensor& tensor, int64_t first, int64_t rows) {
  std::vector<float> values(rows * RowElements(tensor));
  const absl::Status status = ReadRows(tensor, first, values);
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

TEST(TensorRowsTest, WhatTheFileLeavesOutIsAdded) {
  const StringReader bytes(Raw(0.5f) + Raw(-1.0f) + Raw(0.0f));
  StoredTensor tensor = View(StoredType::kF32, {3}, bytes);
  tensor.added = 1;
  EXPECT_THAT(Read(tensor, 0, 3), ElementsAre(1.5f, 0.0f, 1.0f));
  EXPECT_THAT(Read(tensor, 1, 1), ElementsAre(0.0f));
}

// Blocks and values of the `gguf` Python package (testdata/make_blocks.py), bit by bit.
TEST(TensorRowsTest, BlocksAsThePythonPackage) {
  const auto tensors = ReadGoldenTensors(TestPath("engine/model/testdata/blocks.safetensors"));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  for (const StoredType type :
       {StoredType::kQ8_0, StoredType::kQ4_0, StoredType::kQ4_1, StoredType::kQ5_0,
        StoredType::kQ5_1, StoredType::kQ4_K, StoredType::kQ5_K, StoredType::kQ6_K}) {
    const std::string name(NameOf(type));
    SCOPED_TRACE(name);
    ASSERT_EQ(tensors->count(name + ".bytes"), 1u);
    std::string stored;
    for (const int64_t byte : tensors->at(name + ".bytes").ints) {
      stored += static_cast<char>(byte);
    }
    const StringReader bytes(std::move(stored));
    const std::vector<float>& expected = tensors->at(name + ".values").floats;
    const int64_t width = static_cast<int64_t>(expected.size());
    const int64_t block = LayoutOf(type).elements;
    ASSERT_EQ(width, 3 * block);
    EXPECT_EQ(Read(View(type, {1, width}, bytes), 0, 1), expected);
    // One block a row: the second alone.
    EXPECT_THAT(Read(View(type, {3, block}, bytes), 1, 1),
                ElementsAreArray(expected.begin() + block, expected.begin() + 2 * block));
  }
}

TEST(TensorRowsTest, PlainTypesAtAnyOffset) {
  // One byte in, so that no element is aligned.
  const StringReader f32("x" + Raw(1.5f) + Raw(-2.0f));
  EXPECT_THAT(Read(View(StoredType::kF32, {2, 1}, f32, 1), 0, 2), ElementsAre(1.5f, -2.0f));
  const StringReader f16("x" + Raw<uint16_t>(0x3c00) + Raw<uint16_t>(0x0001));
  EXPECT_THAT(Read(View(StoredType::kF16, {2}, f16, 1), 0, 2), ElementsAre(1.0f, 0x1p-24f));
  const StringReader bf16("x" + Raw<uint16_t>(0x3f80) + Raw<uint16_t>(0xc040));
  EXPECT_THAT(Read(View(StoredType::kBF16, {1, 2}, bf16, 1), 0, 1), ElementsAre(1.0f, -3.0f));
}

// Whichever way rows are read.
TEST(TensorRowsTest, TheReadersErrorsComeBack) {
  const StringReader bytes(Raw(1.0f) + Raw(2.0f));
  StoredTensor matrix = View(StoredType::kF32, {2, 1}, bytes);
  matrix.offset = 4;
  for (const int32_t heads : {0, 1}) {
    matrix.permuted_heads = heads;
    std::vector<float> values(2);
    EXPECT_EQ(ReadRows(matrix, 0, values).code(), absl::StatusCode::kDataLoss) << heads;
    std::vector<std::byte> rows(8);
    EXPECT_EQ(CopyRows(matrix, 0, rows).code(), absl::StatusCode::kDataLoss) << heads;
  }
}

// Two heads of four rows: stored 0 1 2 3 are the pairs (0, 1), (2, 3), which become rows 0 2 1 3.
TEST(TensorRowsTest, PermutedRowsAreReadInHuggingFacesOrder) {
  std::string stored;
  for (int i = 0; i < 8; ++i) stored += Raw<float>(i);
  const StringReader bytes(std::move(stored));
  StoredTensor matrix = View(StoredType::kF32, {8, 1}, bytes);
  matrix.permuted_heads = 2;
  EXPECT_THAT(Read(matrix, 0, 8), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_THAT(Read(matrix, 3, 3), ElementsAre(3, 4, 6));
  StoredTensor bias = View(StoredType::kF32, {8}, bytes);
  bias.permuted_heads = 1;
  EXPECT_THAT(Read(bias, 0, 8), ElementsAre(0, 2, 4, 6, 1, 3, 5, 7));
}

TEST(TensorRowsTest, RangesOutsideTheTensor) {
  const StringReader bytes(std::string(2 * 64 / 32 * 34, '\0'));
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
