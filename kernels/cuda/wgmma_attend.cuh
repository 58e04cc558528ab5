// Of wgmma_prefill.cuh, a warpgroup that computes.
#pragma once

#include <climits>
#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/prefill_mma.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/cuda/wgmma_items.cuh"

#if SIROCCO_HOPPER
namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// One warpgroup's 64 rows.
template <typename T, int kDim>
class WgmmaConsumer {
  using Shape = WgmmaShape<kDim>;
  static constexpr int kScores = Shape::kSlots / 2;  // of a thread, for its two rows
  static constexpr int kTurns = 2;                   // the first of two named barriers
  static_assert(Shape::kConsumers == 2);

 public:
  __device__ __forceinline__ WgmmaConsumer(const PrefillAttentionParams& p, unsigned char* shared,
                                           WgmmaBarriers<kDim>& barriers,
                                           const WgmmaPlaces<kDim>& places)
      : p_(p), shared_(shared), barriers_(barriers), places_(places) {
    if (Group() == 1) GiveTurn();  // the first begins
  }

  // False: there was no item.
  __device__ __forceinline__ bool Item() {
    WaitBarrier(&barriers_.queries_full[queries_.Stage()], queries_.Parity());
    FenceForMatrixUnits();
    const WgmmaItem item = places_.item[queries_.Stage()];
    if (item.rows.count == 0) return false;
    const int own_row = Group() * 64 + threadIdx.x % kWarpgroup / kWarp * 16 + Lane() / 4;
    const int position = item.rows.first_position + own_row;
    const int group_position = item.rows.first_position + Group() * 64;
    const int last = item.rows.first_position + item.rows.count - 1;
    const int first = FirstSlot(p_.shape, item.rows.first_position);
    const int tiles = (last - first) / Shape::kSlots + 1;
    const auto masked = [&](int slot) {
      return slot + Shape::kSlots - 1 > group_position ||
             slot < FirstSlot(p_.shape, group_position + 63);
    };

    float out[kDim / 2] = {};
    float maximum[2] = {-INFINITY, -INFINITY};  // of scores as the products have them
    float sum[2] = {0, 0};
    float factor[2];
    float score[kScores];
    uint32_t weight[kScores / 8][4];

    TakeTurn();
    MultiplyKeys(score);
    CommitProducts();
    GiveTurn();
    WaitForProducts<0>();
    Settle(score);
    EndKeys(tiles == 1);
    Softmax(score, position, first + Lane() % 4 * 2, masked(first), maximum, sum, factor);
    Round(score, weight);
    for (int tile = 1; tile < tiles; ++tile) {
      TakeTurn();
      MultiplyKeys(score);
      CommitProducts();
      MultiplyValues(weight, out);
      CommitProducts();
      GiveTurn();
      WaitForProducts<1>();
      Settle(score);
      EndKeys(tile + 1 == tiles);
      const int slot = first + tile * Shape::kSlots;
      Softmax(score, position, slot + Lane() % 4 * 2, masked(slot), maximum, sum, factor);
      WaitForProducts<0>();
      Settle(out);
      EndValues();
      Rescale(factor, out);
      Round(score, weight);
      Settle(out);
    }
    MultiplyValues(weight, out);
    CommitProducts();
    WaitForProducts<0>();
    Settle(out);
    EndValues();
    Write(item, own_row, sum, out);
    return true;
  }

 private:
  static __device__ __forceinline__ int Group() {
    return static_cast<int>(threadIdx.x) / kWarpgroup - 1;
  }
  // One warpgroup's products are enqueued at once, then the other's. Both have as many tiles.
  static __device__ __forceinline__ void TakeTurn() {
    SyncNamed(kTurns + Group(), 2 * kWarpgroup);
  }
  static __device__ __forceinline__ void GiveTurn() {
    ArriveNamed(kTurns + 1 - Group(), 2 * kWarpgroup);
  }
  static __device__ __forceinline__ int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  __device__ __forceinline__ void MultiplyKeys(float (&score)[kScores]) {
    const int stage = keys_.Stage();
    WaitBarrier(&barriers_.keys_full[stage], keys_.Parity());
    FenceForMatrixUnits();
    BeginProducts();
    const unsigned char* const queries =
        shared_ + queries_.Stage() * Shape::kQueryBytes + Group() * 64 * 128;
    const unsigned char* const keys = shared_ + Shape::kKeysAt + stage * Shape::kTileBytes;
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const int column = step / 4;
      const int within = step % 4 * 32;
      MultiplyShared<T, Shape::kSlots>(
          score, Operand(queries + column * (Shape::kRows * 128) + within),
          Operand(keys + column * (Shape::kSlots * 128) + within), step > 0);
    }
  }
  __device__ __forceinline__ void EndKeys(bool last) {
    if (Lane() == 0) {
      ArriveBarrier(&barriers_.keys_empty[keys_.Stage()]);
      if (last) ArriveBarrier(&barriers_.queries_empty[queries_.Stage()]);
    }
    if (last) ++queries_.n;
    ++keys_.n;
  }

  __device__ __forceinline__ void MultiplyValues(const uint32_t (&weight)[kScores / 8][4],
                                                 float (&out)[kDim / 2]) {
    const int stage = values_.Stage();
    WaitBarrier(&barriers_.values_full[stage], values_.Parity());
    FenceForMatrixUnits();
    BeginProducts();
    const unsigned char* const values = shared_ + Shape::kValuesAt + stage * Shape::kTileBytes;
#pragma unroll
    for (int step = 0; step < Shape::kSlots / 16; ++step) {
      MultiplyRegisters<T, kDim>(out, weight[step],
                                 Operand(values + step * 16 * 128, Shape::kSlots * 128));
    }
  }
  __device__ __forceinline__ void EndValues() {
    if (Lane() == 0) ArriveBarrier(&barriers_.values_empty[values_.Stage()]);
    ++values_.n;
  }

  // Turns a tile's products into weights of the new maximum; `factor` takes sums of the old one to
  // it. Position and slot are this thread's: of its first row, of score[0].
  __device__ __forceinline__ void Softmax(float (&score)[kScores], int position, int slot,
                                          bool masked, float (&maximum)[2], float (&sum)[2],
                                          float (&factor)[2]) const {
    const AttentionShape& shape = p_.shape;
    float scale = shape.scale * kLog2E;
    if (shape.soft_cap > 0) {
      // cap * tanh(x / cap), tanh(x) = 1 - 2 / (exp(2x) + 1), times log2(e).
      const float twice = scale * 2 / shape.soft_cap;
      const float cap = shape.soft_cap * kLog2E;
#pragma unroll
      for (int i = 0; i < kScores; ++i) {
        score[i] = cap - cap * __fdividef(2.0f, Exp2(score[i] * twice) + 1.0f);
      }
      scale = 1;
    }
    if (masked) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        // Of the row's slots, from the thread's first: those that it sees.
        const int end = position + 8 * half - slot;
        const int begin = shape.window > 0 ? end - shape.window + 1 : INT_MIN;
#pragma unroll
        for (int i = 0; i < kScores / 2; ++i) {
          const int at = i / 2 * 8 + i % 2;
          if (at > end || at < begin) score[i / 2 * 4 + 2 * half + i % 2] = -INFINITY;
        }
      }
    }
    // Some maxima and sums side by side: one chain of each would wait for itself.
    constexpr int kChains = 4;
    float most[2][kChains];
