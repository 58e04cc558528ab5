// The warps of ordered_layers.cu that add up chains in panels' order, ends the sums and leaves them
// to all blocks, and tells the others when words are there.
#pragma once

#include <cstdint>

#include "kernels/cuda/layers/ordered_shape.h"
#include "kernels/cuda/layers/ordered_shared.cuh"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/cuda/layers/words.cuh"
#include "kernels/cuda/panel_gate.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

template <typename S>
struct OrderedSummer {
  const LayersArgs& args;
  OrderedShared<S>& shared;
  LayersExchange& exchange;
  const int own;  // 0, or 1: the other summing warp, which has every second tile of gate and up
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  uint32_t tiles = 0;

  __device__ __forceinline__ void WaitForTile() const {
    WaitCopyBarrier(&shared.partial_full[own][tiles % kLayersPartials], tiles / kLayersPartials & 1);
  }
  __device__ __forceinline__ void ReleaseTile() {
    __syncwarp();
    if (lane == 0) ArriveCopyBarrier(&shared.partial_empty[own][tiles % kLayersPartials], 1);
    ++tiles;
  }

  // The next tile's sum that belongs to row lane % 16 of it.
  template <int kProduct>
  __device__ __forceinline__ float Take() {
    constexpr int kAddends = S::Addends(kProduct), kParts = S::Parts(kProduct);
    static_assert(kAddends <= 2 * S::kWarps);
    WaitForTile();
    float of[kAddends];
#pragma unroll
    for (int i = 0; i < kAddends; ++i) {
      of[i] = shared.partials[own][tiles % kLayersPartials][i][lane % 16];
    }
    ReleaseTile();
    // Those that begin a part, as bits: a part's place is then known where loops are unrolled.
    constexpr uint32_t kBegins = [] {
      uint32_t begins = 0;
      for (int part = 1; part < kParts; ++part) begins |= 1u << S::PartBegin(kProduct, part);
      return begins;
    }();
    float sum = 0, of_part = of[0];
#pragma unroll
    for (int i = 1; i < kAddends; ++i) {
      if ((kBegins >> i & 1) != 0) {
        sum = sum + of_part;
        of_part = of[i];
      } else {
        of_part += of[i];
      }
    }
    sum = sum + of_part;
    // Panels add a bias, which is zero: what was -0 is 0.
    return sum + 0.0f;
  }

  template <int kProduct>
  __device__ __forceinline__ void Plain(uint64_t* to, uint32_t tag) {
    const BlockRun run = shared.runs[kProduct];
#pragma unroll 1
    for (int tile = 0; tile < run.units; tile += 16) {
      const float sum = Take<kProduct>();
      if (lane < min(16, run.units - tile)) StoreWord(to + run.first + tile + lane, sum, tag);
    }
  }

  // Gate's and up's, activated, in pairs: of every second tile.
  __device__ __forceinline__ void GateUp(const LayerParams& layer, uint64_t* to, uint32_t tag) {
    const BlockRun run = shared.runs[2];
#pragma unroll 1
    for (int tile = own * kLayersRows; tile < run.units; tile += 2 * kLayersRows) {
      const float sum = Take<2>();
      const float up = __shfl_down_sync(kAllLanes, sum, kLayersRows);
      // The layer's parameters are there when one of its tiles is.
      const float value = PanelGate(layer.activation, sum) * up;
      Pack<Element, 2> pair;
      pair.at[0] = FromFloat<Element>(value);
      pair.at[1] = FromFloat<Element>(__shfl_down_sync(kAllLanes, value, 1));
      if (lane % 2 == 0 && lane < min(kLayersRows, run.units - tile)) {
        StoreWord(to + (run.first + tile + lane) / 2, *reinterpret_cast<const uint32_t*>(&pair),
                  tag);
      }
    }
  }

