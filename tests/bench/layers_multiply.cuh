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

// In the places where they are written: the compiler would else wait for each before the next, to
// save registers.
__device__ __forceinline__ uint4 LoadShared16(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(at));
  return v;
}

// A tile's sums of a warp: up to eight columns of activations, four a matrix instruction.
template <int kColumns>
struct TileSums {
  static constexpr int kSets = (kColumns + 3) / 4;
  static constexpr int kChains = kSets == 1 ? 4 : 2;
  float at[kSets][kChains][4] = {};
};

// A warp's. Lane (g, t) = (lane / 4, lane % 4) loads 16 bytes of weight row g of a chunk, twice in
// 64 columns: first those of part t, in odd rows of part t + 4, so that eight lanes read all banks.
// The other chunk's row g is the instruction's row g + 8. So x stands twice in B's eight columns: n
// = p + 2 c is activation column c for rows of parity p.
template <typename T, typename S>
class Multiplier {
 public:
  // x: the warp's, [pieces][columns][kLayersShare].
  __device__ __forceinline__ Multiplier(RingShared& shared, const unsigned char* ring, const T* x)
      : shared_(shared),
        g_(threadIdx.x % kWarp / 4),
        t_(threadIdx.x % 4),
        swap_(g_ % 2 == 0 ? 64 : -64) {
    const int offset = (t_ + g_ % 2 * 4) * 16;
    ring_ = SharedAddress(ring) + static_cast<int>(threadIdx.x) / kWarp * kShareBytes + offset;
    x_ = SharedAddress(x) + offset;
  }

  // sums += the next chunk (the next two: rows_b > 0) times piece `piece` of x. Without work: only
  // lets the copying thread have them.
  template <int kColumns>
  __device__ __forceinline__ void Add(TileSums<kColumns>& sums, int rows_a, int rows_b,
                                      int row_bytes, int piece, bool works) {
    using Sums = TileSums<kColumns>;
    const int slot_a = sequence_ % kLayersSlots;
    const int slot_b = (sequence_ + 1) % kLayersSlots;
    const uint32_t parity_b = (sequence_ + 1) / kLayersSlots & 1;
    if (works) {
      WaitCopyBarrier(&shared_.full[slot_a], sequence_ / kLayersSlots & 1);
      const uint32_t a = ring_ + shared_.places[slot_a].Row(min(g_, rows_a - 1), row_bytes);
      uint32_t b = a;
      if (rows_b > 0) {
        WaitCopyBarrier(&shared_.full[slot_b], parity_b);
        b = ring_ + shared_.places[slot_b].Row(min(g_, rows_b - 1), row_bytes);
      }
      uint4 w[2][2][2];  // 64 columns; half; chunk
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          w[j][i][0] = LoadShared16(a + 128 * j + swap_ * i);
          w[j][i][1] = LoadShared16(b + 128 * j + swap_ * i);
        }
      }
#pragma unroll
      for (int set = 0; set < Sums::kSets; ++set) {
        const int column = min(4 * set + g_ / 2, kColumns - 1);
        const uint32_t x = x_ + (piece * kColumns + column) * kShareBytes;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const uint4 in = LoadShared16(x + 128 * j + swap_ * i);
            const uint4(&of)[2] = w[j][i];
            MultiplyAccumulate<T>(sums.at[set][2 * i % Sums::kChains],
                                  {of[0].x, of[1].x, of[0].y, of[1].y}, {in.x, in.y});
            MultiplyAccumulate<T>(sums.at[set][(2 * i + 1) % Sums::kChains],
                                  {of[0].z, of[1].z, of[0].w, of[1].w}, {in.z, in.w});
          }
        }
      }
      __syncwarp();
    }
    if (threadIdx.x % kWarp == 0) {
      ArriveCopyBarrier(&shared_.empty[slot_a], 1);
      if (rows_b > 0) ArriveCopyBarrier(&shared_.empty[slot_b], 1);
    }
    sequence_ += rows_b > 0 ? 2 : 1;
  }

  // to: [kColumns][16]
  template <int kColumns>
  __device__ __forceinline__ void Store(const TileSums<kColumns>& sums, float* to) const {
    using Sums = TileSums<kColumns>;
    const bool odd = g_ % 2 != 0;
#pragma unroll
    for (int set = 0; set < Sums::kSets; ++set) {
      const int column = 4 * set + t_;
      float of[2] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float own[Sums::kChains];
#pragma unroll
        for (int i = 0; i < Sums::kChains; ++i) {
          own[i] = odd ? sums.at[set][i][2 * half + 1] : sums.at[set][i][2 * half];
        }
        if constexpr (Sums::kChains == 4) {
          of[half] = (own[0] + own[1]) + (own[2] + own[3]);
        } else {
          of[half] = own[0] + own[1];
        }
      }
      if (column < kColumns) {
        to[column * 16 + g_] = of[0];
        to[column * 16 + 8 + g_] = of[1];
      }
    }
  }

 private:
  static constexpr int kShareBytes = 2 * kLayersShare;

  RingShared& shared_;
  const int g_, t_, swap_;
  uint32_t ring_, x_;  // the lane's places in shared memory
  uint32_t sequence_ = 0;
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
