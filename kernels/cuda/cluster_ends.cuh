// What a block of decode attention makes of q, k and v where they come as bare products: for its
// own row, into shared memory (cluster_attention.cu, ordered_attention.cu).
#pragma once

#include <cstdint>

#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/cluster_item.cuh"
#include "kernels/cuda/cluster_slots.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/head_end.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Eight elements as float32.
__device__ __forceinline__ void LoadEight(const Rows& rows, int64_t at, float (&to)[8]) {
  switch (rows.dtype) {
    case DType::kBFloat16:
      return LoadFloats<__nv_bfloat16, 8>(static_cast<const __nv_bfloat16*>(rows.data) + at, to);
    case DType::kFloat16:
      return LoadFloats<__half, 8>(static_cast<const __half*>(rows.data) + at, to);
    case DType::kFloat32:
      break;
  }
  LoadFloats<float, 8>(static_cast<const float*>(rows.data) + at, to);
}

// A lane's elements of a head of q that stands in memory as it is (HeadEnd).
template <int kDim>
__device__ __forceinline__ void LoadHead(const Rows& rows, int64_t at,
                                         typename HeadEnd<kDim>::Half (&to)[2]) {
  constexpr int kVec = HeadEnd<kDim>::kVec;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t own = at + HeadEnd<kDim>::Begin(half);
    switch (rows.dtype) {
      case DType::kBFloat16:
        LoadFloats<__nv_bfloat16, kVec>(static_cast<const __nv_bfloat16*>(rows.data) + own,
                                        to[half].at);
        break;
      case DType::kFloat16:
        LoadFloats<__half, kVec>(static_cast<const __half*>(rows.data) + own, to[half].at);
        break;
      default:  // float32
        LoadFloats<float, kVec>(static_cast<const float*>(rows.data) + own, to[half].at);
        break;
    }
  }
}

// Two elements as float32; `at` is even.
__device__ __forceinline__ float2 LoadTwo(const Rows& rows, int64_t at) {
  float two[2];
  switch (rows.dtype) {
    case DType::kBFloat16:
      LoadFloats<__nv_bfloat16, 2>(static_cast<const __nv_bfloat16*>(rows.data) + at, two);
      break;
    case DType::kFloat16:
      LoadFloats<__half, 2>(static_cast<const __half*>(rows.data) + at, two);
      break;
    default:  // float32
      LoadFloats<float, 2>(static_cast<const float*>(rows.data) + at, two);
      break;
  }
  return make_float2(two[0], two[1]);
}

// What a stored element of the type would be loaded as.
__device__ __forceinline__ float RoundedTo(DType dtype, float x) {
  switch (dtype) {
    case DType::kBFloat16:
      return ToFloat(FromFloat<__nv_bfloat16>(x));
    case DType::kFloat16:
      return ToFloat(FromFloat<__half>(x));
    default:  // float32
      break;
  }
  return x;
}

// The ends of the heads that a block needs: its query heads, then k and v, dealt out to the warps.
// Of a block of kWarps. kRounds: q as `q_type` would hold it, as it is where an operation of its own ends
// the heads. kCopied: for a block that asks for a ring of tiles, in which loads would then stand in line.
// What no kernel writes is in registers before, and products come by the copy engine (barriers.cuh).
template <typename Kv, int kQueries, int kDim, int kWarps, bool kRounds = false,
          bool kCopied = false>
class BlockEnds {
 public:
  using Head = HeadEnd<kDim>;

  // Where kCopied, before all else that the block does: its `came`, a barrier a place.
  template <typename Shared>
  __device__ __forceinline__ static void InitBarriers(Shared& shared) {
    if (threadIdx.x % kWarp == 0) {
      for (int place = static_cast<int>(threadIdx.x) / kWarp; place < kQueries + 2;
           place += kWarps) {
        InitBarrier(&shared.came[place], 1);
      }
      PublishBarriers();
    }
    __syncwarp();
  }

  // Before the wait.
  __device__ __forceinline__ BlockEnds(const LayerRef& ref, const LayerParams& layer,
                                       const ClusterItem& item, int position,
                                       DType q_type = DType::kFloat32)
      : ref_(ref), layer_(layer), item_(item), position_(position), q_type_(q_type) {
    ForEachHead([&](int place) {
      if constexpr (kCopied) {
        if (place < kWarps) {
          first_ = HeadAt(place);
          constants_ = first_.LoadConstants();
          return;
        }
      }
      HeadAt(place).Prefetch();
    });
  }

