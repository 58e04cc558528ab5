// Which products are wide, and in which tiles.
#include <gtest/gtest.h>

#include <cstdint>

#include "kernels/cuda/wide_grid.h"
#include "kernels/cuda/wide_normed.h"
#include "kernels/cuda/wide_pair.h"
#include "kernels/cuda/wide_product.h"

namespace sirocco::cuda {
namespace {

// Gate and up; nothing is read there.
WideProductParams GateUp(int32_t rows, int32_t outputs, int32_t inputs) {
  const auto at = [](uintptr_t address) { return reinterpret_cast<void*>(address); };
  WideProductParams p;
  p.rows = rows;
  p.in = {at(0x10000), DType::kBFloat16, inputs};
  p.weight = {at(0x20000), DType::kBFloat16, outputs, inputs};
  p.up = {at(0x30000), DType::kBFloat16, outputs, inputs};
  p.out = {at(0x40000), DType::kBFloat16, outputs};
  return p;
}

WideTile TileOf(int32_t rows, int32_t outputs, int32_t inputs) {
  WideChoice choice;
  EXPECT_TRUE(ChooseWide(GateUp(rows, outputs, inputs), false, choice)) << rows << " rows";
  EXPECT_EQ(choice.parts, 1);
  return choice.tile;
}

// A product that joins the residual stream.
WideProductParams Stream(int32_t rows, int32_t outputs, int32_t inputs) {
  WideProductParams p = GateUp(rows, outputs, inputs);
  p.up = {};
  p.out.dtype = DType::kFloat32;
  p.add = true;
  return p;
}

WideTile PartsTileOf(int32_t rows, int32_t outputs, int32_t inputs) {
  WideChoice choice;
  EXPECT_TRUE(ChooseWide(Stream(rows, outputs, inputs), true, choice)) << rows << " rows";
  EXPECT_EQ(choice.parts, kWideParts);
  return choice.tile;
}

bool IsWide(int32_t rows, int32_t outputs, int32_t inputs) {
  WideChoice choice;
  return ChooseWide(Stream(rows, outputs, inputs), true, choice);
}

// The fastest of those that wide_bench measured.
TEST(WideChoiceTest, TilesOfModels) {
  // llama3.1-8b
  EXPECT_EQ(TileOf(65, 14336, 4096), WideTile::kShared224);
  EXPECT_EQ(TileOf(128, 14336, 4096), WideTile::kShared224);
  EXPECT_EQ(TileOf(129, 14336, 4096), WideTile::kTall128);
  EXPECT_EQ(TileOf(192, 14336, 4096), WideTile::kTall128);
  EXPECT_EQ(TileOf(193, 14336, 4096), WideTile::kPairs224);
  EXPECT_EQ(TileOf(256, 14336, 4096), WideTile::kPairs224);
  EXPECT_EQ(TileOf(512, 14336, 4096), WideTile::kPairs224);
  EXPECT_EQ(TileOf(4096, 14336, 4096), WideTile::kPairs256);
  // llama3.2-1b
  EXPECT_EQ(TileOf(128, 8192, 2048), WideTile::kShared128);
  EXPECT_EQ(TileOf(192, 8192, 2048), WideTile::kTall128);
  EXPECT_EQ(TileOf(256, 8192, 2048), WideTile::kPairs256);
  // qwen3-4b, qwen2.5-7b
  EXPECT_EQ(TileOf(128, 9728, 2560), WideTile::kShared160);
  EXPECT_EQ(TileOf(256, 9728, 2560), WideTile::kPairs160);
  EXPECT_EQ(TileOf(128, 18944, 3584), WideTile::kShared144);
  // gemma3-1b
  EXPECT_EQ(TileOf(128, 6912, 1152), WideTile::kShared128);
  EXPECT_EQ(TileOf(192, 6912, 1152), WideTile::kTall128);
  EXPECT_EQ(TileOf(256, 6912, 1152), WideTile::kPairs224);
}

// Prompts are multiplied in the tiles that their figures are of.
TEST(WideChoiceTest, TilesOfPrompts) {
  for (const int32_t rows : {257, 512, 1024, 2048}) {
    for (const int32_t outputs : {8192, 8960, 9728, 14336, 18944}) {
      const WideTile tile = TileOf(rows, outputs, 2048);
      EXPECT_TRUE(tile != WideTile::kShared144 && tile != WideTile::kShared160 &&
                  tile != WideTile::kPairs160)
          << rows << " rows, " << outputs << " outputs";
    }
  }
}

// fused_library_test has each tile on the device.
TEST(WideChoiceTest, TilesOfTests) {
  EXPECT_EQ(TileOf(65, 96, 136), WideTile::kShared128);
  EXPECT_EQ(TileOf(256, 8448, 136), WideTile::kPairs256);
  EXPECT_EQ(TileOf(128, 8512, 136), WideTile::kShared144);
  EXPECT_EQ(TileOf(128, 9520, 136), WideTile::kShared160);
  EXPECT_EQ(TileOf(200, 9520, 136), WideTile::kPairs160);
  EXPECT_EQ(TileOf(128, 10576, 136), WideTile::kShared224);
  EXPECT_EQ(TileOf(129, 10576, 136), WideTile::kTall128);
  EXPECT_EQ(TileOf(200, 10576, 136), WideTile::kPairs224);
}

// The fastest of those that wide_bench measured.
TEST(WideChoiceTest, TilesOfProductsInParts) {
  // llama3.1-8b, down
  EXPECT_EQ(PartsTileOf(129, 4096, 14336), WideTile::kTall128);
  EXPECT_EQ(PartsTileOf(192, 4096, 14336), WideTile::kTall128);
  // As few weights as gemma3-1b's output has
  EXPECT_EQ(PartsTileOf(65, 1152, 1024), WideTile::kShared128);
  EXPECT_EQ(PartsTileOf(128, 1152, 1024), WideTile::kShared128);
  EXPECT_EQ(PartsTileOf(129, 1152, 1024), WideTile::kPairs128);
  EXPECT_EQ(PartsTileOf(256, 1152, 1024), WideTile::kPairs128);
}

// In one run: who prepares many rows looks for the most that are wide.
TEST(WideChoiceTest, RowsOfProductsInParts) {
  struct Case {
    int32_t outputs, inputs, least, most;
  };
  for (const Case& c :
       {Case{4096, 14336, 129, 192}, Case{4096, 6144, 129, 192}, Case{2048, 8192, 301, 0},
        Case{1152, 6912, 301, 0}, Case{1152, 1024, 65, 256}, Case{136, 256, 65, 256},
        Case{136, 6152, 65, 256}, Case{2048, 2048, 301, 0}, Case{4096, 4096, 301, 0},
        Case{136, 192, 301, 0}}) {
    for (int32_t rows = 1; rows <= 300; ++rows) {
      EXPECT_EQ(IsWide(rows, c.outputs, c.inputs), rows >= c.least && rows <= c.most)
          << c.outputs << " outputs of " << c.inputs << " inputs, " << rows << " rows";
    }
  }
}

// No part is without a stage, whose sums nobody would make.
TEST(WideChoiceTest, EachPartHasStages) {
  for (int32_t inputs = 8; inputs <= 8192; inputs += 8) {
    if (!IsWide(128, 136, inputs)) continue;
    const int32_t stages = (inputs + 63) / 64;
    for (int32_t part = 0; part < kWideParts; ++part) {
      const WideStages of_part = StagesOf(stages, part, kWideParts);
      ASSERT_LT(of_part.first, of_part.last) << inputs << " inputs";
    }
  }
}

TEST(WideChoiceTest, ProductsInParts) {
  WideChoice choice;
  WideProductParams p = Stream(128, 1152, 1024);
  p.bias = reinterpret_cast<const float*>(uintptr_t{0x50000});
  // Somebody has to add them up.
  EXPECT_FALSE(ChooseWide(p, false, choice));
  ASSERT_TRUE(ChooseWide(p, true, choice));
  void* const sums = reinterpret_cast<void*>(uintptr_t{0x60000});
  const WideProductParams in_parts = InParts(p, choice.parts, sums);
  EXPECT_EQ(in_parts.parts, kWideParts);
  EXPECT_EQ(in_parts.out.data, sums);
  EXPECT_EQ(in_parts.out.dtype, DType::kFloat32);
  EXPECT_EQ(in_parts.bias, nullptr);
  EXPECT_FALSE(in_parts.add);
  EXPECT_EQ(PartsBytes(p, choice.parts), size_t{4} * 4 * 128 * 1152);
}

// Output with the norms behind it.
WideNormedParams Normed(int32_t rows, int32_t outputs, int32_t inputs) {
  const WideProductParams product = Stream(rows, outputs, inputs);
  WideNormedParams p;
  p.rows = rows;
  p.in = product.in;
  p.weight = product.weight;
  p.hidden = p.sum = product.out;
  p.next = reinterpret_cast<const float*>(uintptr_t{0x50000});
  p.normed = {reinterpret_cast<void*>(uintptr_t{0x60000}), DType::kBFloat16, outputs};
  return p;
}

TEST(WideChoiceTest, OutputsWithNorms) {
  for (int32_t rows = 1; rows <= 300; ++rows) {
    EXPECT_EQ(TakesWideNormed(Normed(rows, 1152, 1024)), rows >= kWideRows && rows <= 256) << rows;
  }
  EXPECT_TRUE(TakesWideNormed(Normed(128, 8, 8)));
  EXPECT_FALSE(TakesWideNormed(Normed(128, 1160, 1024)));
  EXPECT_FALSE(TakesWideNormed(Normed(128, 1152, 1032)));
  EXPECT_FALSE(TakesWideNormed(Normed(128, 1148, 1024)));
  EXPECT_FALSE(TakesWideNormed(Normed(128, 2048, 2048)));
  WideNormedParams p = Normed(128, 1152, 1024);
  p.next = nullptr;
  EXPECT_FALSE(TakesWideNormed(p));
  p = Normed(128, 1152, 1024);
  p.normed.dtype = DType::kFloat16;
  EXPECT_FALSE(TakesWideNormed(p));
  p = Normed(128, 1152, 1024);
  p.sum.data = reinterpret_cast<void*>(uintptr_t{0x40008});
  EXPECT_FALSE(TakesWideNormed(p));
}

// What leaves unnormed rows, and what reads them.
WideProductParams Leaves(int32_t rows, int32_t outputs, int32_t inputs) {
  WideProductParams p = Stream(rows, outputs, inputs);
  p.leaves.next = reinterpret_cast<const float*>(uintptr_t{0x50000});
  p.leaves.rows = reinterpret_cast<void*>(uintptr_t{0x60000});
  p.leaves.squares = reinterpret_cast<float*>(uintptr_t{0x70000});
  return p;
}
WideProductParams Reads(int32_t rows, int32_t outputs, int32_t inputs) {
  WideProductParams p = Stream(rows, outputs, inputs);
  p.add = false;
  return p;
}

constexpr int32_t kClusters = 30;  // of four blocks on an H200

// The fastest of those that wide_pair_bench measured.
TEST(WideChoiceTest, TilesInPairs) {
  const auto tile_of = [](const WideProductParams& p) {
    WideChoice choice;
    EXPECT_TRUE(ChooseWideInPair(p, kClusters, choice)) << p.rows << " rows";
    EXPECT_EQ(choice.parts, 1);
    return choice.tile;
  };
  // llama3.1-8b: down and output, q, k and v, gate and up
  for (const int32_t rows : {33, 64}) {
    EXPECT_EQ(tile_of(Leaves(rows, 4096, 14336)), WideTile::kSharedHalves72);
    EXPECT_EQ(tile_of(Leaves(rows, 4096, 4096)), WideTile::kSharedHalves72);
    EXPECT_EQ(tile_of(Reads(rows, 6144, 4096)), WideTile::kSharedHalves104);
    EXPECT_EQ(tile_of(GateUp(rows, 14336, 4096)), WideTile::kShared224);
  }
  for (const int32_t rows : {65, 128}) {
    EXPECT_EQ(tile_of(Leaves(rows, 4096, 14336)), WideTile::kPairsHalves144);
    EXPECT_EQ(tile_of(Reads(rows, 6144, 4096)), WideTile::kPairsHalves208);
    EXPECT_EQ(tile_of(GateUp(rows, 14336, 4096)), WideTile::kShared224);
  }
  for (const int32_t rows : {129, 256}) {
    EXPECT_EQ(tile_of(Leaves(rows, 4096, 4096)), WideTile::kLowPairs128);
  }
  EXPECT_EQ(tile_of(GateUp(256, 14336, 4096)), WideTile::kPairs224);
}

TEST(WideChoiceTest, RowsInPairs) {
  WideChoice choice;
  for (int32_t rows = 1; rows <= 300; ++rows) {
    EXPECT_EQ(ChooseWideInPair(Leaves(rows, 2048, 2048), kClusters, choice),
              rows > kMostUnnormedRows && rows <= 128)
        << rows;
    EXPECT_EQ(ChooseWideInPair(Leaves(rows, 4096, 4096), kClusters, choice),
              rows > kMostUnnormedRows && rows <= 256)
        << rows;
    EXPECT_EQ(ChooseWideInPair(Reads(rows, 6144, 4096), kClusters, choice),
              rows > kMostUnnormedRows && rows <= 128)
        << rows;
    EXPECT_EQ(ChooseWideInPair(GateUp(rows, 8192, 2048), kClusters, choice),
              rows > kMostUnnormedRows && rows <= 256)
        << rows;
  }
}

// All clusters of a product that exchange sums are there at once.
TEST(WideChoiceTest, PairsFindRoom) {
  for (const int32_t rows : {33, 64, 65, 128}) {
    for (int32_t outputs = 8; outputs <= 8192; outputs += 8) {
      for (const int32_t clusters : {0, 1, 15, 30, 33}) {
        WideChoice choice;
        const bool chosen = ChooseWideInPair(Reads(rows, outputs, 512), clusters, choice);
        const WideTileSize size = SizeOf(choice.tile);
        const int32_t needed = (outputs + size.outputs * size.across - 1) /
                               (size.outputs * size.across) *
                               ((rows + size.rows * size.down - 1) / (size.rows * size.down));
        EXPECT_EQ(chosen, needed <= clusters) << outputs << " outputs, " << rows << " rows";
      }
    }
  }
}

// A number of each run, filled up to fours; none beyond what the two products' memory has.
TEST(WideChoiceTest, RunsOfSquares) {
  for (const int32_t rows : {33, 65, 256}) {
    for (const int32_t outputs : {8, 136, 2048, 4096, 4104}) {
      WideChoice choice;
      if (!ChooseWideInPair(Leaves(rows, outputs, 4096), kClusters, choice)) continue;
      const WideTileSize size = SizeOf(choice.tile);
      const int32_t runs = RunsOf(Leaves(rows, outputs, 4096), choice);
      EXPECT_EQ(runs % 4, 0);
      EXPECT_GE(runs, (outputs + size.outputs - 1) / size.outputs * size.split);
      EXPECT_LE(UnnormedRowsBytes(rows, outputs, false) + sizeof(float) * rows * runs,
                WidePairBytes(rows, outputs));
    }
  }
}

TEST(WideChoiceTest, WhatIsInNoPair) {
  WideChoice choice;
  EXPECT_TRUE(ChooseWideInPair(Leaves(64, 136, 256), kClusters, choice));
  WideProductParams p = Leaves(64, 136, 256);
  p.weight.dtype = p.in.dtype = DType::kFloat16;
  EXPECT_FALSE(ChooseWideInPair(p, kClusters, choice));
  p = Leaves(64, 136, 256);
  p.leaves.squares = reinterpret_cast<float*>(uintptr_t{0x70004});
  EXPECT_FALSE(ChooseWideInPair(p, kClusters, choice));
  p = Leaves(64, 136, 256);
  p.parts = 4;
  EXPECT_FALSE(ChooseWideInPair(p, kClusters, choice));
  EXPECT_FALSE(ChooseWideInPair(Leaves(64, 132, 256), kClusters, choice));
  p = Reads(64, 136, 256);
  p.out.dtype = DType::kBFloat16;
  EXPECT_FALSE(ChooseWideInPair(p, kClusters, choice));
}

TEST(WideChoiceTest, WhatIsNot) {
  WideChoice choice;
  WideProductParams p = GateUp(kWideRows, 96, 136);
  EXPECT_TRUE(ChooseWide(p, false, choice));
  p.rows = kWideRows - 1;
  EXPECT_FALSE(ChooseWide(p, false, choice));
  EXPECT_FALSE(ChooseWide(GateUp(128, 100, 136), false, choice));
  EXPECT_FALSE(ChooseWide(GateUp(128, 96, 132), false, choice));
  p = GateUp(128, 96, 136);
  p.weight.dtype = p.up.dtype = DType::kFloat32;
  EXPECT_FALSE(ChooseWide(p, false, choice));
  p = GateUp(128, 96, 136);
  p.in.data = reinterpret_cast<void*>(uintptr_t{0x10008});
  EXPECT_FALSE(ChooseWide(p, false, choice));
  // Up before gate.
  p = GateUp(128, 96, 136);
  p.up.data = reinterpret_cast<void*>(uintptr_t{0x18000});
  EXPECT_FALSE(ChooseWide(p, false, choice));
}

}  // namespace
}  // namespace sirocco::cuda
