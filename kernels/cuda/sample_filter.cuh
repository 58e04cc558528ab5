// top_k, top_p and min_p, and the draw from what they leave: one block a row.
//
// An id's *key* is its distance below the highest scaled logit (the bits of a float that is not
// negative, which order as integers), then the id: the lower the key, the better. What each filter
// leaves is all keys up to a limit, so filters only lower one number. The limit of top_k and top_p
// is found by radix selection: histograms of weights (1 an id, or its mass) over intervals of keys
// that shrink to one. Masses are 64-bit fixed point, so that no order of addition changes a bit.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/sample_draw.cuh"
#include "kernels/cuda/sample_options.cuh"
#include "kernels/cuda/sample_row.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kFilterThreads = 1024;
inline constexpr int kBinBits = 11;
inline constexpr int kBins = 1 << kBinBits;
inline constexpr int kMaxListed = 2048;
static_assert(kBins == 2 * kFilterThreads && kFilterThreads == kWarp * kWarp);

struct FilterShared {
  uint32_t low[kBins];  // a bin's weight: low and high half
  uint32_t high[kBins];
  uint64_t listed[kMaxListed];  // keys, in any order
  uint64_t warp_weight[kWarp];
  uint64_t before;
  int32_t bin;
  uint32_t count;
  NearIds near;
};

// ---- Keys ----------------------------------------------------------------------------------

inline constexpr uint64_t kIdMask = (uint64_t{1} << kIdBits) - 1;

// The last key of a distance.
__device__ __forceinline__ uint64_t LastKeyAt(float distance) {
  return (uint64_t{__float_as_uint(distance)} << kIdBits) | kIdMask;
}
__device__ __forceinline__ int32_t IdOfKey(uint64_t key) {
  return static_cast<int32_t>(key & kIdMask);
}
__device__ __forceinline__ float DistanceOf(uint64_t key) {
  return __uint_as_float(static_cast<uint32_t>(key >> kIdBits));
}

// A row whose logits are scaled: all ids that the options left, or those in FilterShared::listed.
struct FilterRow {
  OptionRow options;
  float highest;
  float temperature;
  int32_t listed;  // < 0: all

  __device__ __forceinline__ uint64_t KeyOf(float logit, int32_t id) const {
    const float distance = fabsf(ScaledLogit(logit, highest, temperature));
    return (uint64_t{__float_as_uint(distance)} << kIdBits) | static_cast<uint32_t>(id);
  }
};

// Calls visit(key) for the row's ids.
template <typename Visit>
__device__ __forceinline__ void ForEachKey(const FilterRow& row, const FilterShared& shared,
                                           Visit visit) {
  if (row.listed >= 0) {
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < row.listed; i += kFilterThreads) {
      visit(shared.listed[i]);
    }
    return;
  }
  ForEachFour<kFilterThreads>(row.options, [&](int32_t first, const FourLogits& four) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (four.at[e] != Excluded()) visit(row.KeyOf(four.at[e], first + e));
    }
  });
}

// Lists the row's keys up to `limit` if there is room for them. Nothing beyond may be asked for
// afterwards.
__device__ __forceinline__ void ListUpTo(FilterRow& row, uint64_t limit, FilterShared& shared) {
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  ForEachKey(row, shared, [&](uint64_t key) {
    if (key > limit) return;
    const uint32_t at = atomicAdd(&shared.count, 1u);
    if (at < kMaxListed) shared.listed[at] = key;
  });
  __syncthreads();
  if (shared.count <= kMaxListed) row.listed = static_cast<int32_t>(shared.count);
  __syncthreads();
}

// ---- Weights -------------------------------------------------------------------------------

struct TopK {
  int32_t k;
  __device__ __forceinline__ uint64_t WeightOf(uint64_t /*key*/) const { return 1; }
  __device__ __forceinline__ uint64_t Target(uint64_t total) const {
    return min(static_cast<uint64_t>(k), total);
  }
};

// A mass is exp(-distance) * `one`. All of the vocabulary's stay below 2^63; a mass is exact to the
// rounding of expf, and to 2^-41 or better beside the highest's 1.
struct TopP {
  float p;
  float one;
  __device__ __forceinline__ uint64_t WeightOf(uint64_t key) const {
    return static_cast<uint64_t>(__fadd_rn(__fmul_rn(expf(-DistanceOf(key)), one), 0.5f));
  }
  __device__ __forceinline__ uint64_t Target(uint64_t total) const {
    const double wanted = ceil(static_cast<double>(p) * static_cast<double>(total));
    if (!(wanted >= 1)) return 1;
    return min(static_cast<uint64_t>(wanted), total);
  }
};

