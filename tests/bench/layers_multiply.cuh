// What the warps of layers_kernel.cu multiply, and how.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/bench/layers_plan.h"
#include "tests/bench/layers_ring.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

template <int kThreads>
__device__ __forceinline__ void BarrierOf(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(kThreads) : "memory");
}
__device__ __forceinline__ void MultiplyBarrier() { BarrierOf<kLayersThreads>(1); }

// A block's part of a product.
struct BlockRun {
  int first, units, chunks;
};

// In the places where they are written: the compiler would else wait for each before the next, to
// save registers.
__device__ __forceinline__ uint4 LoadShared16(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(at));
  return v;
}
__device__ __forceinline__ uint32_t LoadShared4(uint32_t at) {
  uint32_t v;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(at));
  return v;
}

// Of one group: the lane's operands.
struct GroupOperands {
  uint4 w[2];
  uint32_t x[2][2];

  __device__ __forceinline__ void Load(uint32_t weights, uint32_t x_at, int swap) {
    w[0] = LoadShared16(weights);
    w[1] = LoadShared16(weights + swap);
    x[0][0] = LoadShared4(x_at);
    x[0][1] = LoadShared4(x_at + 8);
    x[1][0] = LoadShared4(x_at + swap);
    x[1][1] = LoadShared4(x_at + swap + 8);
  }
};

// A warp's. Lane (g, t) = (lane / 4, lane % 4) loads 16 bytes of weight row g of eight, twice in a
// group's 64 columns: first those of chunk t, in odd rows of chunk t + 4, so that eight lanes read
// all banks. As they are, these are a matrix instruction's operand A: what it calls row g has
// elements 0, 1, 4 and 5 of the eight, row g + 8 the other four. So x stands in four of B's eight
// columns: n = p + 2 h is for rows of parity p, and their elements' half h. Where a chunk has at
// most four rows, rows 4 to 7 are the same four rows' next group, for which x stands in the other
// four columns.
template <typename T>
class Multiplier {
 public:
  __device__ Multiplier(RingShared& shared, const unsigned char* ring, const T* x)
      : shared_(shared),
        ring_(SharedAddress(ring)),
        warp_(threadIdx.x / kWarp),
        g_(threadIdx.x % kWarp / 4),
        t_(threadIdx.x % 4),
        item_(warp_) {
    offset_ = (t_ + g_ % 2 * 4) * 16;
    swap_ = g_ % 2 == 0 ? 64 : -64;
    x_ = SharedAddress(x) + offset_ + g_ / 2 % 2 * 4;
  }

  static constexpr int kBytes = 2 * kLayersGroup;  // of a row

  // end(chunk, slice, rows, sum) after each of this warp's slices of chunks: lanes (g, 0) and (g,
  // 1) have the sum of row g < rows; of pairs g % 4 is the unit, and g / 4 says which of its rows.
  template <bool kPairs, typename End>
  __device__ __forceinline__ void Run(const LayersProduct& product, const BlockRun& run,
                                      const End& end) {
    const int row_bytes = product.columns * 2;
    const int chunk_units = product.chunk_units;
    const int chunks = run.chunks;
    const int units = run.units;
    const int slices = product.slices;
#pragma unroll 1
    for (; item_ < chunks * slices; item_ += kLayersWarps) {
      const int chunk = slices == 1 ? item_ : item_ * product.inverse >> 16;
      const int slice = item_ - chunk * slices;
      const int rows = min(chunk_units, units - chunk * chunk_units);
      const uint32_t sequence = sequence_ + chunk;
      const int slot = sequence % kLayersSlots;
      // Rows that there are not are others again.
      const bool two = !kPairs && product.two_groups;
      const int row = kPairs ? (g_ < 4 ? min(g_, rows - 1) : rows + min(g_ - 4, rows - 1))
                      : two  ? min(g_ % 4, rows - 1)
                             : min(g_, rows - 1);
      const int second = two && g_ >= 4 ? kBytes : 0;  // the lane's group of two
      const int step = two ? 2 * kBytes : kBytes;
      const int steps = two ? product.groups / 2 : product.groups;
      int at = (slice * steps * product.inverse >> 16) * step;
      const int to = ((slice + 1) * steps * product.inverse >> 16) * step;
      WaitCopyBarrier(&shared_.full[slot], sequence / kLayersSlots & 1);
      uint32_t w = ring_ + shared_.places[slot].Row(row, row_bytes) + offset_ + at + second;
      uint32_t x = x_ + at + second;
      float sums[4][4] = {};
      // Two steps wait together; the last may be one.
#pragma unroll 1
      for (; at + step < to; at += 2 * step) {
        GroupOperands of[2];
        of[0].Load(w, x, swap_);
        of[1].Load(w + step, x + step, swap_);
        w += 2 * step;
        x += 2 * step;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          Multiply(sums[2 * i], of[i].w[0], of[i].x[0]);
          Multiply(sums[2 * i + 1], of[i].w[1], of[i].x[1]);
        }
      }
      if (at < to) {
        GroupOperands of;
        of.Load(w, x, swap_);
        Multiply(sums[0], of.w[0], of.x[0]);
        Multiply(sums[1], of.w[1], of.x[1]);
      }
      __syncwarp();
      if (threadIdx.x % kWarp == 0) {
        ArriveCopyBarrier(&shared_.empty[slot], kLayersWarps / slices);
      }
      // Lane (g, 0) has the even half's sum, (g, 1) the odd one's.
      const bool odd = g_ % 2 != 0, other = t_ % 2 != 0;
      float of[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float low = odd ? sums[i][1] : sums[i][0];
        const float high = odd ? sums[i][3] : sums[i][2];
        of[i] = other ? high : low;
      }
      float own = (of[0] + of[1]) + (of[2] + of[3]);
      if (two && (t_ >= 2) != (g_ >= 4)) own = 0;
      own += __shfl_xor_sync(kAllLanes, own, 1);
      if (two) own += __shfl_xor_sync(kAllLanes, own, 18);
      end(chunk, slice, rows, own);
    }
    item_ -= chunks * slices;
    sequence_ += chunks;
  }

  __device__ __forceinline__ int g() const { return g_; }
  __device__ __forceinline__ int t() const { return t_; }

 private:
  __device__ __forceinline__ static void Multiply(float (&sums)[4], const uint4& w,
                                                  const uint32_t (&x)[2]) {
    MultiplyAccumulate<T>(sums, {w.x, w.y, w.z, w.w}, x);
  }

  RingShared& shared_;
  const uint32_t ring_;  // in shared memory
  uint32_t x_;
  const int warp_, g_, t_;
  int offset_, swap_;
  uint32_t sequence_ = 0;  // of the product's first chunk
  int item_;               // this warp's next slice of a chunk, counted from the product's first
};

// Slices are there, or zeros.
__device__ __forceinline__ float SumOfSlices(const float* partials, int row, int slices) {
  const float* const of = partials + row * kLayersPartials;
  float sum[2] = {};
#pragma unroll
  for (int s = 0; s < kLayersWarps; s += 2) {
    sum[0] += s < slices ? of[s] : 0.0f;
    sum[1] += s + 1 < slices ? of[s + 1] : 0.0f;
  }
  return sum[0] + sum[1];
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
