// The warp of layers.cu that adds up what the others have multiplied, ends it and leaves it
// to all blocks.
#pragma once

#include <cstdint>

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/cuda/layers/shape.h"
#include "kernels/cuda/layers/shared.cuh"
#include "kernels/cuda/layers/words.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Sums over the warp of kCount values, of which lane l < kCount has one afterwards: which one,
// PlaceOf.
template <int kCount>
__device__ __forceinline__ float SumEach(float (&values)[kCount]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int bit = 1;
#pragma unroll
  for (int count = kCount; count > 1; count /= 2) {
    const bool upper = lane & bit;
#pragma unroll
    for (int i = 0; i < count / 2; ++i) {
      const float send = upper ? values[i] : values[i + count / 2];
      const float keep = upper ? values[i + count / 2] : values[i];
      values[i] = keep + __shfl_xor_sync(kAllLanes, send, bit);
    }
    bit *= 2;
  }
  float sum = values[0];
#pragma unroll
  for (; bit < kWarp; bit *= 2) sum += __shfl_xor_sync(kAllLanes, sum, bit);
  return sum;
}
template <int kCount>
__device__ __forceinline__ int PlaceOf(int lane) {
  int place = 0;
#pragma unroll
  for (int count = kCount, bit = 1; count > 1; count /= 2, bit *= 2) {
    if (lane & bit) place += count / 2;
  }
  return place;
}

template <typename S, bool kOne>
struct Summer {
  const LayersArgs& args;
  BlockShared<S>& shared;
  LayersExchange& exchange;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  uint32_t tiles = 0;
  float inverse[S::kRows];
  float factor[S::kRows];

  // Adds up the next tile's kColumns * 16 values: value i of a lane is lane + 32 i, or, of 16, both
  // halves of the warp have them.
  static constexpr int ValuesOf(int columns) { return columns > 1 ? columns / 2 : 1; }
  template <int kColumns>
  __device__ __forceinline__ void Take(float (&values)[ValuesOf(kColumns)]) {
    const int slot = tiles % kLayersPartials;
    WaitCopyBarrier(&shared.partial_full[slot], tiles / kLayersPartials & 1);
#pragma unroll
    for (int i = 0; i < ValuesOf(kColumns); ++i) values[i] = 0;
    if constexpr (kColumns == 1) {
      float of[(S::kWarps + 1) / 2];
#pragma unroll
      for (int w = 0; w < S::kWarps; w += 2) {
        const int from = w + lane / 16;
        of[w / 2] = from < S::kWarps ? shared.partials[slot][from][lane % 16] : 0.0f;
      }
#pragma unroll
      for (int w = 0; w < (S::kWarps + 1) / 2; ++w) values[0] += of[w];
      values[0] += __shfl_xor_sync(kAllLanes, values[0], 16);
    } else {
#pragma unroll
      for (int i = 0; i < ValuesOf(kColumns); ++i) {
        float of[S::kWarps];
#pragma unroll
        for (int w = 0; w < S::kWarps; ++w) of[w] = shared.partials[slot][w][lane + 32 * i];
#pragma unroll
        for (int w = 0; w < S::kWarps; ++w) values[i] += of[w];
      }
    }
    __syncwarp();
    if (lane == 0) ArriveCopyBarrier(&shared.partial_empty[slot], 1);
    ++tiles;
  }
  // What a lane has of row lane / 16 + 2 i: the lane's of 16 outputs.
  static constexpr int kOutputs = S::kRows > 1 ? S::kRows / 2 : 1;

  // Of a product with the stream.
  __device__ __forceinline__ void TakeStream(float (&out)[kOutputs]) {
    float values[ValuesOf(S::kStreamColumns)];
    Take<S::kStreamColumns>(values);
    if constexpr (S::kRows == 1) {
      float sum = values[0];
      if constexpr (S::kPost) {
        const float other = __shfl_xor_sync(kAllLanes, sum, 16);
        sum = lane < 16 ? fmaf(factor[0], other, sum) : fmaf(factor[0], sum, other);
      }
      out[0] = inverse[0] * sum;
    } else {
      const bool odd = lane >= 16;
#pragma unroll
      for (int i = 0; i < kOutputs; ++i) {
        float sum = values[i];
        if constexpr (S::kPost) {
          sum = fmaf(odd ? factor[2 * i + 1] : factor[2 * i], values[kOutputs + i], sum);
        }
        out[i] = (odd ? inverse[2 * i + 1] : inverse[2 * i]) * sum;
      }
    }
  }

