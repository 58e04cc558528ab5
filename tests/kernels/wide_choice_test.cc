// Which products are wide, and in which tiles.
#include <gtest/gtest.h>

#include <cstdint>

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
  EXPECT_TRUE(ChooseWide(GateUp(rows, outputs, inputs), choice)) << rows << " rows";
  return choice.tile;
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
  // gemma3-1b
  EXPECT_EQ(TileOf(128, 6912, 1152), WideTile::kShared128);
  EXPECT_EQ(TileOf(192, 6912, 1152), WideTile::kTall128);
  EXPECT_EQ(TileOf(256, 6912, 1152), WideTile::kPairs224);
}

// fused_library_test has each tile on the device.
TEST(WideChoiceTest, TilesOfTests) {
  EXPECT_EQ(TileOf(65, 96, 136), WideTile::kShared128);
  EXPECT_EQ(TileOf(128, 8512, 136), WideTile::kShared224);
  EXPECT_EQ(TileOf(129, 8512, 136), WideTile::kTall128);
  EXPECT_EQ(TileOf(200, 8512, 136), WideTile::kPairs224);
  EXPECT_EQ(TileOf(256, 8448, 136), WideTile::kPairs256);
}

TEST(WideChoiceTest, WhatIsNot) {
  WideChoice choice;
  WideProductParams p = GateUp(kWideRows, 96, 136);
  EXPECT_TRUE(ChooseWide(p, choice));
  p.rows = kWideRows - 1;
  EXPECT_FALSE(ChooseWide(p, choice));
  p = GateUp(128, 96, 136);
  p.up = {};
  EXPECT_FALSE(ChooseWide(p, choice));
  EXPECT_FALSE(ChooseWide(GateUp(128, 100, 136), choice));
  EXPECT_FALSE(ChooseWide(GateUp(128, 96, 132), choice));
  p = GateUp(128, 96, 136);
  p.weight.dtype = p.up.dtype = DType::kFloat32;
  EXPECT_FALSE(ChooseWide(p, choice));
  p = GateUp(128, 96, 136);
  p.in.data = reinterpret_cast<void*>(uintptr_t{0x10008});
  EXPECT_FALSE(ChooseWide(p, choice));
  // Up before gate.
  p = GateUp(128, 96, 136);
  p.up.data = reinterpret_cast<void*>(uintptr_t{0x18000});
  EXPECT_FALSE(ChooseWide(p, choice));
}

}  // namespace
}  // namespace sirocco::cuda