  // After it, of the row's products: to `shared` (its `heads`, its `kv`), k and v also to the
  // cache, at `slot` (of k) and, in float8, `scales`; visible after the next barrier.
  template <typename Shared>
  __device__ __forceinline__ void operator()(const float* row, Kv* slot, int64_t value_offset,
                                             uint8_t* scales, Shared& shared) const {
    (*this)(row, slot, value_offset, scales, shared, [&](int query, const auto& x) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        StoreFloats<float, Head::kVec>(x[half].at, shared.heads[query] + Head::Begin(half));
      }
    });
  }
  // The same, where the block's query heads go to store(query, x) in place of `heads`: by a warp each, of
  // which a lane has x (HeadEnd).
  template <typename Shared, typename Store>
  __device__ __forceinline__ void operator()(const float* row, Kv* slot, int64_t value_offset,
                                             [[maybe_unused]] uint8_t* scales, Shared& shared,
                                             const Store& store) const {
    if constexpr (kCopied) {
      ForEachHead([&](int place) {
        if (threadIdx.x % kWarp != 0) return;
        constexpr uint32_t kBytes = kDim * sizeof(float);
        ArriveExpecting(&shared.came[place], kBytes);
        CopyBytes(shared.heads[place], row + SumsOf(place), kBytes, &shared.came[place]);
      });
    }
    ForEachHead([&](int place) {
      float* const head = shared.heads[place];
      typename Head::Half x[2];
      if constexpr (kCopied) {
        WaitBarrier(&shared.came[place], 0);
        Head::Load(head, x);
        const bool is_first = place < kWarps;
        const Head end = is_first ? first_ : HeadAt(place);
        end.End(is_first ? constants_ : end.LoadConstants(), head, x);
      } else {
        HeadAt(place)(row + SumsOf(place), head, x);
      }
      if constexpr (kIsScaled<Kv>) {
        if (place >= kQueries) {
          const int is_v = place - kQueries;
          const uint8_t scale = ScaleHead<kDim>(x);
          shared.kv[is_v][kDim].bits = scale;
          if (item_.pass == 0) scales[is_v] = scale;
        }
      }
      constexpr int kVec = Head::kVec;
      if (place < kQueries) {
        if constexpr (kRounds) {
#pragma unroll
          for (int i = 0; i < 2 * kVec; ++i) {
            float& element = x[i / kVec].at[i % kVec];
            element = RoundedTo(q_type_, element);
          }
        }
        store(place, x);
        return;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int begin = Head::Begin(half);
        const int is_v = place - kQueries;
        StoreFloats<Kv, kVec>(x[half].at, &shared.kv[is_v][begin]);
        if (item_.pass == 0) {
          StoreFloats<Kv, kVec>(x[half].at, slot + (is_v ? value_offset : 0) + begin);
        }
      }
    });
  }

 private:
  // Of this warp: places below kQueries are query heads, then k, then v, which the block ends that
  // has the row's own slot.
  template <typename Body>
  __device__ __forceinline__ void ForEachHead(const Body& body) const {
#pragma unroll 1
    for (int place = static_cast<int>(threadIdx.x) / kWarp; place < kQueries + 2;
         place += kWarps) {
      if (place < kQueries ? place < item_.head_count : item_.has_own) body(place);
    }
  }
  // Among its kind, in elements.
  __device__ __forceinline__ int Own(int place) const {
    return (place < kQueries ? item_.first_head + place : item_.kv_head) * kDim;
  }
  // In the row of products.
  __device__ __forceinline__ int SumsOf(int place) const {
    return Own(place) + (place < kQueries    ? 0
                         : place == kQueries ? ref_.q_rows
                                             : ref_.q_rows + ref_.kv_rows);
  }
  __device__ __forceinline__ Head HeadAt(int place) const {
    const bool is_q = place < kQueries;
    const bool is_k = place == kQueries;
    const float* const bias = is_q ? layer_.q_bias : is_k ? layer_.k_bias : layer_.v_bias;
    const int turned = is_q || is_k ? layer_.rotary.dim : 0;
    return {bias != nullptr ? bias + Own(place) : nullptr,
            is_q   ? layer_.q_norm
            : is_k ? layer_.k_norm
                   : nullptr,
            layer_.rotary.cos_sin + int64_t{position_} * turned, turned, layer_.norm_epsilon};
  }

  const LayerRef& ref_;
  const LayerParams& layer_;
  const ClusterItem& item_;
  int position_;
  DType q_type_;
  // Of the warp's first head, loaded before the wait.
  Head first_;
  typename Head::Constants constants_;
};

// k and v of the row's own slot, in place of what the cache had there before this step.
template <typename Shared, typename Kv, int kQueries, int kLanes, int kWarps>
__device__ __forceinline__ void TakeOwnSlot(const Shared& shared, int base, const SlotRange& range,
                                            int position,
                                            SlotBatch<Kv, kQueries, kLanes, kWarps>& batch) {
  using Batch = SlotBatch<Kv, kQueries, kLanes, kWarps>;
  const int dim = static_cast<int>(threadIdx.x) % kLanes * 8;
#pragma unroll
  for (int j = 0; j < Batch::kBatch; ++j) {
    // Also in place of those beyond it, whose weight is zero: zero times what no one has written
    // need not be zero.
    if (min(Batch::Slot(base, j), range.end - 1) != position) continue;
    batch.k[j].LoadShared(&shared.kv[0][dim]);
    batch.v[j].LoadShared(&shared.kv[1][dim]);
    if constexpr (kIsScaled<Kv>) {
      constexpr int kDim = 8 * kLanes;
      batch.scales[j] = shared.kv[0][kDim].bits | uint32_t{shared.kv[1][kDim].bits} << 8;
    }
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