  // What norms divide by, from the lanes' sums of squares; the k-th time. Added up here, beside the
  // workers' products, not before them.
  __device__ __forceinline__ void TakeStats(int k) {
    WaitCopyBarrier(&shared.stats_full, k & 1);
    constexpr int kStats = S::kStats;
    float values[kStats] = {};
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w) {
      const auto& of = shared.stats[w][lane];
      if constexpr (kStats % 4 == 0) {
#pragma unroll
        for (int i = 0; i < kStats; i += 4) {
          const float4 four = *reinterpret_cast<const float4*>(&of[i]);
          values[i] += four.x;
          values[i + 1] += four.y;
          values[i + 2] += four.z;
          values[i + 3] += four.w;
        }
      } else {
#pragma unroll
        for (int i = 0; i < kStats; ++i) values[i] += of[i];
      }
    }
    const float own = SumEach<kStats>(values);
    // PlaceOf is its own inverse.
    const auto sum = [&](int i) { return __shfl_sync(kAllLanes, own, PlaceOf<kStats>(i)); };
    constexpr float kInverseWidth = 1.0f / S::kHidden;
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) {
      if constexpr (S::kPost) {
        const float dd = sum(4 * r);
        const float aa = sum(4 * r + 1);
        const float hh = sum(4 * r + 2);
        const float ha = sum(4 * r + 3);
        factor[r] = rsqrtf(fmaf(dd, kInverseWidth, args.p.epsilon));
        const float all = fmaxf(hh + factor[r] * (2 * ha + factor[r] * aa), 0);
        inverse[r] = rsqrtf(fmaf(all, kInverseWidth, args.p.epsilon));
      } else {
        factor[r] = 1;
        inverse[r] = rsqrtf(fmaf(sum(r), kInverseWidth, args.p.epsilon));
      }
      if (lane == 0) shared.factors[k & 1][r] = make_float2(factor[r], inverse[r]);
    }
    __syncwarp();
    if (lane == 0) ArriveCopyBarrier(&shared.factors_full, 1);
  }

  __device__ __forceinline__ void Leave(uint64_t* to, int stride, const float (&out)[kOutputs],
                                        int rows, uint32_t tag) {
    const int output = lane % 16;
    if (output >= rows || (S::kRows == 1 && lane >= 16)) return;
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      StoreWord(to + (lane / 16 + 2 * i) * stride + output, out[i], tag);
    }
  }

  __device__ __forceinline__ void Plain(int product, uint64_t* to, uint32_t tag) {
    const BlockRun run = shared.runs[product];
    for (int tile = 0; tile < run.units; tile += 16) {
      float out[kOutputs];
      Take<S::kRows>(out);
      const int rows = min(16, run.units - tile);
      if constexpr (S::kRows == 4) {
        const float all[4] = {out[0], __shfl_xor_sync(kAllLanes, out[0], 16), out[1],
                              __shfl_xor_sync(kAllLanes, out[1], 16)};
        if (lane < rows) StoreFourWord(to + 2 * (run.first + tile + lane), all, tag);
      } else {
        Leave(to + run.first + tile, S::kHidden, out, rows, tag);
      }
    }
  }

  // The same to memory, for the next launch.
  __device__ __forceinline__ void PlainToMemory(int product, float* to) {
    const BlockRun run = shared.runs[product];
    for (int tile = 0; tile < run.units; tile += 16) {
      float out[kOutputs];
      Take<S::kRows>(out);
      const int output = lane % 16;
      if (output >= min(16, run.units - tile) || (S::kRows == 1 && lane >= 16)) continue;
#pragma unroll
      for (int i = 0; i < kOutputs; ++i) {
        to[(lane / 16 + 2 * i) * S::kHidden + run.first + tile + output] = out[i];
      }
    }
  }

  // The block table of an attending block's row, in shared memory: meanwhile the workers do what
  // does not need it.
  __device__ __forceinline__ void LoadBlockTable() {
    const AttentionItem item = ItemOf<S>(args.p.map, args.p.lanes);
    CacheBlockTable(item, args.p.lanes.groups, shared.attention, lane, kWarp);
    ArriveBarrierOf<(S::kWarps + 1) * kWarp>(3);
  }

  // This block has left its words.
  __device__ __forceinline__ void Say(Exchange of) const {
    if (lane == 0) Count(exchange.counts[of]);
  }
  // Waits until `blocks` blocks have left theirs, and lets the workers read them.
  __device__ __forceinline__ void Wait(Exchange of, int blocks, uint32_t tag,
                                       uint64_t* barrier) const {
    if (lane == 0) {
      WaitForCount(exchange.counts[of], static_cast<uint32_t>(blocks) * tag - args.tuning.missing);
      ArriveCopyBarrier(barrier, 1);
    }
    __syncwarp();
  }

  // first: the layer in shared.layers[0].
  __device__ __forceinline__ void Run(uint64_t* all_words, uint32_t tag, int first) {
    const int layers = kOne ? 1 : args.p.layers;
    const BlockRun qkv = shared.runs[0];
    const BlockRun gate_up = shared.runs[2];
    const bool attends = static_cast<int>(blockIdx.x) < S::kItems;
    if (kOne && attends) LoadBlockTable();
    for (int l = 0;; ++l) {
      uint64_t* const words = all_words + (l % 2) * S::kWords;
      ++tag;
      if (l == layers && (kOne || blockIdx.x != 0)) return;
      if (l > 0) Wait(kDownCount, args.blocks, tag - 1, &shared.words_there);
      TakeStats(2 * l);
      if (l == layers) return;
      for (int tile = 0; tile < qkv.units; tile += 16) {
        float out[kOutputs];
        TakeStream(out);
        Leave(words + S::kQkvAt + qkv.first + tile, S::kQkvRows, out, min(16, qkv.units - tile),
              tag);
      }
      Say(kQkvCount);
      if (attends) Wait(kQkvCount, args.blocks, tag, &shared.qkv_there);
      // Nobody reads the layer before any more. Of one layer: what the next launch reads first is
      // then in the L2 cache.
      const int after = first + l + 1;
      if (after < args.p.layers) {
        const uint32_t* const from = reinterpret_cast<const uint32_t*>(args.p.layer.table + after);
        uint32_t* const to = reinterpret_cast<uint32_t*>(&shared.layers[(l + 1) % 2]);
        for (int i = lane; i < static_cast<int>(sizeof(LayerParams) / 4); i += kWarp) {
          to[i] = __ldg(from + i);
        }
        __syncwarp();
        // What no cache holds would come late beside the weights. One block asks for all.
        if (static_cast<int>(blockIdx.x) == (after - 1) % args.blocks) {
          const LayerParams& next = shared.layers[(l + 1) % 2];
          const float* const norms[] = {next.attention_norm, next.attention_post_norm,
                                        next.mlp_norm,
                                        kOne ? next.input_post_norm : next.mlp_post_norm};
          for (const float* const norm : norms) {
            for (int i = 32 * lane; norm != nullptr && i < S::kHidden; i += 32 * kWarp) {
              PrefetchL2(norm + i);
            }
          }
        }
      }
      Wait(kPartsCount, S::kItems, tag, &shared.words_there);
      Plain(1, words + S::kOutputAt, tag);
      Say(kOutputCount);
      Wait(kOutputCount, args.blocks, tag, &shared.words_there);
      TakeStats(2 * l + 1);
      const Activation activation = shared.layers[l % 2].activation;
      for (int tile = 0; tile < gate_up.units; tile += kLayersRows) {
        float out[kOutputs];
        TakeStream(out);
        const int unit = lane % 16;
#pragma unroll
        for (int i = 0; i < kOutputs; ++i) {
          const float up = __shfl_down_sync(kAllLanes, out[i], 8);
          const float value = Activate(activation, out[i]) * up;
          Pack<Element, 2> pack;
          pack.at[0] = FromFloat<Element>(value);
          pack.at[1] = FromFloat<Element>(__shfl_down_sync(kAllLanes, value, 1));
          if (unit < min(8, gate_up.units - tile) && unit % 2 == 0 && (S::kRows > 1 || lane < 16)) {
            StoreWord(words + S::kActivatedAt + (lane / 16 + 2 * i) * (S::kIntermediate / 2) +
                          (gate_up.first + tile + unit) / 2,
                      *reinterpret_cast<const uint32_t*>(&pack), tag);
          }
        }
      }
      Say(kActivatedCount);
      Wait(kActivatedCount, args.blocks, tag, &shared.words_there);
      if constexpr (kOne) {
        PlainToMemory(3, static_cast<float*>(args.p.delta.data));
      } else {
        Plain(3, words + S::kDownAt, tag);
        Say(kDownCount);
      }
    }
  }
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
