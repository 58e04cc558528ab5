// Which maps are made, with a driver that counts them. That kernels copy what the maps say is the
// matmul tests' on a GPU.
#include "kernels/cuda/panel_maps.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string_view>
#include <vector>

namespace {

// What the driver was asked last, and how often.
struct Asked {
  int times = 0;
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_UINT8;
  void* data = nullptr;
  cuuint64_t size[2] = {};
  cuuint64_t stride = 0;
  cuuint32_t box[2] = {};
} asked;
bool refuses = false;

// A map holds its matrix's address and height.
CUresult Encode(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                const cuuint64_t* size, const cuuint64_t* stride, const cuuint32_t* box,
                const cuuint32_t* /*step*/, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  EXPECT_EQ(rank, 2u);
  EXPECT_EQ(swizzle, CU_TENSOR_MAP_SWIZZLE_128B);
  EXPECT_EQ(fill, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  asked = {asked.times + 1, type, data, {size[0], size[1]}, stride[0], {box[0], box[1]}};
  if (refuses) return CUDA_ERROR_INVALID_VALUE;
  std::memset(map, 0, sizeof(*map));
  std::memcpy(map, &data, sizeof(data));
  std::memcpy(reinterpret_cast<char*>(map) + sizeof(data), &size[1], sizeof(size[1]));
  return CUDA_SUCCESS;
}

}  // namespace

// In place of the runtime's.
extern "C" cudaError_t CUDARTAPI cudaGetDriverEntryPointByVersion(
    const char* symbol, void** function, unsigned int /*version*/, unsigned long long /*flags*/,
    cudaDriverEntryPointQueryResult* result) {
  EXPECT_EQ(std::string_view(symbol), "cuTensorMapEncodeTiled");
  *function = reinterpret_cast<void*>(&Encode);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

namespace sirocco::cuda {
namespace {

PanelMatrix At(uintptr_t address, int32_t rows = 128) {
  return {reinterpret_cast<const void*>(address), DType::kBFloat16, rows, 256, 64};
}

bool IsOf(const CUtensorMap& map, const PanelMatrix& matrix) {
  const void* data = nullptr;
  cuuint64_t rows = 0;
  std::memcpy(&data, &map, sizeof(data));
  std::memcpy(&rows, reinterpret_cast<const char*>(&map) + sizeof(data), sizeof(rows));
  return data == matrix.data && rows == static_cast<cuuint64_t>(matrix.rows);
}

TEST(PanelMapsTest, AMapSaysWhatTheMatrixIs) {
  PanelMaps maps;
  CUtensorMap map;
  ASSERT_EQ(maps.Find({reinterpret_cast<const void*>(4096), DType::kFloat16, 20, 1152, 32}, map),
            cudaSuccess);
  EXPECT_EQ(asked.type, CU_TENSOR_MAP_DATA_TYPE_FLOAT16);
  EXPECT_EQ(asked.data, reinterpret_cast<void*>(4096));
  EXPECT_EQ(asked.size[0], 1152u);
  EXPECT_EQ(asked.size[1], 20u);
  EXPECT_EQ(asked.stride, 2304u);  // bytes
  EXPECT_EQ(asked.box[0], 64u);
  EXPECT_EQ(asked.box[1], 32u);
}

TEST(PanelMapsTest, WhatDiffersInAnythingIsAnotherMap) {
  PanelMaps maps;
  CUtensorMap map;
  std::vector<PanelMatrix> all(6, At(1 << 20));
  all[1].data = reinterpret_cast<const void*>(1 << 21);
  all[2].dtype = DType::kFloat16;
  all[3].rows = 127;
  all[4].columns = 512;
  all[5].box_rows = 8;
  asked.times = 0;
  for (const PanelMatrix& matrix : all) {
    ASSERT_EQ(maps.Find(matrix, map), cudaSuccess);
    EXPECT_TRUE(IsOf(map, matrix));
  }
  EXPECT_EQ(asked.times, 6);
  for (const PanelMatrix& matrix : all) {
    ASSERT_EQ(maps.Find(matrix, map), cudaSuccess);
    EXPECT_TRUE(IsOf(map, matrix));
  }
  EXPECT_EQ(asked.times, 6);
}

// Of a model of 48 layers, whose matrices lie one behind the other, with prompts of 3 to 64 rows.
TEST(PanelMapsTest, AModelsMapsAreMadeOnce) {
  PanelMaps maps;
  CUtensorMap map;
  std::vector<PanelMatrix> all;
  uintptr_t address = uintptr_t{0x7f} << 40;
  for (int i = 0; i < 48 * 5; ++i) all.push_back(At(address += 1152 * 1536 * 2, 1536));
  for (int buffer = 0; buffer < 4; ++buffer) {
    address += 512 * 6912 * 2;
    for (int32_t rows = 3; rows <= 64; ++rows) all.push_back(At(address, rows));
  }
  asked.times = 0;
  for (int round = 0; round < 3; ++round) {
    for (const PanelMatrix& matrix : all) {
      ASSERT_EQ(maps.Find(matrix, map), cudaSuccess);
      EXPECT_TRUE(IsOf(map, matrix));
    }
    EXPECT_EQ(asked.times, static_cast<int>(all.size()));
  }
}

TEST(PanelMapsTest, MoreThanArePlacesForAreMadeAnew) {
  PanelMaps maps;
  CUtensorMap map;
  for (int round = 0; round < 2; ++round) {
    asked.times = 0;
    for (int i = 1; i <= 5000; ++i) {
      const PanelMatrix matrix = At(uintptr_t{4096} * i);
      ASSERT_EQ(maps.Find(matrix, map), cudaSuccess);
      EXPECT_TRUE(IsOf(map, matrix)) << i;
    }
    EXPECT_GE(asked.times, 5000 - 1024);
  }
}

TEST(PanelMapsTest, AMatrixThatTheDriverRefusesIsNotKept) {
  PanelMaps maps;
  CUtensorMap map;
  refuses = true;
  EXPECT_EQ(maps.Find(At(1 << 20), map), cudaErrorInvalidValue);
  refuses = false;
  EXPECT_EQ(maps.Find(At(1 << 20), map), cudaSuccess);
  EXPECT_TRUE(IsOf(map, At(1 << 20)));
}

}  // namespace
}  // namespace sirocco::cuda
