// What a warp of cluster_attention.cu does with its slots of a row: a slot at a time, or two or four
// where heads are short, each lane with eight dimensions of q, k and v. Softmax is online (Milakov
// and Gimelshein, 2018).
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kClusterWarps = 8;  // of a block, at most
// Below every score, and finite: the difference of two of them is a number.
inline constexpr float kLowest = -1e30f;
inline constexpr float kLog2E = 1.4426950408889634f;

// Sums of one part, weighted by 2^(score - maximum).
template <int kQueries, int kDim>
struct Part {
  float4 values[kQueries][kDim / 4];
  float2 statistics[kQueries];  // maximum, sum of weights
};

// Eight elements as they are in memory, in words: 16-bit ones take half the registers, 8-bit ones a
// quarter.
template <typename Kv>
struct Eight {
  static constexpr int kPerWord = 4 / sizeof(Kv);
  static constexpr int kWords = 8 / kPerWord;
  uint32_t words[kWords];

  // From the L2 cache, past the multiprocessor's own: no line is there from before its slot was
  // written, and none is read twice.
  __device__ __forceinline__ void LoadL2(const Kv* from) {
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      const uint4 four = __ldcg(reinterpret_cast<const uint4*>(from) + i / 4);
      words[i] = four.x;
      words[i + 1] = four.y;
      words[i + 2] = four.z;
      words[i + 3] = four.w;
    }
  }
  __device__ __forceinline__ void LoadShared(const Kv* from) {
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      const uint4 four = *(reinterpret_cast<const uint4*>(from) + i / 4);
      words[i] = four.x;
      words[i + 1] = four.y;
      words[i + 2] = four.z;
      words[i + 3] = four.w;
    }
  }
  __device__ __forceinline__ float operator[](int i) const {
    Pack<Kv, kPerWord> pack;
    memcpy(&pack, &words[i / kPerWord], 4);
    return ToFloat(pack.at[i % kPerWord]);
  }
};
template <>
struct Eight<Float8> {
  uint2 words;

  __device__ __forceinline__ void LoadL2(const Float8* from) {
    words = __ldcg(reinterpret_cast<const uint2*>(from));
  }
  __device__ __forceinline__ void LoadShared(const Float8* from) {
    words = *reinterpret_cast<const uint2*>(from);
  }
  // Without the scale.
  __device__ __forceinline__ float operator[](int i) const {
    const float2 two = WidenTwo((i < 4 ? words.x : words.y) >> (i % 4 / 2 * 16));
    return i % 2 == 0 ? two.x : two.y;
  }
};

// Of a lane: eight dimensions of each query head, and the softmax of kOwn (slot, head) pairs of a
// batch. The lanes of a slot share the batch's pairs, v = slot * kQueries + head: lane s has pairs
// s * kPairs / kLanes and on, or, where lanes are more than pairs, the one that s * kPairs / kLanes
// is in.
template <typename Kv, int kQueries, int kLanes>
struct LaneSums {
  static constexpr int kBatch = sizeof(Kv) == 4 || kQueries > 4 ? 2 : 4;  // loads that wait together
  static constexpr int kPairs = kBatch * kQueries;
  static constexpr int kOwn = kPairs > kLanes ? kPairs / kLanes : 1;

  float maximum[kOwn];  // of the pair's head, over all slots so far
  float sum[kOwn];      // of weights of the pair's place in the batches
  float values[kQueries][8];

  __device__ LaneSums() {
#pragma unroll
    for (int m = 0; m < kOwn; ++m) {
      maximum[m] = kLowest;
      sum[m] = 0;
    }
#pragma unroll
    for (int h = 0; h < kQueries; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) values[h][i] = 0;
    }
  }

  __device__ __forceinline__ static int FirstPair() {
    return static_cast<int>(threadIdx.x) % kLanes * kPairs / kLanes;
  }
  // x of pair `pair`, from the lane that has it.
  __device__ __forceinline__ static float OfPair(const float (&x)[kOwn], int pair) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp / kLanes * kLanes;
    return __shfl_sync(kAllLanes, x[pair % kOwn], lane + pair / kOwn * (kLanes * kOwn / kPairs));
  }
  // Over the pairs of a head: the lanes of the batch's other slots.
  template <typename Join>
  __device__ __forceinline__ static float OverBatch(float x, const Join& join) {
#pragma unroll
    for (int offset = kLanes / kBatch; offset < kLanes; offset *= 2) {
      x = join(x, __shfl_xor_sync(kAllLanes, x, offset));
    }
    return x;
  }

  // Rounded, never fused with what is added next: for any kQueries the same.
  __device__ __forceinline__ void Scale(const float (&factor)[kOwn]) {
#pragma unroll
    for (int m = 0; m < kOwn; ++m) sum[m] = __fmul_rn(sum[m], factor[m]);
#pragma unroll
    for (int h = 0; h < kQueries; ++h) {
      const float of_head = OfPair(factor, h);
#pragma unroll
      for (int i = 0; i < 8; ++i) values[h][i] = __fmul_rn(values[h][i], of_head);
    }
  }
};