__device__ __forceinline__ void AddToBin(FilterShared& shared, uint32_t bin, uint64_t weight) {
  const uint32_t low = static_cast<uint32_t>(weight);
  uint32_t high = static_cast<uint32_t>(weight >> 32);
  if (low != 0) {
    const uint32_t old = atomicAdd(&shared.low[bin], low);
    if (old + low < old) ++high;  // the carry
  }
  if (high != 0) atomicAdd(&shared.high[bin], high);
}

// Weights before this thread's two bins, and of all bins.
struct BinWeights {
  uint64_t before, first, second, total;
};

__device__ __forceinline__ BinWeights ScanBins(FilterShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int bin = static_cast<int>(threadIdx.x) * 2;
  BinWeights weights;
  weights.first = (uint64_t{shared.high[bin]} << 32) + shared.low[bin];
  weights.second = (uint64_t{shared.high[bin + 1]} << 32) + shared.low[bin + 1];
  const uint64_t own = weights.first + weights.second;
  const uint64_t up_to = WarpPrefixSum(own);
  if (lane == kWarp - 1) shared.warp_weight[warp] = up_to;
  __syncthreads();
  const uint64_t warps = WarpPrefixSum(shared.warp_weight[lane]);
  const uint64_t warps_before = __shfl_sync(kAllLanes, warps, warp == 0 ? 0 : warp - 1);
  weights.before = (warp == 0 ? 0 : warps_before) + up_to - own;
  weights.total = __shfl_sync(kAllLanes, warps, kWarp - 1);
  return weights;
}

// Publishes the bin in which the weight reaches `target` (above `before`), and what lies before it.
__device__ __forceinline__ void FindBin(const BinWeights& weights, uint64_t before, uint64_t target,
                                        FilterShared& shared) {
  const uint64_t start = before + weights.before;
  const uint64_t middle = start + weights.first;
  const uint64_t end = middle + weights.second;
  if (start < target && target <= end) {
    shared.bin = static_cast<int32_t>(threadIdx.x) * 2 + (target <= middle ? 0 : 1);
    shared.before = target <= middle ? start : middle;
  }
  __syncthreads();
}

// ---- The limit of a filter -----------------------------------------------------------------

// The first histogram's bins are 1/64 wide in distance: logits spread over them evenly, and few
// share the one that holds the limit. The last bin has all from kFarDistance on.
inline constexpr float kBinsPerUnit = 64;
inline constexpr float kFarDistance = (kBins - 1) / kBinsPerUnit;

__device__ __forceinline__ uint32_t DistanceBin(uint64_t key) {
  const float distance = DistanceOf(key);
  return distance >= kFarDistance ? kBins - 1 : static_cast<uint32_t>(distance * kBinsPerUnit);
}

// The last of the fewest best keys, of those up to `limit`, whose weight reaches the filter's
// target.
template <typename Filter>
__device__ __forceinline__ uint64_t LimitOf(FilterRow& row, uint64_t limit, const Filter& filter,
                                            FilterShared& shared) {
  uint64_t first = 0;  // the keys that may be the limit
  uint64_t last = limit;
  uint64_t before = 0;  // weight of the keys before `first`
  uint64_t target = 0;
  for (int level = 0;; ++level) {
    const int bits = 64 - __clzll(static_cast<long long>(last - first));
    const int shift = bits > kBinBits ? bits - kBinBits : 0;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kFilterThreads) {
      shared.low[i] = 0;
      shared.high[i] = 0;
    }
    __syncthreads();
    ForEachKey(row, shared, [&](uint64_t key) {
      if (key < first || key > last) return;
      const uint32_t bin =
          level == 0 ? DistanceBin(key) : static_cast<uint32_t>((key - first) >> shift);
      AddToBin(shared, bin, filter.WeightOf(key));
    });
    __syncthreads();
    const BinWeights weights = ScanBins(shared);
    if (level == 0) target = filter.Target(weights.total);
    FindBin(weights, before, target, shared);
    before = shared.before;
    const int32_t bin = shared.bin;
    if (level > 0) {
      first += static_cast<uint64_t>(bin) << shift;
      if (shift == 0) return first;
      last = min(last, first + ((uint64_t{1} << shift) - 1));
      continue;
    }
    const float distance = static_cast<float>(bin) / kBinsPerUnit;
    first = uint64_t{__float_as_uint(distance)} << kIdBits;
    if (bin < kBins - 1) {
      const float next = static_cast<float>(bin + 1) / kBinsPerUnit;
      last = min(last, (uint64_t{__float_as_uint(next)} << kIdBits) - 1);
    }
    if (row.listed < 0) ListUpTo(row, last, shared);
  }
}