  // Down's only tile: four lanes a part, each of every fourth row.
  __device__ __forceinline__ void Down(uint64_t* to, uint32_t tag) {
    constexpr int kParts = S::Parts(3);
    constexpr int kOfPart = kWarp / kParts;
    constexpr int kRows = (S::kMostDown + kOfPart - 1) / kOfPart;
    constexpr int kMost = (S::Addends(3) + kParts - 1) / kParts;
    static_assert(kOfPart * kParts == kWarp);
    const BlockRun run = shared.runs[3];
    const int part = lane / kOfPart;
    const int begin = S::PartBegin(3, part);
    const int count = S::PartBegin(3, part + 1) - begin;
    const float* const from = &shared.down[0][0][0] + begin * 16 + lane % kOfPart;
    WaitForTile();
    float of[kRows][kMost];
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        of[row][i] = i + 1 < kMost || i < count ? from[i * 16 + row * kOfPart] : 0.0f;
      }
    }
    ReleaseTile();
    float sums[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      float of_part = of[row][0];
#pragma unroll
      for (int i = 1; i < kMost; ++i) of_part += of[row][i];
      float parts[kParts];
#pragma unroll
      for (int p = 0; p < kParts; ++p) {
        parts[p] = __shfl_sync(kAllLanes, of_part, p * kOfPart + lane % kOfPart);
      }
      sums[row] = parts[0];
#pragma unroll
      for (int p = 1; p < kParts; ++p) sums[row] += parts[p];
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const int unit = row * kOfPart + lane % kOfPart;
      if (part == row && unit < run.units) StoreWord(to + run.first + unit, sums[row] + 0.0f, tag);
    }
  }

  // This block has left its words.
  __device__ __forceinline__ void Say(Exchange of) const {
    if (lane == 0) Count(exchange.counts[of]);
  }
  // Waits until nearly all of `blocks` blocks have left theirs, and lets the workers read them.
  __device__ __forceinline__ void Wait(Exchange of, int blocks, uint32_t tag,
                                       uint64_t* barrier) const {
    if (lane == 0) {
      WaitForCount(exchange.counts[of], static_cast<uint32_t>(blocks) * tag - args.tuning.missing);
      ArriveCopyBarrier(barrier, 1);
    }
    __syncwarp();
  }

  __device__ __forceinline__ void TakeLayer(int layer) const {
    const uint32_t* const from = reinterpret_cast<const uint32_t*>(args.p.layer.table + layer);
    uint32_t* const to = reinterpret_cast<uint32_t*>(&shared.layers[layer % 2]);
    for (int i = lane; i < static_cast<int>(sizeof(LayerParams) / 4); i += kWarp) {
      to[i] = __ldg(from + i);
    }
    __syncwarp();
    // What no cache holds would come late beside the weights. One block asks for all.
    if (static_cast<int>(blockIdx.x) != (layer - 1) % args.blocks) return;
    const LayerParams& next = shared.layers[layer % 2];
    const float* const norms[] = {next.attention_norm, next.attention_post_norm, next.mlp_norm,
                                  next.mlp_post_norm};
    for (const float* const norm : norms) {
      for (int i = 32 * lane; norm != nullptr && i < S::kHidden; i += 32 * kWarp) {
        PrefetchL2(norm + i);
      }
    }
  }

  __device__ __forceinline__ void Run(uint64_t* all_words, uint32_t tag) {
    const bool attends = static_cast<int>(blockIdx.x) < S::kItems;
    for (int l = 0; l < args.p.layers; ++l) {
      uint64_t* const words = all_words + (l % 2) * S::kWords;
      ++tag;
      if (l > 0) Wait(kDownCount, args.blocks, tag - 1, &shared.words_there);
      Plain<0>(words + S::kQkvAt, tag);
      Say(kQkvCount);
      if (attends) Wait(kQkvCount, args.blocks, tag, &shared.qkv_there);
      // All warps have begun this layer's products: none reads the one before any more.
      if (l + 1 < args.p.layers) TakeLayer(l + 1);
      Wait(kPartsCount, S::kItems, tag, &shared.words_there);
      Plain<1>(words + S::kOutputAt, tag);
      Say(kOutputCount);
      Wait(kOutputCount, args.blocks, tag, &shared.words_there);
      GateUp(shared.layers[l % 2], words + S::kActivatedAt, tag);
      Say(kActivatedCount);
      Wait(kActivatedCount, args.blocks, tag, &shared.words_there);
      Down(words + S::kDownAt, tag);
      Say(kDownCount);
    }
    if (blockIdx.x == 0) Wait(kDownCount, args.blocks, tag, &shared.words_there);
  }
  // The other summing warp's.
  __device__ __forceinline__ void RunOther(uint64_t* all_words, uint32_t tag) {
    for (int l = 0; l < args.p.layers; ++l) {
      uint64_t* const words = all_words + (l % 2) * S::kWords;
      ++tag;
      GateUp(shared.layers[l % 2], words + S::kActivatedAt, tag);
    }
  }
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