// Sums each of kCount values over kLanes lanes, kApart from each other, by halves: a lane gives away one
// half of what it has and gets the other's part of the half it keeps. It ends with those that LaneSums
// says, at the front.
template <int kCount, int kLanes, int kApart = 1>
__device__ __forceinline__ void SumByHalves(float (&x)[kCount]) {
  int count = kCount;
#pragma unroll
  for (int offset = kLanes / 2 * kApart; offset >= kApart; offset /= 2) {
    if (count == 1) {
      x[0] += __shfl_xor_sync(kAllLanes, x[0], offset);
      continue;
    }
    count /= 2;
    const bool upper = (threadIdx.x & offset) != 0;
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      if (i >= count) break;
      const float kept = upper ? x[i + count] : x[i];
      const float given = upper ? x[i] : x[i + count];
      x[i] = kept + __shfl_xor_sync(kAllLanes, given, offset);
    }
  }
}

// x / divisor by one multiplication: exact where x * divisor < 2^31, since 2^31 / divisor is rounded
// up by less than one (Granlund and Montgomery, 1994).
class DividedBy {
 public:
  DividedBy() = default;
  __host__ __device__ __forceinline__ explicit DividedBy(int divisor)
      : factor_((1u << 31) / static_cast<uint32_t>(divisor) + 1) {}
  __device__ __forceinline__ int operator()(int x) const {
    return static_cast<int>(__umulhi(2 * static_cast<uint32_t>(x), factor_));
  }

 private:
  uint32_t factor_ = 0;
};

// Slots of a row that a block takes: first ... end - 1.
struct SlotRange {
  int first;
  int end;
};

// The slots that a warp of kWarps takes at once: lane l has eight dimensions of kBatch of them.
template <typename Kv, int kQueries, int kLanes, int kWarps>
struct SlotBatch {
  static constexpr int kBatch = LaneSums<Kv, kQueries, kLanes>::kBatch;
  static constexpr int kAtOnce = kWarp / kLanes;    // slots of a warp
  static constexpr int kStride = kWarps * kAtOnce;  // of the block

  Eight<Kv> k[kBatch], v[kBatch];
  uint32_t scales[kBatch];  // in float8: LoadScales of the slots

  __device__ __forceinline__ static int First(const SlotRange& range) {
    return range.first + static_cast<int>(threadIdx.x) / kWarp * kAtOnce;
  }
  // Of this lane, in the batch that begins at `base`.
  __device__ __forceinline__ static int Slot(int base, int j) {
    return base + static_cast<int>(threadIdx.x) % kWarp / kLanes + j * kStride;
  }
  __device__ __forceinline__ void Load(const KvLayer& kv, const int32_t* block_table, int kv_head,
                                       int base, const SlotRange& range,
                                       const DividedBy& block_of) {
    const Kv* const data =
        static_cast<const Kv*>(kv.data) + static_cast<int>(threadIdx.x) % kLanes * 8;
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      // The last slot in place of those beyond it: their scores are not used.
      const int slot = min(Slot(base, j), range.end - 1);
      const int index = block_of(slot);
      const int64_t block = __ldcg(block_table + index);
      const int in_block = kv_head * kv.block_size + slot - index * kv.block_size;
      const Kv* const key = data + block * kv.block_stride + in_block * (8 * kLanes);
      k[j].LoadL2(key);
      v[j].LoadL2(key + kv.value_offset);
      if constexpr (kIsScaled<Kv>) {
        scales[j] = LoadScales(kv, block, kv_head, slot - index * kv.block_size);
      }
    }
  }
};

