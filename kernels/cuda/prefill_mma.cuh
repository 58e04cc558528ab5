// Prefill attention on the matrix units, for 16-bit queries and KV of one type.
//
// A block of four warps takes 64 rows of one segment and one query head, 16 rows a warp, and walks
// over the keys that any of them sees in tiles, with an online softmax in registers
// (FlashAttention-2: Dao, 2023). Keys and values of the next tile are copied while one is computed
// on. Products and sums are float32; weights are rounded to T before they meet the values.
//
// Bytes: q and out once; keys and values once for each 64 rows and query head (from L2 for all
// heads of a KV head but one). Grid: (tiles of rows, query heads). Shared memory: two tiles of keys
// and two of values; at head_dim 256 the queries too: 20 ... 97 KiB.
#pragma once

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill_rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kPrefillThreads = 128;
inline constexpr int kPrefillRows = 64;  // of a thread block
inline constexpr float kLog2E = 1.4426950408889634f;

// Rows of kDim 16-bit elements in shared memory as 16-byte units, so that eight rows' units of one
// column meet eight different banks: a whole number of 128 bytes has its units permuted, others
// have an odd number of units between rows.
template <int kDim>
struct SharedRows {
  static constexpr int kUnits = kDim / 8;
  static constexpr bool kPermuted = kUnits % 8 == 0;
  static constexpr int kStride = (kPermuted ? kUnits : kUnits | 1) * 16;
  __device__ static __forceinline__ int At(int row, int unit) {
    return row * kStride + (kPermuted ? unit ^ (row % 8) : unit) * 16;
  }
};

template <int kDim>
struct PrefillShape {
  using Rows = SharedRows<kDim>;
  static constexpr int kSlots = kDim > 128 ? 32 : 64;  // of a tile
  static constexpr bool kQueriesStay = kDim <= 128;    // in registers
  static constexpr int kTileBytes = kSlots * Rows::kStride;
  static constexpr int kQueryBytes = kPrefillRows * Rows::kStride;
  // Queries that go to registers pass through the second tiles of keys and values.
  static constexpr int kSharedBytes = 4 * kTileBytes + (kQueriesStay ? 0 : kQueryBytes);
  static_assert(!kQueriesStay || kQueryBytes <= 2 * kTileBytes);
};

// One thread's share of a warp's 16 rows: rows g = lane / 4 and g + 8.
template <int kDim>
struct PrefillSums {
  float out[kDim / 8][4] = {};                // dims 8n + 2t, + 1 of row g; the same of g + 8
  float maximum[2] = {-INFINITY, -INFINITY};  // of scores times log2(e)
  float sum[2] = {};                          // of this thread's columns
};

// A score times log2(e), so that weights are powers of two.
__device__ __forceinline__ float ScaledScore(const AttentionShape& shape, float product) {
  if (shape.soft_cap <= 0) return product * (shape.scale * kLog2E);
  // tanh(x) = 1 - 2 / (exp(2x) + 1); exact to some 1e-7 of the cap.
  const float twice = product * (shape.scale / shape.soft_cap) * (2 * kLog2E);
  return shape.soft_cap * kLog2E * (1.0f - 2.0f / (Exp2(twice) + 1.0f));
}

template <typename T>
__device__ __forceinline__ uint32_t PackTwo(float low, float high) {
  const Pack<T, 2> pack = {{FromFloat<T>(low), FromFloat<T>(high)}};
  return *reinterpret_cast<const uint32_t*>(&pack);
}

// score[n] += q * k^T for this warp's 16 rows and the tile's slots 8n ... 8n + 7.
template <typename T, int kDim>
__device__ __forceinline__ void MultiplyQueriesKeys(const uint32_t (*q_registers)[4],
                                                    const unsigned char* q_shared,
                                                    const unsigned char* keys, float (*score)[4]) {
  using Shape = PrefillShape<kDim>;
  using Rows = typename Shape::Rows;
  const int lane = threadIdx.x % kWarp;
  const int row = threadIdx.x / kWarp * 16 + lane % 16;
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t q[4];
    if constexpr (Shape::kQueriesStay) {
#pragma unroll
      for (int i = 0; i < 4; ++i) q[i] = q_registers[step][i];
    } else {
      LoadMatrix4(q, q_shared + Rows::At(row, step * 2 + lane / 16));
    }
#pragma unroll
    for (int n = 0; n < Shape::kSlots / 8; n += 2) {
      // Slots 8n ... 8n + 7 of two units, then slots 8n + 8 ... 8n + 15.
      uint32_t k[4];
      LoadMatrix4(k, keys + Rows::At(n * 8 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
      MultiplyAccumulate<T>(score[n], q, {k[0], k[1]});
      MultiplyAccumulate<T>(score[n + 1], q, {k[2], k[3]});
    }
  }
}

// sums.out += weight * v, with the weights still where the scores were.
template <typename T, int kDim>
__device__ __forceinline__ void MultiplyWeightsValues(const float (*weight)[4],
                                                      const unsigned char* values,
                                                      PrefillSums<kDim>& sums) {
  using Shape = PrefillShape<kDim>;
  using Rows = typename Shape::Rows;
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int step = 0; step < Shape::kSlots / 16; ++step) {
    const float* low = weight[2 * step];
    const float* high = weight[2 * step + 1];
    const uint32_t w[4] = {PackTwo<T>(low[0], low[1]), PackTwo<T>(low[2], low[3]),
                           PackTwo<T>(high[0], high[1]), PackTwo<T>(high[2], high[3])};
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      // Slots 16 * step ... + 15 of unit n, then of unit n + 1.
      uint32_t v[4];
      LoadMatrix4Transposed(v, values + Rows::At(step * 16 + lane % 16, n + lane / 16));
      MultiplyAccumulate<T>(sums.out[n], w, {v[0], v[1]});
      MultiplyAccumulate<T>(sums.out[n + 1], w, {v[2], v[3]});
    }
  }
}

