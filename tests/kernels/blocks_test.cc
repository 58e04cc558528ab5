// Products of weights in blocks: against double precision, and bit by bit the same from every
// instruction set.
#include "kernels/cpu/blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/cpu/block_kernels.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/pack.h"
#include "tests/kernels/tensors.h"
#include "tests/testing/blocks.h"

namespace sirocco {
namespace {

using cpu::BlockTarget;

constexpr int kBlock = 32;

// Any bytes, with scales and minima of the sizes that weights have.
std::vector<uint8_t> AnyBlocks(Values& values, DType type, int64_t elements) {
  std::vector<uint8_t> blocks(BytesOf(type, static_cast<uint64_t>(elements)));
  for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(values.Below(256));
  const size_t bytes = static_cast<size_t>(LayoutOf(type).bytes);
  for (size_t at = 0; at < blocks.size(); at += bytes) {
    for (size_t half = 0; half < (type == DType::kQ4_1 ? 2 : 1); ++half) {
      const uint16_t bits = FloatToFloat16(values.Floats(1, 0.05f)[0]);
      std::memcpy(&blocks[at + 2 * half], &bits, sizeof(bits));
    }
  }
  return blocks;
}

// The largest magnitude of 32 activations becomes 127.
std::vector<double> QuantisedActivations(const std::vector<float>& values) {
  std::vector<double> quantised;
  for (size_t at = 0; at < values.size(); at += kBlock) {
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(values[at + i]));
    for (int i = 0; i < kBlock; ++i) {
      const float q = std::nearbyint(values[at + i] * (127.0f / largest));
      quantised.push_back(largest == 0 ? 0.0 : double{q} * double{largest} / 127);
    }
  }
  return quantised;
}

std::vector<double> Product(const std::vector<double>& in, int32_t inputs,
                            const std::vector<float>& weight) {
  std::vector<double> out;
  for (size_t r = 0; r < in.size(); r += inputs) {
    for (size_t c = 0; c < weight.size(); c += inputs) {
      double sum = 0;
      for (int32_t i = 0; i < inputs; ++i) sum += in[r + i] * double{weight[c + i]};
      out.push_back(sum);
    }
  }
  return out;
}

class BlocksTest : public ::testing::TestWithParam<DType> {
 protected:
  BlocksTest() : device_(CreateCpuDevice(2).value()), memory_(*device_) {}
  ~BlocksTest() override { cpu::SetBlockTargetForTest(cpu::BestBlockTarget()); }

  Matrix Upload(const std::vector<uint8_t>& blocks, int32_t outputs, int32_t inputs) {
    const Matrix matrix{memory_.Upload(blocks), GetParam(), outputs, inputs};
    EXPECT_TRUE(device_->Pack(matrix).ok());
    return matrix;
  }

  std::vector<float> MatMul(const Matrix& weight, const std::vector<float>& in) {
    MatMulParams p;
    p.rows = static_cast<int32_t>(in.size()) / weight.cols;
    p.in = memory_.Activations(in, DType::kFloat32, weight.cols);
    p.weight = weight;
    p.out = memory_.Empty(p.rows, DType::kFloat32, weight.rows);
    const absl::Status status = device_->ops().Run(p);
    EXPECT_TRUE(status.ok()) << status;
    return memory_.Download(p.out, p.rows);
  }

  std::unique_ptr<Device> device_;
  Memory memory_;
};

struct Shape {
  int32_t rows, outputs, inputs;
};
// Whole groups of 16 outputs and rests, one row to many, one block to many.
constexpr Shape kShapes[] = {{1, 1, 32},    {1, 16, 32},   {1, 192, 576}, {2, 15, 64},
                             {3, 17, 96},   {4, 100, 160}, {5, 31, 32},   {7, 64, 1536},
                             {13, 97, 64},  {150, 33, 96}, {300, 16, 64}, {1, 1000, 1536},
                             {7, 200, 1536}};

TEST_P(BlocksTest, AgainstDoublePrecision) {
  for (const auto& [rows, outputs, inputs] : kShapes) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << outputs << " x " << inputs);
    Values values(static_cast<uint32_t>(rows * 31 + outputs * 7 + inputs));
    const std::vector<uint8_t> blocks = AnyBlocks(values, GetParam(), int64_t{outputs} * inputs);
    const std::vector<float> in = values.Floats(int64_t{rows} * inputs);
    const std::vector<float> weight = DecodeBlocks(blocks, GetParam());
    const std::vector<float> got = MatMul(Upload(blocks, outputs, inputs), in);
    ExpectNear(got, Product(QuantisedActivations(in), inputs, weight), 5e-6);
    // And what the activations' int8 loses of the product of the values as they are.
    const std::vector<double> exact(in.begin(), in.end());
    ExpectNear(got, Product(exact, inputs, weight), 2e-2);
  }
}

