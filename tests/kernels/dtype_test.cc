#include "kernels/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace sirocco {
namespace {

TEST(DTypeTest, BFloat16RoundsToNearestEven) {
  EXPECT_EQ(BFloat16::FromFloat(1.0f).bits, 0x3f80);
  EXPECT_EQ(BFloat16::FromFloat(1.0f + 0x1p-8f).bits, 0x3f80);      // a tie: down to even
  EXPECT_EQ(BFloat16::FromFloat(1.0f + 3 * 0x1p-8f).bits, 0x3f82);  // a tie: up to even
  EXPECT_EQ(BFloat16::FromFloat(1.0f + 0x1.1p-8f).bits, 0x3f81);
  EXPECT_EQ(BFloat16::FromFloat(-2.5f).ToFloat(), -2.5f);
  EXPECT_EQ(BFloat16::FromFloat(std::numeric_limits<float>::max()).ToFloat(),
            std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(BFloat16::FromFloat(std::nanf("")).ToFloat()));
}

TEST(DTypeTest, Float16OfEveryKind) {
  EXPECT_EQ(Float16ToFloat(0x0000), 0.0f);
  EXPECT_TRUE(std::signbit(Float16ToFloat(0x8000)));
  EXPECT_EQ(Float16ToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(Float16ToFloat(0x83ff), -0x1.ff8p-15f);
  EXPECT_EQ(Float16ToFloat(0x0400), 0x1p-14f);
  EXPECT_EQ(Float16ToFloat(0x3c00), 1.0f);
  EXPECT_EQ(Float16ToFloat(0xc100), -2.5f);
  EXPECT_EQ(Float16ToFloat(0x7bff), 65504.0f);
  EXPECT_EQ(Float16ToFloat(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(Float16ToFloat(0x7e01)));
}

TEST(DTypeTest, NamesAndSizes) {
  EXPECT_EQ(NameOf(DType::kBFloat16), "bfloat16");
  EXPECT_EQ(BytesOf(DType::kFloat32), 4u);
  EXPECT_EQ(BytesOf(DType::kFloat16), 2u);
}

}  // namespace
}  // namespace sirocco