// Turns a tile's products into weights and rescales the sums to the new maximum. Position and slot
// are this thread's: of row g, of score[0][0].
template <int kDim>
__device__ __forceinline__ void SoftmaxTile(const AttentionShape& shape, int position, int slot,
                                            bool masked, float (*score)[4],
                                            PrefillSums<kDim>& sums) {
  constexpr int kColumns = PrefillShape<kDim>::kSlots / 8;
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      score[n][i] = ScaledScore(shape, score[n][i]);
      if (masked) {
        const int row_position = position + i / 2 * 8;
        const int at = slot + n * 8 + i % 2;
        if (at > row_position || at < FirstSlot(shape, row_position)) score[n][i] = -INFINITY;
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float maximum = sums.maximum[half];
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      maximum = fmaxf(maximum, fmaxf(score[n][2 * half], score[n][2 * half + 1]));
    }
    // Four threads share a row.
    maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, 2));
    // A row that has seen no slot yet keeps weights of zero.
    const float shift = maximum == -INFINITY ? 0.0f : maximum;
    const float factor = Exp2(sums.maximum[half] - shift);
    sums.maximum[half] = maximum;
    sums.sum[half] *= factor;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      sums.out[n][2 * half] *= factor;
      sums.out[n][2 * half + 1] *= factor;
    }
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        score[n][i] = Exp2(score[n][i] - shift);
        sums.sum[half] += score[n][i];
      }
    }
  }
}

// What a thread block works on.
struct PrefillItem {
  RowTile rows;
  int32_t head;
  const int32_t* block_table;
  int32_t kv_head;
  int32_t first;  // slot that any row sees
  int32_t last;
};

// The rest, of its rows.
__device__ __forceinline__ void FindKeys(const PrefillAttentionParams& p, PrefillItem& item) {
  item.head = blockIdx.y;
  item.kv_head = item.head / (p.shape.heads / p.kv.kv_heads);
  item.block_table = p.lanes.BlockTable(item.rows.lane, p.kv.group);
  item.first = FirstSlot(p.shape, item.rows.first_position);
  item.last = item.rows.first_position + item.rows.count - 1;
}

// Begins to copy the tile of slots from `first` on: keys to `keys`, values to `values`. Slots that
// no row sees become zeros: a weight of zero must not meet another sequence's infinity.
// `offset`: [kSlots], in elements.
template <typename T, int kDim>
__device__ __forceinline__ void CopySlots(const KvLayer& kv, const int64_t* offset, int count,
                                          unsigned char* keys, unsigned char* values) {
  using Shape = PrefillShape<kDim>;
  using Rows = typename Shape::Rows;
  const T* base = static_cast<const T*>(kv.data);
  for (int i = threadIdx.x; i < Shape::kSlots * Rows::kUnits; i += kPrefillThreads) {
    const int slot = i / Rows::kUnits;
    const int unit = i % Rows::kUnits;
    const bool present = slot < count && unit * 8 < kv.head_dim;
    const T* from = base + (present ? offset[slot] + unit * 8 : 0);
    CopyAsync16(keys + Rows::At(slot, unit), from, present);
    CopyAsync16(values + Rows::At(slot, unit), from + (present ? kv.value_offset : 0), present);
  }
}

