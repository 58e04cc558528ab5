#include "graphs/prefill_sizes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sirocco {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ExecutorOptions Options() {
  ExecutorOptions options;
  options.mode = Mode::kDecoderGraph;
  options.max_batch_size = 7;
  options.max_length = 1024;
  options.fill_prefill = true;
  return options;
}

TEST(PrefillSizesTest, AStepIsFilledUpToTheNextOne) {
  const PrefillSizes sizes(Options());
  EXPECT_THAT(sizes.all(), ElementsAre(32, 64, 128, 192, 256, 320, 384, 448, 512));
  const struct {
    int32_t rows, filled;
  } kCases[] = {{1, 32},    {31, 32},   {32, 32},   {33, 64},   {64, 64},   {65, 128},
                {128, 128}, {129, 192}, {511, 512}, {512, 512}, {513, 513}, {4000, 4000}};
  for (const auto& c : kCases) EXPECT_EQ(sizes.Of(c.rows), c.filled) << c.rows;
  EXPECT_EQ(sizes.most_filling(), 63);
}

TEST(PrefillSizesTest, ManyRowsLieFurtherApart) {
  ExecutorOptions options = Options();
  options.prefill_chunk_size = 1024;
  const PrefillSizes sizes(options);
  EXPECT_THAT(sizes.all(),
              ElementsAre(32, 64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024));
  EXPECT_EQ(sizes.Of(513), 640);
  EXPECT_EQ(sizes.Of(1025), 1025);
  EXPECT_EQ(sizes.most_filling(), 127);
  options.prefill_chunk_size = 700;
  EXPECT_EQ(PrefillSizes(options).all().back(), 700);
  EXPECT_EQ(PrefillSizes(options).Of(641), 700);
}

TEST(PrefillSizesTest, TheLastIsTheLargestStep) {
  ExecutorOptions options = Options();
  options.prefill_chunk_size = 100;
  EXPECT_THAT(PrefillSizes(options).all(), ElementsAre(32, 64, 100));
  EXPECT_EQ(PrefillSizes(options).most_filling(), 35);
  options.prefill_chunk_size = 64;
  EXPECT_THAT(PrefillSizes(options).all(), ElementsAre(32, 64));
  options.prefill_chunk_size = 5;
  EXPECT_THAT(PrefillSizes(options).all(), ElementsAre(5));
  options.prefill_chunk_size = 1;
  EXPECT_THAT(PrefillSizes(options).all(), ElementsAre(1));
  EXPECT_EQ(PrefillSizes(options).most_filling(), 0);
  options.prefill_chunk_size = 65536;
  EXPECT_EQ(PrefillSizes(options).all().back(), 1024);
}

// Of a lane's positions there are no more.
TEST(PrefillSizesTest, NoMoreIsFilledUpThanALaneHolds) {
  ExecutorOptions options = Options();
  options.max_length = 10;
  const PrefillSizes sizes(options);
  EXPECT_EQ(sizes.most_filling(), 10);
  EXPECT_EQ(sizes.Of(21), 21);
  EXPECT_EQ(sizes.Of(22), 32);
}

TEST(PrefillSizesTest, LanesAndBlocks) {
  ExecutorOptions options = Options();
  EXPECT_EQ(LanesOnDevice(options), 8);
  EXPECT_EQ(FillingBlocks(options), 4);  // of 16 slots, for 63
  options.block_size = 1024;
  EXPECT_EQ(FillingBlocks(options), 1);
}

TEST(PrefillSizesTest, NobodyFillsUpUnasked) {
  ExecutorOptions unasked = Options();
  unasked.fill_prefill = false;
  ExecutorOptions eager = Options();
  eager.mode = Mode::kEager;
  ExecutorOptions imposed = Options();
  imposed.expert_trace.impose = true;
  for (const ExecutorOptions& options : {unasked, eager, imposed}) {
    EXPECT_THAT(PrefillSizes(options).all(), IsEmpty());
    EXPECT_EQ(PrefillSizes(options).Of(5), 5);
    EXPECT_EQ(LanesOnDevice(options), 7);
    EXPECT_EQ(FillingBlocks(options), 0);
  }
  ExecutorOptions twin = Options();
  twin.mode = Mode::kLayer;
  EXPECT_EQ(PrefillSizes(twin).Of(5), 32);
}

}  // namespace
}  // namespace sirocco
