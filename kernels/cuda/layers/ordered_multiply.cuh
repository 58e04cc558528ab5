// A share of panels' order: a warp's sums of a tile's 128 columns, two chains of 64, each 16 columns
// after the other, as mma.m16n8k16, which gives the bits of wgmma's steps of 16 columns.
#pragma once

#include <cstdint>

#include "kernels/cuda/layers/exchange.cuh"
#include "kernels/cuda/layers/reader.cuh"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/cuda/layers/shape.h"
#include "kernels/cuda/panel_order.h"
#include "kernels/cuda/ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kShareSteps = kLayersShare / 16;

// Of rows g of two chunks, g = lane / 4: all lanes of a g have the same.
struct RowSums {
  float a, b;
};
struct ShareSums {
  RowSums of[2];  // of a chain each

  __device__ __forceinline__ RowSums Sum() const {
    return {of[0].a + of[1].a, of[0].b + of[1].b};
  }
};
// A lane's of two chunks' rows, operand A of each step.
struct ShareWeights {
  uint32_t at[kShareSteps][4];
};
// Of activations, operand B of two steps.
struct ShareX {
  uint32_t at[kShareSteps / 2][4];
};

// A warp's. A chunk's rows begin at the same bank but for a pad of 32 bytes behind each two (kPad), so
// odd rows have the halves of 16 columns in each other's places, which no sum of 16 products sees:
// a matrix of an instruction is then read from all banks. Odd columns of operand B are the
// activations with their halves likewise.
template <int kPad>
class ShareMultiplier : public ChunkReader {
 public:
  // x: the warp's, [pieces][kLayersShare].
  __device__ __forceinline__ ShareMultiplier(RingShared& shared, const unsigned char* ring,
                                             const Element* x)
      : ChunkReader(shared),
        row_(static_cast<int>(threadIdx.x) % 8),
        other_(static_cast<int>(threadIdx.x) / 8 % 2 != 0) {
    static_assert(kPad == 32);
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    // A lane gives the address of a row of a matrix: of weights, of the one chunk's rows, the
    // other's, each of columns 0 to 7, then of 8 to 15.
    ring_ = SharedAddress(ring) + static_cast<int>(threadIdx.x) / kWarp * kShareBytes +
            16 * (lane / 16 ^ row_ % 2);
    // Of activations, of columns 0 to 7, of 8 to 15, then the same of the next step.
    x_ = SharedAddress(x) + 16 * (lane / 8 % 2 ^ row_ % 2) + lane / 16 * 32;
  }

  // Loads the next chunk, of up to 16 rows, or the next two (kPairs), of up to eight each.
  template <bool kPairs>
  __device__ __forceinline__ void Load(ShareWeights& to, int rows, int row_bytes) {
    const ChunkPlace* place = &Wait(0);
    int row = row_;
    if constexpr (kPairs) {
      const ChunkPlace* const second = &Wait(1);
      if (other_) place = second;
    } else if (other_) {
      row += kLayersRows;
    }
    const uint32_t from = ring_ + RowAt<kPad>(*place, min(row, rows - 1), row_bytes);
#pragma unroll
    for (int i = 0; i < kShareSteps; ++i) LoadMatrix4At(to.at[i], from + 32 * i);
    Skip(kPairs);
  }
  // Piece `piece` of x.
  __device__ __forceinline__ void LoadX(ShareX& to, int piece) const {
#pragma unroll
    for (int i = 0; i < kShareSteps / 2; ++i) {
      LoadMatrix4At(to.at[i], x_ + piece * kShareBytes + 64 * i);
    }
  }
  __device__ __forceinline__ ShareSums Multiply(const ShareWeights& weights,
                                                const ShareX& x) const {
    constexpr int kSteps = kOrderChain / 16;
    static_assert(kShareSteps == 2 * kSteps);
    float sums[2][4] = {};
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
#pragma unroll
      for (int chain = 0; chain < 2; ++chain) {
        const int step = chain * kSteps + i;
        const uint32_t(&in)[4] = x.at[step / 2];
        MultiplyAccumulate<Element>(sums[chain], weights.at[step],
                                    {in[step % 2 * 2], in[step % 2 * 2 + 1]});
      }
    }
    // Odd rows' are odd columns.
    const bool odd = static_cast<int>(threadIdx.x) / 4 % 2 != 0;
    ShareSums out;
#pragma unroll
    for (int chain = 0; chain < 2; ++chain) {
      out.of[chain] = {odd ? sums[chain][1] : sums[chain][0], odd ? sums[chain][3] : sums[chain][2]};
    }
    return out;
  }
  // to: [16]
  static __device__ __forceinline__ void Store(const RowSums& sums, float* to) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    if (lane % 4 != 0) return;
    to[lane / 4] = sums.a;
    to[lane / 4 + 8] = sums.b;
  }

 private:
  static constexpr int kShareBytes = 2 * kLayersShare;

  const int row_;
  const bool other_;
  uint32_t ring_, x_;  // the lane's places in shared memory
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