// Adds a batch to the sums.
template <typename Kv, int kQueries, int kLanes, int kWarps>
__device__ __forceinline__ void AttendBatch(const SlotBatch<Kv, kQueries, kLanes, kWarps>& batch,
                                            int base, const SlotRange& range,
                                            const AttentionShape& shape,
                                            const float (&q)[kQueries][8],
                                            LaneSums<Kv, kQueries, kLanes>& sums) {
  using Sums = LaneSums<Kv, kQueries, kLanes>;
  using Batch = SlotBatch<Kv, kQueries, kLanes, kWarps>;
  constexpr int kBatch = Sums::kBatch;
  constexpr int kOwn = Sums::kOwn;
  float score[Sums::kPairs];
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
#pragma unroll
    for (int h = 0; h < kQueries; ++h) {
      float product = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) product = fmaf(q[h][i], batch.k[j][i], product);
      score[j * kQueries + h] = product;
    }
  }
  SumByHalves<Sums::kPairs, kLanes>(score);
  float factor[kOwn], weight[kOwn];
  uint32_t scales[kOwn];  // of the slots of the lane's own pairs
  if constexpr (kIsScaled<Kv>) {
#pragma unroll
    for (int m = 0; m < kOwn; ++m) {
      scales[m] = batch.scales[0];
#pragma unroll
      for (int j = 1; j < kBatch; ++j) {
        if ((Sums::FirstPair() + m) / kQueries == j) scales[m] = batch.scales[j];
      }
      score[m] *= KeyScale(scales[m]);
    }
  }
#pragma unroll
  for (int m = 0; m < kOwn; ++m) {
    const bool inside = Batch::Slot(base, (Sums::FirstPair() + m) / kQueries) < range.end;
    const float own = inside ? __fmul_rn(AdjustScore(shape, score[m]), kLog2E) : -INFINITY;
    const float highest = Sums::OverBatch(own, [](float a, float b) { return fmaxf(a, b); });
    const float maximum = fmaxf(sums.maximum[m], highest);
    factor[m] = Exp2(sums.maximum[m] - maximum);
    weight[m] = Exp2(own - maximum);
    sums.maximum[m] = maximum;
  }
  sums.Scale(factor);
#pragma unroll
  for (int m = 0; m < kOwn; ++m) {
    sums.sum[m] += weight[m];
    if constexpr (kIsScaled<Kv>) weight[m] *= ValueScale(scales[m]);
  }
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
#pragma unroll
    for (int h = 0; h < kQueries; ++h) {
      const float of_pair = Sums::OfPair(weight, j * kQueries + h);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sums.values[h][i] = fmaf(of_pair, batch.v[j][i], sums.values[h][i]);
      }
    }
  }
}

// Joins what the warp's lanes have of different slots, and leaves it in shared memory.
template <typename Kv, int kQueries, int kLanes>
__device__ __forceinline__ void StoreWarp(LaneSums<Kv, kQueries, kLanes>& sums,
                                          Part<kQueries, 8 * kLanes>& part) {
  using Sums = LaneSums<Kv, kQueries, kLanes>;
  constexpr int kOwn = Sums::kOwn;
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int m = 0; m < kOwn; ++m) {
    sums.sum[m] = Sums::OverBatch(sums.sum[m], [](float a, float b) { return a + b; });
  }
#pragma unroll
  for (int offset = kLanes; offset < kWarp; offset *= 2) {
    float factor[kOwn];
#pragma unroll
    for (int m = 0; m < kOwn; ++m) {
      const float maximum =
          fmaxf(sums.maximum[m], __shfl_xor_sync(kAllLanes, sums.maximum[m], offset));
      factor[m] = Exp2(sums.maximum[m] - maximum);
      sums.maximum[m] = maximum;
    }
    sums.Scale(factor);
#pragma unroll
    for (int m = 0; m < kOwn; ++m) sums.sum[m] += __shfl_xor_sync(kAllLanes, sums.sum[m], offset);
#pragma unroll
    for (int h = 0; h < kQueries; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sums.values[h][i] += __shfl_xor_sync(kAllLanes, sums.values[h][i], offset);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < kQueries; ++h) {
    const float2 statistics = {Sums::OfPair(sums.maximum, h), Sums::OfPair(sums.sum, h)};
    if (lane == 0) part.statistics[h] = statistics;
    if (lane >= kLanes) continue;
    const float(&x)[8] = sums.values[h];
    part.values[h][2 * lane] = make_float4(x[0], x[1], x[2], x[3]);
    part.values[h][2 * lane + 1] = make_float4(x[4], x[5], x[6], x[7]);
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