TEST_P(BlocksTest, EveryInstructionSetGivesTheSameBits) {
  int compared = 0;
  for (const BlockTarget target : {BlockTarget::kAvx2, BlockTarget::kVnni}) {
    if (!cpu::Supports(target)) continue;
    for (const auto& [rows, outputs, inputs] : kShapes) {
      Values values(static_cast<uint32_t>(rows * 17 + outputs * 5 + inputs));
      const Matrix weight =
          Upload(AnyBlocks(values, GetParam(), int64_t{outputs} * inputs), outputs, inputs);
      const std::vector<float> in = values.Floats(int64_t{rows} * inputs, 3.0f);
      cpu::SetBlockTargetForTest(BlockTarget::kPortable);
      const std::vector<float> portable = MatMul(weight, in);
      cpu::SetBlockTargetForTest(target);
      EXPECT_EQ(MatMul(weight, in), portable) << rows << " x " << outputs << " x " << inputs;
      ++compared;
    }
  }
  if (compared == 0) GTEST_SKIP() << "needs a processor with AVX2";
}

// The extremes of what int8 and 4 bits hold, all at once: no sum of any instruction set saturates.
TEST_P(BlocksTest, NothingSaturates) {
  constexpr int32_t kInputs = 64;
  for (const uint8_t byte : {0x00, 0x7f, 0x80, 0x81, 0xff, 0x0f, 0xf0}) {
    std::vector<uint8_t> blocks(BytesOf(GetParam(), 16 * kInputs), byte);
    const size_t bytes = static_cast<size_t>(LayoutOf(GetParam()).bytes);
    for (size_t at = 0; at < blocks.size(); at += bytes) {
      const uint16_t one = FloatToFloat16(1);
      std::memcpy(&blocks[at], &one, sizeof(one));
      if (GetParam() == DType::kQ4_1) std::memcpy(&blocks[at + 2], &one, sizeof(one));
    }
    const std::vector<float> weight = DecodeBlocks(blocks, GetParam());
    for (const float sign : {-1.0f, 1.0f}) {
      const std::vector<float> in(5 * kInputs, sign * 127);
      const std::vector<double> wide(in.begin(), in.end());
      const std::vector<double> want = Product(wide, kInputs, weight);
      const Matrix matrix = Upload(blocks, 16, kInputs);
      for (const BlockTarget target :
           {BlockTarget::kPortable, BlockTarget::kAvx2, BlockTarget::kVnni}) {
        if (!cpu::Supports(target)) continue;
        cpu::SetBlockTargetForTest(target);
        const std::vector<float> got = MatMul(matrix, in);
        for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[i]) << int{byte};
      }
    }
  }
}

// What a damaged file may hold: nothing but NaN and infinity may come of it, and only where it
// does.
TEST_P(BlocksTest, ScalesThatAreNoNumbers) {
  constexpr int32_t kInputs = 64, kOutputs = 20;  // a whole group and a rest
  for (const uint16_t bits : {0x7c00, 0xfc00, 0x7e00, 0x7c01, 0xffff}) {
    Values values(bits);
    std::vector<uint8_t> blocks = AnyBlocks(values, GetParam(), kOutputs * kInputs);
    const std::vector<float> in = values.Floats(3 * kInputs);
    const std::vector<float> before = MatMul(Upload(blocks, kOutputs, kInputs), in);
    for (const int32_t row : {2, 18}) {
      std::memcpy(&blocks[BytesOf(GetParam(), static_cast<uint64_t>(row * kInputs))], &bits,
                  sizeof(bits));
    }
    const Matrix weight = Upload(blocks, kOutputs, kInputs);
    for (const BlockTarget target :
         {BlockTarget::kPortable, BlockTarget::kAvx2, BlockTarget::kVnni}) {
      if (!cpu::Supports(target)) continue;
      cpu::SetBlockTargetForTest(target);
      const std::vector<float> got = MatMul(weight, in);
      for (size_t i = 0; i < got.size(); ++i) {
        const bool damaged = i % kOutputs == 2 || i % kOutputs == 18;
        EXPECT_EQ(std::isfinite(got[i]), !damaged) << i;
        if (!damaged) {
          EXPECT_EQ(got[i], before[i]) << i;
        }
      }
    }
  }
}

