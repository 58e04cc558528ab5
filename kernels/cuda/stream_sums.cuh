// A warp's sums over its groups of a tile: 16 rows of weights (two halves of a tile) by up to eight
// rows of activations. 16-bit types on the matrix units, which multiply exactly and add in float32;
// float32 on the plain ones.
//
// In 32 columns lane (g, t) = (lane / 4, lane % 4) holds columns 8t ... 8t + 7 of weight rows g of
// both halves and of activation row g. What a matrix instruction calls column 2t, 2t + 1, 2t + 8,
// 2t + 9 may be any four, as long as both operands agree: so 16 bytes are loaded as one.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/stream_plan.h"
#include "kernels/cuda/stream_ring.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Rows of weights that a tile does not have are whatever their slot holds: what becomes of them is
// not stored. The same goes for activation rows, in whose place the last one is read.
template <typename T>
class StreamSums {
 public:
  // What stays the same for a lane from group to group.
  struct Places {
    __device__ Places(const StreamPlan& plan, const T* x) {
      const int g = threadIdx.x % kWarp / 4;
      const int t = threadIdx.x % 4;
      weights = SlotChunk(g, t);
      this->x = x + min(g, plan.rows - 1) * plan.x_stride + 8 * t;
    }
    int weights;  // of the first 32 columns; of the others ^ 64
    const T* x;
  };

  __device__ __forceinline__ void Add(const Places& places, const unsigned char* slot, int group) {
    const T* x = places.x + group * (kStreamGroupBytes / static_cast<int>(sizeof(T)));
    uint4 w[2][2];
    uint4 in[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const unsigned char* at = slot + (i == 0 ? places.weights : places.weights ^ 64);
      w[i][0] = *reinterpret_cast<const uint4*>(at);
      w[i][1] = *reinterpret_cast<const uint4*>(at + kStreamHalf * kStreamGroupBytes);
      in[i] = *reinterpret_cast<const uint4*>(x + 32 * i);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4(&a)[2] = w[i];
      MultiplyAccumulate<T>(sums_[2 * i], {a[0].x, a[1].x, a[0].y, a[1].y}, {in[i].x, in[i].y});
      MultiplyAccumulate<T>(sums_[2 * i + 1], {a[0].z, a[1].z, a[0].w, a[1].w}, {in[i].z, in[i].w});
    }
  }

  // to[(part * x_rows + x_row) * kStreamWarps] = the sum of row g of a half, part = half * next_half
  // + g * next_row.
  __device__ __forceinline__ void Store(const StreamTile<T>& tile, int x_rows, int next_half,
                                        int next_row, float* to) const {
    const int g = threadIdx.x % kWarp / 4;
    const int x_row = threadIdx.x % 4 * 2;
    if (x_row >= x_rows) return;
    float* low = to + (g * next_row * x_rows + x_row) * kStreamWarps;
    float* high = low + next_half * x_rows * kStreamWarps;
    const auto sum = [&](int i) {
      return (sums_[0][i] + sums_[1][i]) + (sums_[2][i] + sums_[3][i]);
    };
    const bool both = x_row + 1 < x_rows;
    if (g < tile.rows[0]) {
      low[0] = sum(0);
      if (both) low[kStreamWarps] = sum(1);
    }
    if (g < tile.rows[1]) {
      high[0] = sum(2);
      if (both) high[kStreamWarps] = sum(3);
    }
  }

 private:
  float sums_[4][4] = {};
};

template <>
class StreamSums<float> {
 public:
  struct Places {
    __device__ Places(const StreamPlan& plan, const float* x)
        : x(x + threadIdx.x % 4 * 4), x_stride(plan.x_stride), x_rows(plan.rows) {}
    const float* x;  // [x_rows][x_stride], from the lane's first column of a group on
    int x_stride;
    int x_rows;
  };

  // Of a group's 32 columns lane (g, t) takes 4t ... 4t + 3 and 4t + 16 ... 4t + 19.
  __device__ __forceinline__ void Add(const Places& places, const unsigned char* slot, int group) {
    constexpr int kColumns = kStreamGroupBytes / sizeof(float);
    const int g = threadIdx.x % kWarp / 4;
    const int t = threadIdx.x % 4;
    Pack<float, 4> w[2][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        w[half][i] = LoadPack<float, 4>(reinterpret_cast<const float*>(
            slot + SlotChunk(half * kStreamHalf + g, t + 4 * i)));
      }
    }
#pragma unroll
    for (int r = 0; r < kStreamRows; ++r) {
      if (r >= places.x_rows) break;
      const float* x = places.x + r * places.x_stride + group * kColumns;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sums_[0][r] += w[0][i / 4].at[i % 4] * x[i / 4 * 16 + i % 4];
        sums_[1][r] += w[1][i / 4].at[i % 4] * x[i / 4 * 16 + i % 4];
      }
    }
  }

  __device__ __forceinline__ void Store(const StreamTile<float>& tile, int x_rows, int next_half,
                                        int next_row, float* to) const {
    const int g = threadIdx.x % kWarp / 4;
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < kStreamRows; ++r) {
      if (r >= x_rows) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = sums_[half][r];
        sum += __shfl_xor_sync(kAllLanes, sum, 1);
        sum += __shfl_xor_sync(kAllLanes, sum, 2);
        if (t != r % 4 || g >= tile.rows[half]) continue;
        to[((half * next_half + g * next_row) * x_rows + r) * kStreamWarps] = sum;
      }
    }
  }

 private:
  float sums_[2][kStreamRows] = {};
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
