// The shapes of the kernels of wide products (wide_product.cuh), what they are told, and a block's
// place in its cluster.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/path.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/cuda/wide_grid.h"
#include "kernels/cuda/wide_product.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Warps that copy.
inline constexpr int kWideProducers = kWarpgroup / kWarp;

// kDown, kAcross: row tiles and output tiles of a cluster. kSplit: blocks that share a tile's
// inputs, 1 or 2.
template <int kGroupCount, int kOutputCount, int kDownCount, int kAcrossCount, int kSplitCount = 1>
struct WideShape {
  static constexpr int kGroups = kGroupCount;  // warpgroups that multiply
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kOutputs = kOutputCount;
  static constexpr int kDown = kDownCount;
  static constexpr int kAcross = kAcrossCount;
  static constexpr int kSplit = kSplitCount;
  static constexpr int kSharing = kDown * kAcross;  // blocks that copy for each other
  static constexpr int kBlocks = kSharing * kSplit;
  static constexpr int kThreads = (kGroups + 1) * kWarpgroup;
  static constexpr int kRowBytes = 2 * kMapColumns;  // of a stage
  static constexpr int kInBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kInBytes + kOutputs * kRowBytes;
  // What one block copies of a stage: rows, and outputs, for all that share them.
  static constexpr int kOwnRows = kRows / kAcross;
  static constexpr int kOwnOutputs = kOutputs / kDown;
  static constexpr int kMostShared = 227 * 1024 - 1024;  // what is static and what aligns left out
  static constexpr int kSums = kOutputs / 2;    // a thread's
  static constexpr int kEights = kOutputs / 8;  // of outputs
  // Eights that the first of two blocks ends, and the second at most.
  static constexpr int kEnded = (kEights + kSplit - 1) / kSplit;
  static constexpr int kExchangeBytes = kSplit == 1 ? 0 : kGroups * kWarpgroup * kEnded * 16;
  static constexpr int kMostSlots = 16;
  static constexpr int kFitSlots = (kMostShared - 1024 - kExchangeBytes) / kStageBytes;
  static constexpr int kSlots = kFitSlots < kMostSlots ? kFitSlots : kMostSlots;
  static constexpr int kRingBytes = kSlots * kStageBytes;
  static constexpr int kSharedBytes = 1024 + kRingBytes + kExchangeBytes;
  static constexpr int kArrivals = kGroups * (kWarpgroup / kWarp) * kSharing;  // that empty a slot
  // Registers a thread; at first all have the same.
  static constexpr int kGive = kGroups == 1 ? 56 : kGroups == 2 ? 40 : 32;
  static constexpr int kTake = kGroups == 1 ? 248 : kGroups == 2 ? 232 : 160;
  // Rows of a copy where rows end within a tile: those that do not exist are not asked for, since
  // the copy engine takes longer over them than over others.
  static constexpr int kFewRows = kOwnRows < 32 ? kOwnRows : 32;
  static_assert(kOwnRows % kFewRows == 0 && kOwnOutputs % 8 == 0 && kSlots >= kWideProducers);
};

struct WideArgs {
  CUtensorMap in;
  CUtensorMap weight;  // of gate and up: columns, 8 rows, gate and up, groups of 8 rows
  void* out;
  const float* bias;
  const float* up_bias;
  WideGrid grid;
  int32_t rows;
  int32_t outputs;  // of `out`
  int32_t depth;    // stages of all inputs
  int32_t box;      // rows of a copy of `in`
  bool once;        // each weight is read once
  Activation activation;
  RowSquares unnormed;
  float of_one;  // 1 / inputs
  WideLeaves leaves;
  int32_t tiles, runs;  // of the outputs, that leave squares: tiles, filled up to a multiple of 4
};

// A place in the ring, for each thread that goes through it.
template <int kSlots>
struct WideSlot {
  int at = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Next() {
    if (++at < kSlots) return;
    at = 0;
    parity ^= 1;
  }
};

// A block's place in its cluster, and its tile of an item.
template <typename Shape>
struct WideTilePlace {
  int row_rank, output_rank, part_rank;

  __device__ WideTilePlace() {
    const int rank = static_cast<int>(blockIdx.x) % Shape::kBlocks;
    row_rank = rank % Shape::kDown;
    output_rank = rank / Shape::kDown % Shape::kAcross;
    part_rank = rank / Shape::kSharing;
  }
  __device__ __forceinline__ int RowTile(const WideItem& item) const {
    return item.rows * Shape::kDown + row_rank;
  }
  __device__ __forceinline__ int OutputTile(const WideItem& item) const {
    return item.outputs * Shape::kAcross + output_rank;
  }
  __device__ __forceinline__ WideStages Stages(const WideItem& item, const WideArgs& p) const {
    return Shape::kSplit > 1 ? StagesOf(p.depth, part_rank, Shape::kSplit)
                             : StagesOf(p.depth, item.part, p.grid.parts);
  }
  // Of the cluster's blocks the first that copies for this one.
  __device__ __forceinline__ int FirstSharing() const { return part_rank * Shape::kSharing; }
  // Those that have this block's rows; its outputs.
  __device__ __forceinline__ uint16_t SameRows() const {
    uint32_t mask = 0;
#pragma unroll
    for (int i = 0; i < Shape::kAcross; ++i) mask |= 1u << (row_rank + i * Shape::kDown);
    return static_cast<uint16_t>(mask << FirstSharing());
  }
  __device__ __forceinline__ uint16_t SameOutputs() const {
    return static_cast<uint16_t>(((1u << Shape::kDown) - 1)
                                 << (output_rank * Shape::kDown + FirstSharing()));
  }
  // That with the tile's other inputs.
  __device__ __forceinline__ int Peer() const {
    return row_rank + output_rank * Shape::kDown + (1 - part_rank) * Shape::kSharing;
  }
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