// A block of activations in which one is not finite makes its row NaN, and no other.
TEST_P(BlocksTest, ActivationsThatAreNoNumbers) {
  constexpr int32_t kInputs = 96, kOutputs = 37;
  Values values(9);
  const Matrix weight =
      Upload(AnyBlocks(values, GetParam(), kOutputs * kInputs), kOutputs, kInputs);
  const std::vector<float> good = values.Floats(5 * kInputs);
  const std::vector<float> before = MatMul(weight, good);
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> in = good;
    in[2 * kInputs + 40] = bad;
    const std::vector<float> got = MatMul(weight, in);
    for (size_t i = 0; i < got.size(); ++i) {
      if (i / kOutputs == 2) {
        EXPECT_TRUE(std::isnan(got[i])) << i;
      } else {
        EXPECT_EQ(got[i], before[i]) << i;
      }
    }
  }
}

TEST_P(BlocksTest, TinyAndHugeActivations) {
  constexpr int32_t kInputs = 32, kOutputs = 16;
  Values values(10);
  const std::vector<uint8_t> blocks = AnyBlocks(values, GetParam(), kOutputs * kInputs);
  const Matrix weight = Upload(blocks, kOutputs, kInputs);
  const std::vector<float> decoded = DecodeBlocks(blocks, GetParam());
  for (const float size : {0.0f, 1e-44f, 1e-37f, 1e-30f, 1e30f}) {
    const std::vector<float> in = values.Floats(kInputs, size);
    const std::vector<float> got = MatMul(weight, in);
    const std::vector<double> wide(in.begin(), in.end());
    const std::vector<double> want = Product(wide, kInputs, decoded);
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], want[i], 2e-2 * kInputs * size + 1e-35) << size;
    }
  }
}

TEST_P(BlocksTest, RowsOfAnEmbeddingAreWhatTheBlocksStandFor) {
  constexpr int32_t kVocab = 37, kHidden = 96;  // two whole groups and a rest
  Values values(11);
  const std::vector<uint8_t> blocks = AnyBlocks(values, GetParam(), kVocab * kHidden);
  const std::vector<float> want = DecodeBlocks(blocks, GetParam());
  const Matrix table = Upload(blocks, kVocab, kHidden);
  for (int32_t row = 0; row < kVocab; ++row) {
    std::vector<float> got(kHidden);
    cpu::UnpackRow(table, row, 2.0f, got.data());
    for (int32_t i = 0; i < kHidden; ++i) ASSERT_EQ(got[i], want[row * kHidden + i] * 2) << row;
  }
}

TEST_P(BlocksTest, PartsOfARowAreRefused) {
  const Matrix weight{memory_.Raw(nullptr, 4096), GetParam(), 4, 48};
  MatMulParams p;
  p.rows = 1;
  p.in = memory_.Empty(1, DType::kFloat32, 48);
  p.weight = weight;
  p.out = memory_.Empty(1, DType::kFloat32, 4);
  const absl::Status status = device_->ops().Run(p);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("has 48 columns, " + std::string(NameOf(GetParam())) +
                                  " has blocks of 32"),
            std::string::npos)
      << status;
}

INSTANTIATE_TEST_SUITE_P(Types, BlocksTest,
                         ::testing::Values(DType::kQ8_0, DType::kQ4_0, DType::kQ4_1),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

}  // namespace
}  // namespace sirocco