// The keys whose probability, relative to the highest's, is at least min_p: distance <= -log(min_p)
// in double precision, as the greatest float for which that holds. The highest itself stays.
__device__ __forceinline__ uint64_t LimitOfMinP(float min_p) {
  const double farthest = fmax(0.0, -log(static_cast<double>(min_p)));
  float distance = static_cast<float>(farthest);
  if (static_cast<double>(distance) > farthest) {
    distance = __uint_as_float(__float_as_uint(distance) - 1);
  }
  return LastKeyAt(distance);
}

// What the lane's filters leave.
__device__ __forceinline__ uint64_t LimitOfFilters(FilterRow& row, const Lane& lane,
                                                   FilterShared& shared) {
  const int32_t vocab = row.options.vocab;
  uint64_t limit = LastKeyAt(kLargestFloat);
  if (lane.top_k > 0 && lane.top_k < vocab) limit = LimitOf(row, limit, TopK{lane.top_k}, shared);
  if (lane.top_p < 1) {
    const float one = static_cast<float>(uint64_t{1} << (31 + __clz(vocab)));
    limit = LimitOf(row, limit, TopP{lane.top_p, one}, shared);
  }
  if (lane.min_p > 0) limit = min(limit, LimitOfMinP(lane.min_p));
  return limit;
}

// ---- The draw ------------------------------------------------------------------------------

// Calls visit(scaled logit, word, id) for the row's keys up to `limit`.
template <typename Visit>
__device__ __forceinline__ void ForEachWord(const FilterRow& row, uint64_t limit,
                                            const Gumbel& gumbel, const FilterShared& shared,
                                            Visit visit) {
  if (row.listed >= 0) {
    ForEachKey(row, shared, [&](uint64_t key) {
      if (key > limit) return;
      visit(-DistanceOf(key), gumbel.WordOf(IdOfKey(key)), IdOfKey(key));
    });
    return;
  }
  ForEachFour<kFilterThreads>(row.options, [&](int32_t first, const FourLogits& four) {
    uint64_t keys[4];
    bool any = false;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      keys[e] = four.at[e] != Excluded() ? row.KeyOf(four.at[e], first + e) : ~uint64_t{0};
      any = any || keys[e] <= limit;
    }
    if (!any) return;
    const Gumbel::Words words = gumbel.WordsFrom(first);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (keys[e] <= limit) visit(-DistanceOf(keys[e]), words[e], first + e);
    }
  });
}

__device__ __forceinline__ int32_t DrawUpTo(const FilterRow& row, uint64_t limit,
                                            const Gumbel& gumbel, FilterShared& shared) {
  float highest = Excluded();
  ForEachWord(row, limit, gumbel, shared, [&](float scaled, uint32_t word, int32_t /*id*/) {
    highest = fmaxf(highest, scaled + Gumbel::Estimate(word));
  });
  if (threadIdx.x == 0) shared.near.count = 0;
  const float near = BlockMaxOf<kFilterThreads>(highest) - kNearScore;
  ForEachWord(row, limit, gumbel, shared, [&](float scaled, uint32_t word, int32_t id) {
    if (scaled + Gumbel::Estimate(word) >= near) shared.near.Add(scaled, word, id);
  });
  return BestOfNear<kFilterThreads>(shared.near);
}

// Draws one of the ids that the lane's filters leave, for all threads of the block.
__device__ __forceinline__ int32_t DrawFiltered(FilterRow& row, const Lane& lane, bool filtered,
                                                FilterShared& shared) {
  uint64_t limit = LastKeyAt(-kCannotWin);
  if (filtered) {
    limit = min(limit, LimitOfFilters(row, lane, shared));
    if (row.listed < 0) ListUpTo(row, limit, shared);
  }
  return DrawUpTo(row, limit, Gumbel(lane), shared);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
