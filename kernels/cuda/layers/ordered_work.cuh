// The warps of ordered_layers.cu that norm, multiply and attend.
#pragma once

#include <cstdint>

#include "kernels/cuda/layers/ordered_attend.cuh"
#include "kernels/cuda/layers/ordered_multiply.cuh"
#include "kernels/cuda/layers/ordered_shape.h"
#include "kernels/cuda/layers/ordered_shared.cuh"
#include "kernels/cuda/layers/words.cuh"
#include "kernels/cuda/norm_rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

template <typename S>
struct OrderedWorker {
  using T = Element;
  using Quad = Pack<float, 4>;
  static constexpr int kThreads = S::kWarps * kWarp;

  const LayersArgs& args;
  OrderedShared<S>& shared;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  T* const x = shared.x[warp];
  ShareMultiplier<S::kRowsPad> multiply;
  ShareWeights loaded;
  uint32_t tiles = 0, other_tiles = 0;  // for each summing warp
  uint32_t awaited = 0;
  Quad held;  // of the residual stream: quad `thread`

  __device__ OrderedWorker(const LayersArgs& args, OrderedShared<S>& shared,
                           const unsigned char* ring)
      : args(args),
        shared(shared),
        multiply(shared.ring, ring, shared.x[static_cast<int>(threadIdx.x) / kWarp]) {}

  static __device__ __forceinline__ void Sync() { BarrierOf<kThreads>(1); }
  // The next words are there, very likely.
  __device__ __forceinline__ void Await() {
    WaitCopyBarrier(&shared.words_there, awaited & 1);
    ++awaited;
  }

  // Of the row, as RowNorm's 256 threads add it up (norm_rows.cuh), whose first 32 have the ninth
  // warp's quads, too. `turn` by turns 0 and 1.
  __device__ __forceinline__ float RowSum(float squares, int turn) const {
    if (warp == S::kAttending) {
      shared.ninth[turn][lane] = squares;
      ArriveBarrierOf<2 * kWarp>(4 + turn);
    } else {
      if (warp == 0) {
        BarrierOf<2 * kWarp>(4 + turn);
        squares += shared.ninth[turn][lane];
      }
      squares = WarpSum(squares);
      if (lane == 0) shared.squares[turn][warp] = squares;
    }
    Sync();
    float sum = 0;
#pragma unroll
    for (int i = 0; i < S::kAttending; ++i) sum += shared.squares[turn][i];
    return sum;
  }
  __device__ __forceinline__ float InverseRms(float squares) const {
    constexpr float kInverseWidth = 1.0f / static_cast<float>(S::kHidden);
    return rsqrtf(fmaf(squares, kInverseWidth, args.p.epsilon));
  }
  __device__ __forceinline__ Quad Load(const float* from) const {
    const float4 four = __ldg(reinterpret_cast<const float4*>(from) + thread);
    return {{four.x, four.y, four.z, four.w}};
  }
  // The thread's quad of 1,152 words.
  __device__ __forceinline__ Quad TakeWords(const uint64_t* words, uint32_t tag) const {
    TwoWords taken[2];
    do {
      taken[0] = LoadTwoWords(words + 4 * thread);
      taken[1] = LoadTwoWords(words + 4 * thread + 2);
    } while (!taken[0].Has(tag) || !taken[1].Has(tag));
    __syncwarp();
    return {{taken[0].value(0), taken[0].value(1), taken[1].value(0), taken[1].value(1)}};
  }

  // The stream with what `words`, where there are any, add to it; its norm times `weight`, this
  // warp's share, to x. As RowNorm does it. before_end() is before the last barrier.
  template <typename BeforeEnd>
  __device__ __forceinline__ void Norm(const uint64_t* words, uint32_t tag, const float* post,
                                       const float* weight, const BeforeEnd& before_end) {
    const Quad weights = Load(weight);
    if (words != nullptr) {
      const Quad posts = Load(post);
      Await();
      const Quad delta = TakeWords(words, tag);
      const float inverse = InverseRms(RowSum(SumOfSquares(delta), 0));
      JoinNormed(held, delta, posts, inverse);
    }
    before_end();
    const float inverse = InverseRms(RowSum(SumOfSquares(held), 1));
    float out[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) out[e] = held.at[e] * inverse * weights.at[e];
    StoreFloats<T, 4>(out, x + 4 * lane);
    __syncwarp();
  }

