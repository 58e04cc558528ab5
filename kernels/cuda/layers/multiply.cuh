// What the warps of layers.cu multiply, and how.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/layers/reader.cuh"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/cuda/layers/shape.h"
#include "kernels/cuda/ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// In the places where they are written: the compiler would else wait for each before the next, to
// save registers.
__device__ __forceinline__ uint4 LoadShared16(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(at));
  return v;
}

__device__ __forceinline__ uint2 LoadShared8(uint32_t at) {
  uint2 v;
  asm volatile("ld.shared.v2.b32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
  return v;
}

// Of how many columns of activations one matrix instruction makes sums: its own are eight. Whose
// weights are an operand as they are loaded takes four of them for a column, else two (Multiplier).
template <int kColumns>
constexpr bool kAsLoaded = kColumns <= 2;
template <int kColumns>
constexpr int kSetsOf = kAsLoaded<kColumns> ? 1 : (kColumns + 3) / 4;

// A tile's sums of a warp. As loaded: of the first chunk two, of the other two.
template <int kColumns>
struct TileSums {
  static constexpr int kSets = kSetsOf<kColumns>;
  static constexpr int kChains = kSets == 1 ? 4 : 2;
  float at[kSets][kChains][4] = {};
};

// What a lane has of a chunk's rows, or of two chunks': 64 columns; half; chunk.
struct ChunkWeights {
  uint4 at[2][2][2];
};
// Of a piece's activations: as loaded only x and y.
template <int kColumns>
struct PieceX {
  static constexpr int kSets = kSetsOf<kColumns>;
  uint4 at[kSets][2][2];
};

// Stores a lane's four of kLayersShare activations, two pairs of elements, where LoadX finds them.
template <int kColumns, typename T>
__device__ __forceinline__ void StoreShare(T* share, int lane, const uint2& pairs) {
  if constexpr (kAsLoaded<kColumns>) {
    uint32_t* const to = reinterpret_cast<uint32_t*>(share) + lane / 2 * 4 + lane % 2;
    to[0] = pairs.x;
    to[2] = pairs.y;
  } else {
    *reinterpret_cast<uint2*>(share + 4 * lane) = pairs;
  }
}

// A warp's. Lane (g, t) = (lane / 4, lane % 4) loads 16 bytes of weight row g of a chunk, twice in
// 64 columns: first those of part t, in odd rows of part t + 4, so that eight lanes read all banks.
// So rows of either parity need columns of B of their own.
//
// With up to two columns of activations these 16 bytes are operand A as they are: the first and the
// third pair of elements are of its row g, the others of row g + 8, which is the same weight row,
// and B has another column for them: n = 4 c + 2 p + h is activation column c for rows of parity p,
// pairs h and h + 2. In shared memory pairs stand in the order 0, 2, 1, 3. With more columns the
// other chunk's row g is the instruction's row g + 8: n = p + 2 c.
template <typename T, typename S>
class Multiplier : public ChunkReader {
 public:
  // x: the warp's, [pieces][columns][kLayersShare].
  __device__ __forceinline__ Multiplier(RingShared& shared, const unsigned char* ring, const T* x)
      : ChunkReader(shared),
        g_(threadIdx.x % kWarp / 4),
        t_(threadIdx.x % 4),
        swap_(g_ % 2 == 0 ? 64 : -64) {
    const int offset = (t_ + g_ % 2 * 4) * 16;
    ring_ = SharedAddress(ring) + static_cast<int>(threadIdx.x) / kWarp * kShareBytes + offset;
    x_ = SharedAddress(x);
  }

  // Loads the next chunk (the next two: rows_b > 0).
  __device__ __forceinline__ void Load(ChunkWeights& to, int rows_a, int rows_b, int row_bytes) {
    const uint32_t a = ring_ + Wait(0).Row(min(g_, rows_a - 1), row_bytes);
    uint32_t b = a;
    if (rows_b > 0) b = ring_ + Wait(1).Row(min(g_, rows_b - 1), row_bytes);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        to.at[j][i][0] = LoadShared16(a + 128 * j + swap_ * i);
        to.at[j][i][1] = LoadShared16(b + 128 * j + swap_ * i);
      }
    }
    Skip(rows_b > 0);
  }
  // Piece `piece` of x.
  template <int kColumns>
  __device__ __forceinline__ void LoadX(PieceX<kColumns>& to, int piece) const {
#pragma unroll
    for (int set = 0; set < PieceX<kColumns>::kSets; ++set) {
      if constexpr (kAsLoaded<kColumns>) {
        // Lane (g, t) has column n = g of B.
        const int column = min(g_ / 4, kColumns - 1);
        const int odd = g_ / 2 % 2;
        const uint32_t x =
            x_ + (piece * kColumns + column) * kShareBytes + (t_ + odd * 4) * 16 + g_ % 2 * 8;
        const int swap = odd == 0 ? 64 : -64;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const uint2 two = LoadShared8(x + 128 * j + swap * i);
            to.at[set][j][i].x = two.x;
            to.at[set][j][i].y = two.y;
          }
        }
      } else {
        const int column = min(4 * set + g_ / 2, kColumns - 1);
        const uint32_t x = x_ + (piece * kColumns + column) * kShareBytes + (t_ + g_ % 2 * 4) * 16;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
#pragma unroll
          for (int i = 0; i < 2; ++i) to.at[set][j][i] = LoadShared16(x + 128 * j + swap_ * i);
        }
      }
    }
  }

  // sums += weights * x
  template <int kColumns>
  __device__ __forceinline__ void Add(TileSums<kColumns>& sums, const ChunkWeights& weights,
                                      const PieceX<kColumns>& x) const {
    using Sums = TileSums<kColumns>;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint4(&of)[2] = weights.at[j][i];
#pragma unroll
        for (int set = 0; set < Sums::kSets; ++set) {
          const uint4& in = x.at[set][j][i];
          if constexpr (kAsLoaded<kColumns>) {
#pragma unroll
            for (int chunk = 0; chunk < 2; ++chunk) {
              MultiplyAccumulate<T>(sums.at[set][2 * chunk + i],
                                    {of[chunk].x, of[chunk].y, of[chunk].z, of[chunk].w},
                                    {in.x, in.y});
            }
            continue;
          }
          MultiplyAccumulate<T>(sums.at[set][2 * i % Sums::kChains],
                                {of[0].x, of[1].x, of[0].y, of[1].y}, {in.x, in.y});
          MultiplyAccumulate<T>(sums.at[set][(2 * i + 1) % Sums::kChains],
                                {of[0].z, of[1].z, of[0].w, of[1].w}, {in.z, in.w});
        }
      }
    }
  }

  // to: [kColumns][16]
  template <int kColumns>
  __device__ __forceinline__ void Store(const TileSums<kColumns>& sums, float* to) const {
    using Sums = TileSums<kColumns>;
    const bool odd = g_ % 2 != 0;
    if constexpr (kAsLoaded<kColumns>) {
      // The lane of column t / 2 and parity t % 2 has both halves' sums of its rows.
      const auto& d = sums.at[0];
      const float first = (d[0][0] + d[1][0]) + (d[0][3] + d[1][3]);
      const float second = (d[2][0] + d[3][0]) + (d[2][3] + d[3][3]);
      if (t_ % 2 == g_ % 2 && t_ / 2 < kColumns) {
        to[t_ / 2 * 16 + g_] = first;
        to[t_ / 2 * 16 + 8 + g_] = second;
      }
    } else {
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
  }

 private:
  static constexpr int kShareBytes = 2 * kLayersShare;

  const int g_, t_, swap_;
  uint32_t ring_, x_;  // the lane's places in shared memory
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
