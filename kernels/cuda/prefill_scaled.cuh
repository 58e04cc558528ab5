// Prefill attention on the matrix units over KV in float8 (kernels/kv_scale.h): prefill_mma.cuh with
// another way of the slots to shared memory. A tile is copied as the cache has it while the one
// before is computed on; then it becomes T, with its scales, where the matrix units read it. In
// bfloat16 that is exact.
//
// Bytes: as there, keys and values half as many. Shared memory: one tile of keys and one of values in
// T, and both once more in float8; at head_dim 256 the queries too: 16 ... 80 KiB.
#pragma once

#include "kernels/cuda/prefill_mma.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

template <int kDim>
struct ScaledShape {
  using Shape = PrefillShape<kDim>;
  static constexpr int kStoredBytes = Shape::kSlots * kDim;  // of a tile's keys, or values
  // Queries that go to registers pass through the tile of T.
  static constexpr int kSharedBytes = 2 * Shape::kTileBytes + 2 * kStoredBytes +
                                      (Shape::kQueriesStay ? 0 : Shape::kQueryBytes);
};

// A slot's, in bytes from kv.data.
struct ScaledPlace {
  int64_t key;
  int64_t scales;  // negative: there is no such slot
};

// Begins to copy a tile; slots that no row sees become zeros.
template <int kDim>
__device__ __forceinline__ void CopyStored(const KvLayer& kv, const int64_t* key, int count,
                                           unsigned char* stored) {
  constexpr int kUnits = kDim / 16;
  const char* const base = static_cast<const char*>(kv.data);
  for (int i = threadIdx.x; i < PrefillShape<kDim>::kSlots * kUnits; i += kPrefillThreads) {
    const int slot = i / kUnits;
    const int unit = i % kUnits;
    const bool present = slot < count && unit * 16 < kv.head_dim;
    const char* const from = base + (present ? key[slot] + unit * 16 : 0);
    unsigned char* const to = stored + slot * kDim + unit * 16;
    CopyAsync16(to, from, present);
    CopyAsync16(to + ScaledShape<kDim>::kStoredBytes, from + (present ? kv.value_offset : 0),
                present);
  }
}

// Keys, then values of a tile from float8 to T. `scales`: [slots], as LoadScales has them.
template <typename T, int kDim>
__device__ __forceinline__ void WidenTile(const unsigned char* stored, const uint32_t* scales,
                                          unsigned char* tile) {
  using Shape = PrefillShape<kDim>;
  constexpr int kUnits = kDim / 8;
#pragma unroll 4
  for (int i = threadIdx.x; i < Shape::kSlots * kUnits; i += kPrefillThreads) {
    const int slot = i / kUnits;
    const int unit = i % kUnits;
#pragma unroll
    for (int is_v = 0; is_v < 2; ++is_v) {
      const float scale = is_v ? ValueScale(scales[slot]) : KeyScale(scales[slot]);
      float x[8];
      LoadFloats<Float8, 8>(reinterpret_cast<const Float8*>(
                                stored + is_v * ScaledShape<kDim>::kStoredBytes + i * 8),
                            x);
#pragma unroll
      for (int j = 0; j < 8; ++j) x[j] *= scale;
      StoreFloats<T, 8>(x, reinterpret_cast<T*>(tile + is_v * Shape::kTileBytes +
                                                Shape::Rows::At(slot, unit)));
    }
  }
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kPrefillThreads)
    PrefillScaledKernel(const __grid_constant__ PrefillAttentionParams p) {
  using Shape = PrefillShape<kDim>;
  __shared__ int64_t key[2][Shape::kSlots];    // ScaledPlace::key of even tiles, and of odd ones
  __shared__ uint32_t scales[Shape::kSlots];   // of the next tile that becomes T
  unsigned char* const tile_of_t = DynamicShared();
  unsigned char* const stored = tile_of_t + 2 * Shape::kTileBytes;
  unsigned char* const q_shared =
      Shape::kQueriesStay ? tile_of_t : stored + 2 * ScaledShape<kDim>::kStoredBytes;
  WaitForDependency();
  LaunchDependents();
  PrefillItem item;
  item.rows = FindRowTile(p, kPrefillRows, gridDim.x - 1 - blockIdx.x);
  if (item.rows.count == 0) return;
  FindKeys(p, item);
  const int tile_count = (item.last - item.first) / Shape::kSlots + 1;
  const int thread = threadIdx.x;
  // The thread's slot of a tile.
  const auto find = [&](int tile) -> ScaledPlace {
    const int slot = item.first + tile * Shape::kSlots + thread;
    if (thread >= Shape::kSlots || slot > item.last) return {0, -1};
    const int block = item.block_table[slot / p.kv.block_size];
    return {OffsetInBlock(p.kv, block, item.kv_head, slot),
            KvScaleOffset(p.kv, block, item.kv_head, slot % p.kv.block_size)};
  };
  const auto load_scales = [&](const ScaledPlace& place) -> uint32_t {
    if (place.scales < 0) return 0;
    return *reinterpret_cast<const uint16_t*>(static_cast<const char*>(p.kv.data) + place.scales);
  };
  const auto keep = [&](int tile, const ScaledPlace& place) {
    if (thread < Shape::kSlots) key[tile % 2][thread] = place.key;
  };
  const auto keep_scales = [&](uint32_t of_slot) {
    if (thread < Shape::kSlots) scales[thread] = of_slot;
  };
  const auto copy = [&](int tile) {
    if (tile < tile_count) {
      const int first = item.first + tile * Shape::kSlots;
      CopyStored<kDim>(p.kv, key[tile % 2], item.last - first + 1, stored);
    }
    CommitCopies();
  };

  CopyQueries<T, kDim>(p, item, q_shared);
  CommitCopies();
  const ScaledPlace first_place = find(0);
  ScaledPlace next_place = find(1);
  keep(0, first_place);
  keep(1, next_place);
  keep_scales(load_scales(first_place));
  __syncthreads();
  copy(0);
  uint32_t q[kDim / 16][4];
  if constexpr (Shape::kQueriesStay) {
    WaitForCopies<1>();
    __syncthreads();
    LoadQueryRegisters<kDim>(q_shared, q);
  }
  PrefillSums<kDim> sums;
  const int position = item.rows.first_position + thread / kWarp * 16 + thread % kWarp / 4;
  for (int tile = 0; tile < tile_count; ++tile) {
    WaitForCopies<0>();
    // The tile is there for all in float8, and all are done with the one before in T.
    __syncthreads();
    WidenTile<T, kDim>(stored, scales, tile_of_t);
    // It is there in T, and its float8 and scales make room.
    __syncthreads();
    copy(tile + 1);
    const uint32_t next_scales = load_scales(next_place);
    next_place = find(tile + 2);
    const int first = item.first + tile * Shape::kSlots;
    const bool masked = first + Shape::kSlots - 1 > item.rows.first_position ||
                        first < FirstSlot(p.shape, item.last);
    float score[Shape::kSlots / 8][4] = {};
    MultiplyQueriesKeys<T, kDim>(q, q_shared, tile_of_t, score);
    SoftmaxTile<kDim>(p.shape, position, first + thread % 4 * 2, masked, score, sums);
    MultiplyWeightsValues<T, kDim>(score, tile_of_t + Shape::kTileBytes, sums);
    keep(tile + 2, next_place);
    keep_scales(next_scales);
  }
  WritePrefillOut<T, kDim>(p, item, sums);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