#pragma unroll
    for (int i = 0; i < kChains * 4; i += 4) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        most[half][i / 4] = fmaxf(score[i + 2 * half], score[i + 2 * half + 1]);
      }
    }
#pragma unroll
    for (int i = kChains * 4; i < kScores; i += 4) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float& m = most[half][i / 4 % kChains];
        m = fmaxf(m, fmaxf(score[i + 2 * half], score[i + 2 * half + 1]));
      }
    }
    float shift[2], total[2][2] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float m = fmaxf(fmaxf(most[half][0], most[half][1]), fmaxf(most[half][2], most[half][3]));
      most[half][0] = fmaxf(m, maximum[half]);
    }
    // Four threads share a row.
#pragma unroll
    for (int other = 1; other < 4; other *= 2) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        most[half][0] = fmaxf(most[half][0], __shfl_xor_sync(kAllLanes, most[half][0], other));
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // A row that has seen no slot yet keeps weights of zero.
      shift[half] = most[half][0] == -INFINITY ? 0.0f : most[half][0] * scale;
      factor[half] = Exp2(maximum[half] * scale - shift[half]);
      maximum[half] = most[half][0];
    }
#pragma unroll
    for (int i = 0; i < kScores; i += 4) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& x = score[i + 2 * half + j];
          x = Exp2(x * scale - shift[half]);
          total[half][j] += x;
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] = sum[half] * factor[half] + (total[half][0] + total[half][1]);
    }
  }

  __device__ __forceinline__ void Round(const float (&score)[kScores],
                                        uint32_t (&weight)[kScores / 8][4]) const {
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) {
      weight[i / 4][i % 4] = PackTwo<T>(score[2 * i], score[2 * i + 1]);
    }
    Settle(weight);
  }

  __device__ __forceinline__ void Rescale(const float (&factor)[2], float (&out)[kDim / 2]) const {
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) out[i] *= factor[i / 2 % 2];
  }

  // The lane `other` further, or back, has the second of these and gets the first.
  static __device__ __forceinline__ void Exchange(bool second, int other, uint32_t& x,
                                                  uint32_t& y) {
    const uint32_t got = __shfl_xor_sync(kAllLanes, second ? x : y, other);
    (second ? x : y) = got;
  }

  // Four lanes have two elements of each eight of a row: they change places, so that each has eight
  // that follow each other.
  __device__ __forceinline__ void Write(const WgmmaItem& item, int own_row, float (&sum)[2],
                                        const float (&out)[kDim / 2]) const {
    const int quarter = Lane() % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sum[half];
      total += __shfl_xor_sync(kAllLanes, total, 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      const float inverse = 1.0f / total;
      const int row = own_row + 8 * half;
      T* const to = static_cast<T*>(p_.out.data) +
                    int64_t{item.rows.first_row + row} * p_.out.width +
                    int64_t{item.head} * p_.kv.head_dim;
#pragma unroll
      for (int n = 0; n < kDim / 8; n += 4) {
        uint32_t two[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* const x = out + (n + i) * 4 + 2 * half;
          two[i] = PackTwo<T>(x[0] * inverse, x[1] * inverse);
        }
        // A transpose of four by four.
        Exchange(quarter % 2 != 0, 1, two[0], two[1]);
        Exchange(quarter % 2 != 0, 1, two[2], two[3]);
        Exchange(quarter / 2 != 0, 2, two[0], two[2]);
        Exchange(quarter / 2 != 0, 2, two[1], two[3]);
        const int unit = n + quarter;
        if (row < item.rows.count && unit * 8 < p_.kv.head_dim) {
          *reinterpret_cast<uint4*>(to + unit * 8) = make_uint4(two[0], two[1], two[2], two[3]);
        }
      }
    }
  }

  const PrefillAttentionParams& p_;
  unsigned char* const shared_;
  WgmmaBarriers<kDim>& barriers_;
  const WgmmaPlaces<kDim>& places_;
  StageCount<Shape::kQueryStages> queries_;
  StageCount<Shape::kStages> keys_, values_;
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
#endif  // SIROCCO_HOPPER
