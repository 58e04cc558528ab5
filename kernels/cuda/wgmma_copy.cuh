// Of wgmma_prefill.cuh, the warpgroup that copies.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/cuda/wgmma_items.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Copies queries, keys and values to shared memory. Each warp brings rows of its own of every tile:
// its lanes find where they stand, leave that in shared memory, and read it from there in passes of
// some whole rows. A pass takes few instructions: four warps copy for eight that compute.
template <typename T, int kDim>
class WgmmaProducer {
  using Shape = WgmmaShape<kDim>;
  static constexpr uint32_t kUnits = kDim / 8;
  static constexpr uint32_t kWarps = kWarpgroup / kWarp;
  static constexpr uint32_t kWarpSlots = Shape::kSlots / kWarps;
  static constexpr uint32_t kWarpRows = Shape::kRows / kWarps;
  static constexpr uint32_t kPassRows = kWarp / kUnits;
  static constexpr int kBatch = 4;  // passes whose addresses are known before the first is copied

 public:
  __device__ __forceinline__ WgmmaProducer(const PrefillAttentionParams& p, unsigned char* shared,
                                           WgmmaBarriers<kDim>& barriers, WgmmaPlaces<kDim>& places)
      : p_(p),
        shared_(shared),
        barriers_(barriers),
        places_(places),
        lane_row_(threadIdx.x % kWarp / kUnits),
        unit_(threadIdx.x % kUnits),
        warp_slot_(threadIdx.x / kWarp * kWarpSlots),
        exists_(static_cast<int>(unit_ * 8) < p.kv.head_dim) {}

  // Of no rows: tells that there is no more.
  __device__ __forceinline__ void Item(const WgmmaItem& item) {
    if (item.rows.count == 0) {
      CopyQueries(item);
      return;
    }
    block_table_ = p_.lanes.BlockTable(item.rows.lane, p_.kv.group);
    kv_head_ = item.head / (p_.shape.heads / p_.kv.kv_heads);
    last_ = item.rows.first_position + item.rows.count - 1;
    const int first = FirstSlot(p_.shape, item.rows.first_position);
    const int tiles = (last_ - first) / Shape::kSlots + 1;
    Keep(Find(first), 0);
    const T* next = Find(first + Shape::kSlots);
    CopyKeys(first, 0);
    CopyQueries(item);
    for (int tile = 0; tile < tiles; ++tile) {
      const int slot = first + tile * Shape::kSlots;
      Keep(next, (tile + 1) % 2);
      next = Find(slot + 2 * Shape::kSlots);
      if (tile + 1 < tiles) CopyKeys(slot + Shape::kSlots, (tile + 1) % 2);
      CopyValues(slot, tile % 2);
    }
  }

 private:
  __device__ __forceinline__ void CopyQueries(const WgmmaItem& item) {
    const int stage = queries_.Stage();
    WaitBarrier(&barriers_.queries_empty[stage], queries_.Parity() ^ 1);
    if (threadIdx.x == 0) places_.item[stage] = item;
    unsigned char* const tile = shared_ + stage * Shape::kQueryBytes;
    const T* const from = static_cast<const T*>(p_.q.data) +
                          int64_t{item.rows.first_row} * p_.q.width +
                          int64_t{item.head} * p_.kv.head_dim + unit_ * 8;
    const int first_row = static_cast<int>(threadIdx.x / kWarp * kWarpRows + lane_row_);
    if (item.rows.count > 0) {
#pragma unroll 4
      for (int i = 0; i < static_cast<int>(kWarpRows); i += kPassRows) {
        const int row = first_row + i;
        CopyAsync16(tile + UnitAt<Shape::kRows>(row, unit_),
                    from + int64_t{min(row, item.rows.count - 1)} * p_.q.width,
                    row < item.rows.count && exists_);
      }
    }
    ArriveBarrierAfterCopies(&barriers_.queries_full[stage]);
    if (threadIdx.x == 0) ArriveBarrier(&barriers_.queries_full[stage]);
    ++queries_.n;
  }

  // Where the key of the lane's slot of the tile from slot `first` on stands.
  __device__ __forceinline__ const T* Find(int first) const {
    const int slot = first + static_cast<int>(warp_slot_ + threadIdx.x % kWarp % kWarpSlots);
    const T* const base = static_cast<const T*>(p_.kv.data);
    return slot <= last_ ? base + SlotOffset(p_.kv, block_table_, kv_head_, slot) : base;
  }
  // For all lanes of the warp, who have read what was there before.
  __device__ __forceinline__ void Keep(const T* place, int parity) const {
    __syncwarp();
    places_.key[parity][warp_slot_ + threadIdx.x % kWarp % kWarpSlots] = place;
    __syncwarp();
  }

  __device__ __forceinline__ void CopyKeys(int first, int parity) {
    const int stage = keys_.Stage();
    WaitBarrier(&barriers_.keys_empty[stage], keys_.Parity() ^ 1);
    Copy(first, parity, 0, shared_ + Shape::kKeysAt + stage * Shape::kTileBytes);
    ArriveBarrierAfterCopies(&barriers_.keys_full[stage]);
    ++keys_.n;
  }
  __device__ __forceinline__ void CopyValues(int first, int parity) {
    const int stage = values_.Stage();
    WaitBarrier(&barriers_.values_empty[stage], values_.Parity() ^ 1);
    Copy(first, parity, p_.kv.value_offset, shared_ + Shape::kValuesAt + stage * Shape::kTileBytes);
    ArriveBarrierAfterCopies(&barriers_.values_full[stage]);
    ++values_.n;
  }

  // Slots that no row sees become zeros: a weight of zero must not meet another sequence's
  // infinity.
  __device__ __forceinline__ void Copy(int first, int parity, int64_t further,
                                       unsigned char* tile) const {
    const uint32_t count = static_cast<uint32_t>(last_ - first + 1);
    const int64_t own = further + unit_ * 8;
    const void* const* const places = places_.key[parity];
#pragma unroll
    for (uint32_t begin = 0; begin < kWarpSlots; begin += kBatch * kPassRows) {
      const T* from[kBatch];
#pragma unroll
      for (uint32_t i = 0; i < kBatch; ++i) {
        if (begin + i * kPassRows >= kWarpSlots) break;
        from[i] =
            static_cast<const T*>(places[warp_slot_ + lane_row_ + begin + i * kPassRows]) + own;
      }
#pragma unroll
      for (uint32_t i = 0; i < kBatch; ++i) {
        if (begin + i * kPassRows >= kWarpSlots) break;
        const uint32_t slot = warp_slot_ + lane_row_ + begin + i * kPassRows;
        CopyAsync16(tile + UnitAt<Shape::kSlots>(slot, unit_), from[i], slot < count && exists_);
      }
    }
  }

  const PrefillAttentionParams& p_;
  unsigned char* const shared_;
  WgmmaBarriers<kDim>& barriers_;
  WgmmaPlaces<kDim>& places_;
  const uint32_t lane_row_, unit_;  // of a pass, the lane's
  const uint32_t warp_slot_;        // of a tile, the warp's first
  const bool exists_;               // the unit does
  StageCount<Shape::kQueryStages> queries_;
  StageCount<Shape::kStages> keys_, values_;
  const int32_t* block_table_ = nullptr;
  int kv_head_ = 0;
  int last_ = 0;
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
