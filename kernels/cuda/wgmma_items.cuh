// What a block of wgmma_prefill.cuh works on, and where in shared memory: for the warpgroup that
// copies and those that compute.
#pragma once

#include <cstdint>

#include "kernels/cuda/path.h"
#include "kernels/cuda/prefill_rows.cuh"
#include "kernels/cuda/wgmma.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

template <int kDim>
struct WgmmaShape {
  static constexpr int kConsumers = 2;           // warpgroups that compute
  static constexpr int kRows = 64 * kConsumers;  // of an item
  static constexpr int kThreads = kWarpgroup * (kConsumers + 1);
  static constexpr int kSlots = kDim > 128 ? 64 : 128;  // of a tile of keys
  static constexpr int kStages = 2;                     // tiles of keys, and of values
  static constexpr int kQueryStages = kDim > 128 ? 1 : 2;
  static constexpr int kQueryBytes = kRows * kDim * 2;
  static constexpr int kTileBytes = kSlots * kDim * 2;
  static constexpr int kKeysAt = kQueryStages * kQueryBytes;
  static constexpr int kValuesAt = kKeysAt + kStages * kTileBytes;
  static constexpr int kAlignment = 1024;
  static constexpr int kSharedBytes = kValuesAt + kStages * kTileBytes + kAlignment;
  // A thread's: 168 * 3 = 104 + 200 * 2 = 56 + 224 * 2. Who copies spills with 56.
  static constexpr int kProducerRegisters = kDim > 128 ? 56 : 104;
  static constexpr int kConsumerRegisters = kDim > 128 ? 224 : 200;
};

// What the warpgroups tell each other, in shared memory.
struct WgmmaItem {
  RowTile rows;  // of none: there is no more
  int32_t head;
};
template <int kDim>
struct WgmmaBarriers {
  using Shape = WgmmaShape<kDim>;
  uint64_t queries_full[Shape::kQueryStages], queries_empty[Shape::kQueryStages];
  uint64_t keys_full[Shape::kStages], keys_empty[Shape::kStages];
  uint64_t values_full[Shape::kStages], values_empty[Shape::kStages];
};
template <int kDim>
struct WgmmaPlaces {
  using Shape = WgmmaShape<kDim>;
  WgmmaItem item[Shape::kQueryStages];
  uint32_t next[2];                   // item: of even rounds, and of odd ones
  const void* key[2][Shape::kSlots];  // of even tiles, and of odd ones
};

// Stages are filled and emptied in turn: the stage of the n-th tile, and the parity of its phase.
template <int kStages>
struct StageCount {
  uint32_t n = 0;
  __device__ __forceinline__ int Stage() const { return n % kStages; }
  __device__ __forceinline__ uint32_t Parity() const { return n / kStages & 1; }
};

// The 16-byte unit `unit` of row `row` of a tile of kRows rows.
template <int kRows>
__device__ __forceinline__ uint32_t UnitAt(uint32_t row, uint32_t unit) {
  return unit / 8 * (kRows * 128) + row * 128 + ((unit ^ row) % 8) * 16;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