  // Of summing warp `summer`, the next tile.
  __device__ __forceinline__ uint32_t TileOf(int summer) const {
    return summer == 0 ? tiles : other_tiles;
  }
  __device__ __forceinline__ void WaitForPartial(int summer) const {
    const uint32_t tile = TileOf(summer);
    // The first time round nobody has to have emptied it.
    WaitCopyBarrier(&shared.partial_empty[summer][tile % kLayersPartials],
                    (tile / kLayersPartials & 1) ^ 1);
  }
  __device__ __forceinline__ void Arrive(int summer) {
    __syncwarp();
    if (lane == 0) {
      ArriveCopyBarrier(&shared.partial_full[summer][TileOf(summer) % kLayersPartials], 1);
    }
    tiles += summer == 0 ? 1 : 0;
    other_tiles += summer == 0 ? 0 : 1;
  }
  // Of gate and up (kPairs) both chains, else their sum.
  template <bool kPairs>
  __device__ __forceinline__ void Leave(const ShareSums& sums, int summer) {
    WaitForPartial(summer);
    auto& to = shared.partials[summer][TileOf(summer) % kLayersPartials];
    if constexpr (kPairs) {
      multiply.Store(sums.of[0], to[2 * warp]);
      multiply.Store(sums.of[1], to[2 * warp + 1]);
    } else {
      multiply.Store(sums.Sum(), to[warp]);
    }
    Arrive(summer);
  }

  // The tile from `unit` on of the block's. Of gate and up (kPairs) a tile is eight rows of each, two
  // chunks, else 16 rows, one.
  template <int kProduct>
  __device__ __forceinline__ void LoadTile(int unit) {
    constexpr bool kPairs = kProduct == 2;
    const int rows = min(shared.runs[kProduct].units - unit, kPairs ? kLayersRows : S::kTileRows);
    multiply.template Load<kPairs>(loaded, rows, S::RowBytes(kProduct));
  }

  // Tile after tile by the warp's share in x: a tile's chunks are loaded while the one before it is
  // summed up. The first is loaded.
  template <int kProduct>
  __device__ __forceinline__ void Multiply() {
    constexpr bool kPairs = kProduct == 2;
    constexpr int kUnits = kPairs ? kLayersRows : S::kTileRows;
    const int units = shared.runs[kProduct].units;
    ShareX in;
    multiply.LoadX(in, 0);
#pragma unroll 1
    for (int unit = 0; unit < units; unit += kUnits) {
      const ShareSums sums = multiply.Multiply(loaded, in);
      multiply.Release(kPairs);
      const int next = unit + kUnits;
      const bool ready = next < units && multiply.Ready(kPairs);
      if (ready) LoadTile<kProduct>(next);
      Leave<kPairs>(sums, kPairs ? unit / kLayersRows % 2 : 0);
      if (!ready && next < units) LoadTile<kProduct>(next);
    }
  }

  // Attention's output: two warps a head, which has as many shares.
  __device__ __forceinline__ void Output(const RowGroups<S>& groups, const uint64_t* words,
                                         uint32_t tag) {
    static_assert(S::kDim == 2 * kLayersShare && S::kQRows == S::kAttending * kLayersShare);
    const bool works = warp < S::kAttending;
    Await();
    if (works) {
      MergeGroups<S>(groups, warp / 2, warp % 2 * kWarp + lane, words, tag, x + 4 * lane);
      __syncwarp();
      // Before, it would take registers from the merging.
      LoadTile<1>(0);
      Multiply<1>();
    } else {
      multiply.Skip(false);
      multiply.Release(false);
      WaitForPartial(0);
      Arrive(0);
    }
  }

  // Down's only tile, a share of each piece.
  __device__ __forceinline__ void Down(const uint64_t* words, uint32_t tag) {
    LoadTile<3>(0);
    Await();
    const uint64_t* const at = words + S::kActivatedAt + 2 * thread;
    TwoWords taken[S::kDownPieces];
    bool all;
    do {
      all = true;
#pragma unroll
      for (int c = 0; c < S::kDownPieces; ++c) taken[c] = LoadTwoWords(at + c * S::kPiece / 2);
#pragma unroll
      for (int c = 0; c < S::kDownPieces; ++c) all = all && taken[c].Has(tag);
    } while (!all);
    __syncwarp();
#pragma unroll
    for (int c = 0; c < S::kDownPieces; ++c) {
      *reinterpret_cast<uint2*>(x + c * kLayersShare + 4 * lane) =
          make_uint2(taken[c].bits(0), taken[c].bits(1));
    }
    __syncwarp();
#pragma unroll 1
    for (int c = 0; c < S::kDownPieces; ++c) {
      ShareX in;
      multiply.LoadX(in, c);
      const ShareSums sums = multiply.Multiply(loaded, in);
      multiply.Release(false);
      if (c + 1 < S::kDownPieces) LoadTile<3>(0);
      // Who adds them up has read the layer's before: all blocks have its words.
      multiply.Store(sums.Sum(), shared.down[c][warp]);
    }
    WaitForPartial(0);
    Arrive(0);
  }

