// A KV cache in float8: what is written of a vector, and the fused operations that write and read
// it. Attention over one: attention_test.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "kernels/kv_scale.h"
#include "tests/kernels/fused_ops_test.h"

namespace sirocco {
namespace {

// ---- The type and its scales
// ---------------------------------------------------------------------

TEST(Float8Test, ValuesAreThoseOfTheFormat) {
  for (int bits = 0; bits < 127; ++bits) {
    const int exponent = bits / 8;
    const double mantissa = bits % 8 / 8.0;
    const double value =
        exponent == 0 ? std::ldexp(mantissa, -6) : std::ldexp(1 + mantissa, exponent - 7);
    EXPECT_EQ(Float8{static_cast<uint8_t>(bits)}.ToFloat(), value) << bits;
    EXPECT_EQ(Float8{static_cast<uint8_t>(bits | 128)}.ToFloat(), -value) << bits;
  }
  EXPECT_TRUE(std::isnan(Float8{0x7f}.ToFloat()));
  EXPECT_TRUE(std::isnan(Float8{0xff}.ToFloat()));
  EXPECT_EQ(Float8{0x7e}.ToFloat(), 448);
}

TEST(Float8Test, RoundsToTheNearestAndTiesToEven) {
  for (uint8_t bits = 0; bits < 126; ++bits) {
    const float low = Float8{bits}.ToFloat();
    const float high = Float8{static_cast<uint8_t>(bits + 1)}.ToFloat();
    const float middle = (low + high) / 2;
    EXPECT_EQ(Float8::FromFloat(low).bits, bits);
    EXPECT_EQ(Float8::FromFloat(std::nextafter(middle, 0.0f)).bits, bits);
    EXPECT_EQ(Float8::FromFloat(middle).bits, bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(Float8::FromFloat(std::nextafter(middle, 500.0f)).bits, bits + 1);
    EXPECT_EQ(Float8::FromFloat(-high).bits, (bits + 1) | 128);
  }
}

TEST(Float8Test, WhatIsTooLargeBecomesTheLargest) {
  for (const float large : {448.0f, 464.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(Float8::FromFloat(large).bits, 0x7e);
    EXPECT_EQ(Float8::FromFloat(-large).bits, 0xfe);
  }
  EXPECT_EQ(Float8::FromFloat(std::nanf("")).bits & 0x7f, 0x7f);
}

TEST(KvScaleTest, TheLargestElementBecomes128To256) {
  for (int exponent = -118; exponent <= 127; ++exponent) {
    for (const float mantissa : {1.0f, 1.5f, 1.9999999f}) {
      const float largest = std::ldexp(mantissa, exponent);
      const uint8_t scale = KvScaleFor(MagnitudeBits(-largest));
      EXPECT_EQ(largest * KvScaleInverse(scale), std::ldexp(mantissa, 7)) << exponent;
      EXPECT_EQ(KvScaleValue(scale) * KvScaleInverse(scale), 1) << exponent;
    }
  }
}

TEST(KvScaleTest, OfTheSmallestAndOfWhatIsNotFinite) {
  EXPECT_EQ(KvScaleFor(0), 1);
  EXPECT_EQ(KvScaleFor(MagnitudeBits(1e-42f)), 1);
  EXPECT_EQ(KvScaleValue(0), 0);  // of memory that no one has written
  for (const float value : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    const uint8_t scale = KvScaleFor(MagnitudeBits(value));
    EXPECT_EQ(scale, kNoKvScale);
    EXPECT_TRUE(std::isnan(KvScaleValue(scale)));
  }
}

TEST(KvScaleTest, ALayerIsAMultipleOf16Bytes) {
  EXPECT_EQ(KvLayerElements(DType::kFloat8, 8, 16, 128), 2 * 8 * 16 * 129);
  EXPECT_EQ(KvLayerElements(DType::kFloat8, 1, 5, 64), 656);  // 650 are used
  EXPECT_EQ(KvLayerElements(DType::kBFloat16, 1, 5, 64), 640);
}

// ---- Operations
// ----------------------------------------------------------------------------------

class Float8KvTest : public FusedOpsTest {
 protected:
  // Writes rows of k and v, one each of lane 0 from position 3 on, into a cache with heads of
  // `dim`; returns what it then has of them, and checks that nothing else has changed.
  std::vector<float> Written(const std::vector<float>& k, const std::vector<float>& v, int32_t rows,
                             int32_t kv_heads, int32_t dim) {
    World world(memory(), {.groups = 2, .block_size = 5}, 11);
    KvCache cache(memory(), world, DType::kFloat8, kv_heads, dim, 1, 12);
    std::vector<float> want = cache.Download(memory());
    std::vector<int32_t> lane(rows, 2), position;
    for (int32_t r = 0; r < rows; ++r) position.push_back(3 + r);
    Execute(WriteKvParams{rows, world.Map(lane, position), world.lanes(),
                          memory().Activations(k, activations(), kv_heads * dim),
                          memory().Activations(v, activations(), kv_heads * dim), cache.layer()});
    std::vector<float> got = cache.Download(memory());
    std::vector<float> written;
    for (int32_t r = 0; r < rows; ++r) {
      for (const bool value : {false, true}) {
        for (int32_t h = 0; h < kv_heads; ++h) {
          const int64_t at = cache.IndexOf(world, 2, position[r], h, value);
          written.insert(written.end(), got.begin() + at, got.begin() + at + dim);
          std::fill_n(got.begin() + at, dim, 0.0f);
          std::fill_n(want.begin() + at, dim, 0.0f);
        }
      }
    }
    EXPECT_EQ(got, want);
    return written;
  }
};

// As k and v of one row: a vector's rounding to float8 with the scale of its own largest element.
std::vector<float> RoundedVectors(const std::vector<float>& values, int32_t dim) {
  std::vector<float> rounded;
  for (size_t first = 0; first < values.size(); first += dim) {
    float largest = 0;
    for (int32_t i = 0; i < dim; ++i) largest = std::max(largest, std::fabs(values[first + i]));
    const int exponent = largest > 0 ? std::ilogb(largest) - 7 : 0;
    for (int32_t i = 0; i < dim; ++i) {
      const float scaled = std::ldexp(values[first + i], -exponent);
      rounded.push_back(std::ldexp(Float8::FromFloat(scaled).ToFloat(), exponent));
    }
  }
  return rounded;
}

TEST_P(Float8KvTest, EachVectorHasItsOwnScale) {
  for (const int32_t dim : {1, 17, 64, 128, 200}) {
    SCOPED_TRACE(dim);
    const int32_t kv_heads = 3;
    const int32_t rows = 4;
    Values values(41);
    std::vector<float> k, v, want;
    for (int32_t r = 0; r < rows; ++r) {
      for (std::vector<float>* rows_of : {&k, &v}) {
        for (int32_t h = 0; h < kv_heads; ++h) {
          const float size = std::ldexp(1.0f, values.Below(25) - 12);
          const std::vector<float> head = Rounded(values.Floats(dim, size), activations());
          rows_of->insert(rows_of->end(), head.begin(), head.end());
          const std::vector<float> stored = RoundedVectors(head, dim);
          want.insert(want.end(), stored.begin(), stored.end());
        }
      }
    }
    EXPECT_EQ(Written(k, v, rows, kv_heads, dim), want);
  }
}

TEST_P(Float8KvTest, ZerosStayZerosAndOneLargeElementLeavesTheRestTheirSigns) {
  const int32_t dim = 64;
  std::vector<float> k(dim, 0.0f), v(dim, 0.001f);
  v[5] = -1024;
  v[6] = 20;
  v = Rounded(v, activations());
  const std::vector<float> written = Written(k, v, 1, 1, dim);
  EXPECT_EQ(reference::Slice(written, 0, dim), k);
  EXPECT_EQ(written[dim + 5], -1024);
  EXPECT_EQ(written[dim + 6], 20);
  EXPECT_EQ(written[dim], 0);  // below half of the least step, 2^-9 * 8
}

// It must show, as it does in other types, and stay in its vector.
TEST_P(Float8KvTest, WhatIsNotFiniteMakesItsVectorNaN) {
  const int32_t dim = 32;
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    std::vector<float> k(2 * dim, 1.0f), v(2 * dim, 2.0f);
    k[dim + 3] = bad;
    const std::vector<float> written = Written(k, v, 1, 2, dim);
    for (int32_t i = 0; i < dim; ++i) {
      EXPECT_EQ(written[i], 1.0f);
      EXPECT_TRUE(std::isnan(written[dim + i])) << i;
      EXPECT_EQ(written[2 * dim + i], 2.0f);
      EXPECT_EQ(written[3 * dim + i], 2.0f);
    }
  }
}

// Heads of every size that a kernel may cut in its own way, as a layer that the host knows and as
// one that it does not.
TEST_P(Float8KvTest, QkvAttentionOfHeadsOfAllSizes) {
  for (const auto& [head_dim, rotary_dim, heads, rows] :
       {std::tuple(12, 8, 2, 3), std::tuple(17, 10, 3, 7), std::tuple(64, 64, 1, 11),
        std::tuple(64, 24, 4, 37), std::tuple(68, 24, 7, 5), std::tuple(128, 128, 4, 3),
        std::tuple(128, 0, 16, 3), std::tuple(256, 256, 4, 11), std::tuple(256, 64, 1, 3),
        std::tuple(512, 512, 2, 3), std::tuple(1024, 64, 1, 3)}) {
    for (const bool on_host : {false, true}) {
      const LayerShape shape{.hidden = 64,
                             .heads = heads,
                             .kv_heads = 1,
                             .head_dim = head_dim,
                             .rotary_dim = rotary_dim,
                             .head_norms = heads != 2,
                             .on_host = on_host,
                             .adjacent = on_host};
      OnShape(shape, rows, [&](const LayerWorld& w) { ExpectQkvAttention(w); });
    }
  }
}

TEST_P(Float8KvTest, QkvAttentionOfManyRowsAndKvHeads) {
  for (const auto& [head_dim, heads] : {std::pair(64, 6), std::pair(128, 15), std::pair(256, 12)}) {
    SCOPED_TRACE(head_dim);
    const LayerShape shape{
        .hidden = 64, .heads = heads, .kv_heads = 3, .head_dim = head_dim, .rotary_dim = head_dim};
    OnShape(shape, 70, [&](const LayerWorld& w) { ExpectQkvAttention(w); });
  }
}

SIROCCO_ON_ALL_FLOAT8_DEVICES(Float8KvTest);

}  // namespace
}  // namespace sirocco
