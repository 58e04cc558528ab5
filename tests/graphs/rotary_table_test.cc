#include "graphs/rotary_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/graphs/fake_device.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

TEST(RotaryTableTest, EntriesAreCosinesThenSinesOfPositionTimesFrequency) {
  const RotaryDescriptor rotary = {.inverse_frequencies = {1.0f, 0.25f}};
  std::vector<float> entry(4);
  RotaryEntry(rotary, 512, 3, entry.data());
  EXPECT_FLOAT_EQ(entry[0], std::cos(3.0));
  EXPECT_FLOAT_EQ(entry[1], std::cos(0.75));
  EXPECT_FLOAT_EQ(entry[2], std::sin(3.0));
  EXPECT_FLOAT_EQ(entry[3], std::sin(0.75));
}

// 100003 * 0.7 is not a float32; the angle is rounded before its cosine is taken, as the models'
// reference does, and at such a position that is visible.
TEST(RotaryTableTest, TheAngleIsRoundedToFloat) {
  const RotaryDescriptor rotary = {.inverse_frequencies = {0.7f}};
  std::vector<float> entry(2);
  RotaryEntry(rotary, 131072, 100003, entry.data());
  const double wide = 100003.0 * static_cast<double>(0.7f);
  const float angle = static_cast<float>(wide);
  EXPECT_NEAR(entry[0], std::cos(static_cast<double>(angle)), 1e-6);
  EXPECT_GT(std::abs(std::cos(static_cast<double>(angle)) - std::cos(wide)), 1e-5);
}

// One choice for all positions, by the longest sequence there may be.
TEST(RotaryTableTest, LongSequencesHaveRatesOfTheirOwn) {
  const RotaryDescriptor rotary = {.inverse_frequencies = {1.0f},
                                   .long_inverse_frequencies = {0.25f},
                                   .original_context = 64,
                                   .scale = 1.5f};
  std::vector<float> entry(2);
  RotaryEntry(rotary, 64, 3, entry.data());
  EXPECT_FLOAT_EQ(entry[0], 1.5 * std::cos(3.0));
  EXPECT_FLOAT_EQ(entry[1], 1.5 * std::sin(3.0));
  RotaryEntry(rotary, 65, 3, entry.data());
  EXPECT_FLOAT_EQ(entry[0], 1.5 * std::cos(0.75));
  EXPECT_FLOAT_EQ(entry[1], 1.5 * std::sin(0.75));
}

TEST(RotaryTableTest, EveryDescriptorHasATableOfEveryPosition) {
  FakeDevice device;
  const ModelDescriptor d = RandomModelDescriptor();
  const absl::StatusOr<RotaryTables> tables = RotaryTables::Create(device, d, 50);
  ASSERT_TRUE(tables.ok()) << tables.status();
  ASSERT_EQ(tables->tables().size(), 2u);
  for (size_t t = 0; t < 2; ++t) {
    const RotaryTable& table = tables->tables()[t];
    ASSERT_EQ(table.dim, t == 0 ? 16 : 8);
    for (int32_t p = 0; p < 50; ++p) {
      std::vector<float> expected(table.dim);
      RotaryEntry(d.rotaries[t], 50, p, expected.data());
      const float* entry = table.cos_sin + p * table.dim;
      EXPECT_EQ(std::vector<float>(entry, entry + table.dim), expected) << t << " " << p;
    }
  }
}

}  // namespace
}  // namespace sirocco