  // The last norm, in eights of elements, as LaunchAddNorm's (norms.cu).
  __device__ __forceinline__ void LastNorm(const uint64_t* words, uint32_t tag, const float* post) {
    const bool has = thread < S::kHidden / 8;
    static_assert(S::kHidden / 8 <= S::kAttending * kWarp);
    StorePack(held, shared.stream + 4 * thread);
    Await();
    Sync();
    float s[8] = {}, d[8] = {}, weights[8] = {}, posts[8] = {};
    if (has) {
      LoadFloats<float, 8>(shared.stream + 8 * thread, s);
      LoadFloats<float, 8>(post + 8 * thread, posts);
      LoadFloats<float, 8>(args.p.final_norm + 8 * thread, weights);
      TwoWords taken[4];
      bool all;
      do {
        all = true;
#pragma unroll
        for (int i = 0; i < 4; ++i) taken[i] = LoadTwoWords(words + 8 * thread + 2 * i);
#pragma unroll
        for (int i = 0; i < 4; ++i) all = all && taken[i].Has(tag);
      } while (!all);
#pragma unroll
      for (int i = 0; i < 8; ++i) d[i] = taken[i / 2].value(i % 2);
    }
    __syncwarp();
    const auto squares_of = [&](const float(&x)[8]) {
      float squares = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) squares = fmaf(x[i], x[i], squares);
      return squares;
    };
    const float delta_inverse = InverseRms(RowSum(squares_of(d), 0));
#pragma unroll
    for (int i = 0; i < 8; ++i) s[i] = fmaf(__fmul_rn(d[i], delta_inverse), posts[i], s[i]);
    const float inverse = InverseRms(RowSum(squares_of(s), 1));
    if (!has) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) s[i] = s[i] * inverse * weights[i];
    StoreFloats<T, 8>(s, static_cast<T*>(args.p.normed.data) + 8 * thread);
  }

  __device__ __forceinline__ void Run(uint64_t* all_words, uint32_t tag) {
    LayersExchange* const exchange = static_cast<LayersExchange*>(args.p.exchange);
    const OrderedRow row = {__ldcg(args.p.map.position),
                            args.p.lanes.BlockTable(__ldcg(args.p.map.lane), 0),
                            args.p.lanes.max_blocks};
    const bool attends = static_cast<int>(blockIdx.x) < S::kItems;
    for (int i = thread; attends && i < args.p.lanes.groups * kLayersCachedBlocks; i += kThreads) {
      const int index = i % kLayersCachedBlocks;
      const int group = i / kLayersCachedBlocks;
      if (index < row.max_blocks) {
        shared.blocks[group][index] =
            __ldcg(row.block_table + int64_t{group} * row.max_blocks + index);
      }
    }
    const float4 four = __ldcg(static_cast<const float4*>(args.p.hidden.data) + thread);
    held = {{four.x, four.y, four.z, four.w}};
    const uint64_t* words = nullptr;  // of what the layer before adds
    const float* post = nullptr;
#pragma unroll 1
    for (int l = 0; l < args.p.layers; ++l) {
      const LayerParams& layer = shared.layers[l % 2];
      uint64_t* const own = all_words + (l % 2) * S::kWords;
      ++tag;
      // There is room for the next kernel's blocks only when this one's end.
      if (l + 1 == args.p.layers) LaunchDependents();
      LoadTile<0>(0);
      const OrderedAttend<S> attend{layer, row, shared};
      const bool has_slots = attends && attend.has_slots();
      float4 end = {};
      if (has_slots) end = attend.LoadEnd(thread);
      Norm(words, tag - 1, post, layer.attention_norm, [&] {
        if (has_slots) attend.StoreEnd(thread, end);
      });
      Multiply<0>();
      if (attends) {
        if (has_slots && warp < S::kAttending) attend.Run(own, tag, l & 1);
        if (thread == 0) Count(exchange->counts[kPartsCount]);
      }
      Output(attend.groups, own, tag);
      LoadTile<2>(0);
      Norm(own + S::kOutputAt, tag, layer.attention_post_norm, layer.mlp_norm, [] {});
      Multiply<2>();
      if (attends && l + 1 < args.p.layers && warp == S::kAttending) {
        OrderedAttend<S>{shared.layers[(l + 1) % 2], row, shared}.Prefetch();
      }
      Down(own, tag);
      words = own + S::kDownAt;
      post = layer.mlp_post_norm;
    }
    if (blockIdx.x != 0) return;
    LastNorm(words, tag, post);
    if (thread == 0) exchange->layers += static_cast<uint32_t>(args.p.layers);
  }
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