template <typename T, int kDim>
__device__ __forceinline__ void CopyQueries(const PrefillAttentionParams& p,
                                            const PrefillItem& item, unsigned char* shared) {
  using Rows = SharedRows<kDim>;
  const T* base = static_cast<const T*>(p.q.data);
  for (int i = threadIdx.x; i < kPrefillRows * Rows::kUnits; i += kPrefillThreads) {
    const int row = i / Rows::kUnits;
    const int unit = i % Rows::kUnits;
    const bool present = row < item.rows.count && unit * 8 < p.kv.head_dim;
    const int64_t from = int64_t{item.rows.first_row + row} * p.q.width +
                         int64_t{item.head} * p.kv.head_dim + unit * 8;
    CopyAsync16(shared + Rows::At(row, unit), base + (present ? from : 0), present);
  }
}

template <int kDim>
__device__ __forceinline__ void LoadQueryRegisters(const unsigned char* q_shared,
                                                   uint32_t (&q)[kDim / 16][4]) {
  const int thread = threadIdx.x;
  const int lane = thread % kWarp;
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    LoadMatrix4(q[step], q_shared + SharedRows<kDim>::At(thread / kWarp * 16 + lane % 16,
                                                         step * 2 + lane / 16));
  }
}

template <typename T, int kDim>
__device__ __forceinline__ void WritePrefillOut(const PrefillAttentionParams& p,
                                                const PrefillItem& item,
                                                const PrefillSums<kDim>& sums) {
  const int lane = threadIdx.x % kWarp;
  const int warp_row = threadIdx.x / kWarp * 16 + lane / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = sums.sum[half];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    const float inverse = 1.0f / sum;
    const int row = warp_row + 8 * half;
    if (row >= item.rows.count) continue;
    T* out = static_cast<T*>(p.out.data) + int64_t{item.rows.first_row + row} * p.out.width +
             int64_t{item.head} * p.kv.head_dim;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      if (n * 8 >= p.kv.head_dim) continue;
      const Pack<T, 2> pack = {{FromFloat<T>(sums.out[n][2 * half] * inverse),
                                FromFloat<T>(sums.out[n][2 * half + 1] * inverse)}};
      StorePack(pack, out + n * 8 + lane % 4 * 2);
    }
  }
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kPrefillThreads)
    PrefillMmaKernel(const __grid_constant__ PrefillAttentionParams p) {
  using Shape = PrefillShape<kDim>;
  using Rows = typename Shape::Rows;
  __shared__ int64_t offset[2][Shape::kSlots];
  unsigned char* tiles = DynamicShared();  // [keys, values] of even tiles, then of odd ones
  const auto stage_of = [&](int tile) { return tiles + tile % 2 * 2 * Shape::kTileBytes; };
  unsigned char* q_shared = tiles + (Shape::kQueriesStay ? 2 : 4) * Shape::kTileBytes;
  WaitForDependency();
  LaunchDependents();
  PrefillItem item;
  // The last tiles of a long chunk have the most keys: they go first.
  item.rows = FindRowTile(p, kPrefillRows, gridDim.x - 1 - blockIdx.x);
  if (item.rows.count == 0) return;
  FindKeys(p, item);
  const int tile_count = (item.last - item.first) / Shape::kSlots + 1;
  const int thread = threadIdx.x;
  // The thread's slot of a tile: where it stands.
  const auto find = [&](int tile) {
    const int slot = item.first + tile * Shape::kSlots + thread;
    const bool present = thread < Shape::kSlots && slot <= item.last;
    return present ? SlotOffset(p.kv, item.block_table, item.kv_head, slot) : 0;
  };
  const auto keep = [&](int tile, int64_t at) {
    if (thread < Shape::kSlots) offset[tile % 2][thread] = at;
  };
  const auto copy = [&](int tile) {
    if (tile < tile_count) {
      const int first = item.first + tile * Shape::kSlots;
      CopySlots<T, kDim>(p.kv, offset[tile % 2], item.last - first + 1, stage_of(tile),
                         stage_of(tile) + Shape::kTileBytes);
    }
    CommitCopies();
  };

  CopyQueries<T, kDim>(p, item, q_shared);
  CommitCopies();
  keep(0, find(0));
  keep(1, find(1));
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
    // The tile is there for all, and all are done with the one before, whose place is next.
    __syncthreads();
    copy(tile + 1);
    const int64_t next = find(tile + 2);
    const int first = item.first + tile * Shape::kSlots;
    const bool masked = first + Shape::kSlots - 1 > item.rows.first_position ||
                        first < FirstSlot(p.shape, item.last);
    float score[Shape::kSlots / 8][4] = {};
    MultiplyQueriesKeys<T, kDim>(q, q_shared, stage_of(tile), score);
    SoftmaxTile<kDim>(p.shape, position, first + thread % 4 * 2, masked, score, sums);
    MultiplyWeightsValues<T, kDim>(score, stage_of(tile) + Shape::kTileBytes, sums);
    keep(tile + 2, next);
  }
  WritePrefillOut<T, kDim>(p, item, sums);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
