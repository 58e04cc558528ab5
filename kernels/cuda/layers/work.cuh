// The warps of layers.cu that multiply and attend.
#pragma once

#include <cstdint>

#include "kernels/cuda/layers/attention.cuh"
#include "kernels/cuda/layers/multiply.cuh"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/cuda/layers/shape.h"
#include "kernels/cuda/layers/shared.cuh"
#include "kernels/cuda/layers/words.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// kOne: a launch is one layer, else all.
template <typename S, bool kOne>
struct Worker {
  using T = Element;
  static constexpr int kRows = S::kRows;
  static constexpr int kPieces = S::Pieces(S::kHidden);

  const LayersArgs& args;
  BlockShared<S>& shared;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  T* const x = shared.x[warp];
  Multiplier<T, S> multiply;
  ChunkWeights loaded;
  const int column = warp * kLayersShare + 4 * lane;  // of a piece, the lane's first of four
  uint32_t tiles = 0;
  float4 held[kRows][kPieces];   // of the residual stream
  float4 added[kRows][kPieces];  // with kPost: what is not in it yet, times its weights
  uint32_t awaited = 0;

  __device__ Worker(const LayersArgs& args, BlockShared<S>& shared, unsigned char* ring)
      : args(args),
        shared(shared),
        multiply(shared.ring, ring, shared.x[static_cast<int>(threadIdx.x) / kWarp]) {}

  // The next words are there, very likely.
  __device__ __forceinline__ void Await() {
    WaitCopyBarrier(&shared.words_there, awaited & 1);
    ++awaited;
  }
  static __device__ __forceinline__ float Dot(const float4& a, const float4& b) {
    return (a.x * b.x + a.y * b.y) + (a.z * b.z + a.w * b.w);
  }
  static __device__ __forceinline__ float4 Times(const float4& a, const float4& b) {
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
  }
  static __device__ __forceinline__ float4 Plus(const float4& a, const float4& b, float factor) {
    return make_float4(fmaf(factor, b.x, a.x), fmaf(factor, b.y, a.y), fmaf(factor, b.z, a.z),
                       fmaf(factor, b.w, a.w));
  }
  static __device__ __forceinline__ uint32_t PairOf(float low, float high) {
    Pack<T, 2> pair;
    pair.at[0] = FromFloat<T>(low);
    pair.at[1] = FromFloat<T>(high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
  __device__ __forceinline__ void StoreX(int piece, int columns, int of, const float4& value) {
    StoreShare<S::kStreamColumns>(x + (piece * columns + of) * kLayersShare, lane,
                                  make_uint2(PairOf(value.x, value.y), PairOf(value.z, value.w)));
  }

  // The stream with what `words`, or `memory`, add to it (both null: nothing), times `weight`, to x;
  // its sums of squares.
  __device__ __forceinline__ void TakeStream(const uint64_t* words, uint32_t tag,
                                             const float* memory, const float* post,
                                             const float* weight, float4 (&weights)[kPieces]) {
    constexpr int kColumns = S::kStreamColumns;
    const bool adds = words != nullptr || memory != nullptr;
    float4 posts[kPieces];
    float4 deltas[kRows][kPieces];
    if (memory != nullptr) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kPieces; ++c) {
          deltas[r][c] = __ldcg(
              reinterpret_cast<const float4*>(memory + r * S::kHidden + c * S::kPiece + column));
        }
      }
    }
#pragma unroll
    for (int c = 0; c < kPieces; ++c) {
      weights[c] = __ldg(reinterpret_cast<const float4*>(weight + c * S::kPiece + column));
      if (S::kPost && adds) {
        posts[c] = __ldg(reinterpret_cast<const float4*>(post + c * S::kPiece + column));
      }
    }
    float stats[S::kStats] = {};
    if constexpr (S::kPost) {
      // What does not hang on the words: the stream is whole.
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kPieces; ++c) {
          stats[4 * r + 2] += Dot(held[r][c], held[r][c]);
          StoreX(c, kColumns, r, Times(held[r][c], weights[c]));
        }
      }
    }
    if (words != nullptr) {
      Await();
      if constexpr (kRows == 4) {
#pragma unroll
        for (int c = 0; c < kPieces; ++c) {
          FourWord taken[4];
          bool all;
          do {
            all = true;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              taken[i] = LoadFourWord(words + 2 * (c * S::kPiece + column + i));
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) all = all && taken[i].Has(tag);
          } while (!all);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            deltas[r][c] = make_float4(taken[0].value(r), taken[1].value(r), taken[2].value(r),
                                       taken[3].value(r));
          }
        }
      } else {
        TwoWords taken[kRows][kPieces][2];
        bool all;
        do {
          all = true;
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kPieces; ++c) {
              const uint64_t* const at = words + r * S::kHidden + c * S::kPiece + column;
              taken[r][c][0] = LoadTwoWords(at);
              taken[r][c][1] = LoadTwoWords(at + 2);
            }
          }
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kPieces; ++c) {
              all = all && taken[r][c][0].Has(tag) && taken[r][c][1].Has(tag);
            }
          }
        } while (!all);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int c = 0; c < kPieces; ++c) {
            deltas[r][c] = make_float4(taken[r][c][0].value(0), taken[r][c][0].value(1),
                                       taken[r][c][1].value(0), taken[r][c][1].value(1));
          }
        }
      }
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kPieces; ++c) {
        float4& h = held[r][c];
        const float4 delta = adds ? deltas[r][c] : make_float4(0, 0, 0, 0);
        if constexpr (S::kPost) {
          float4& a = added[r][c];
          a = adds ? Times(delta, posts[c]) : delta;
          stats[4 * r] += Dot(delta, delta);
          stats[4 * r + 1] += Dot(a, a);
          stats[4 * r + 3] += Dot(h, a);
          StoreX(c, kColumns, kRows + r, Times(a, weights[c]));
        } else {
          h = Plus(h, delta, 1);
          stats[r] += Dot(h, h);
          StoreX(c, kColumns, r, Times(h, weights[c]));
        }
      }
    }
    auto& to = shared.stats[warp][lane];
    if constexpr (S::kStats % 4 == 0) {
#pragma unroll
      for (int i = 0; i < S::kStats; i += 4) {
        *reinterpret_cast<float4*>(&to[i]) =
            make_float4(stats[i], stats[i + 1], stats[i + 2], stats[i + 3]);
      }
    } else {
#pragma unroll
      for (int i = 0; i < S::kStats; ++i) to[i] = stats[i];
    }
    __syncwarp();
    if (lane == 0) ArriveCopyBarrier(&shared.stats_full, 1);
  }

  // After the k-th TakeStream: the stream is whole.
  __device__ __forceinline__ void Join(int k) {
    WaitCopyBarrier(&shared.factors_full, k & 1);
    if constexpr (S::kPost) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float factor = shared.factors[k & 1][r].x;
#pragma unroll
        for (int c = 0; c < kPieces; ++c) held[r][c] = Plus(held[r][c], added[r][c], factor);
      }
    }
  }

  template <int kColumns>
  __device__ __forceinline__ void Leave(const TileSums<kColumns>& sums) {
    const int slot = tiles % kLayersPartials;
    // The first time round nobody has to have emptied it.
    WaitCopyBarrier(&shared.partial_empty[slot], (tiles / kLayersPartials & 1) ^ 1);
    multiply.Store(sums, shared.partials[slot][warp]);
    __syncwarp();
    if (lane == 0) ArriveCopyBarrier(&shared.partial_full[slot], 1);
    ++tiles;
  }

  // ---- Products with the stream: tile after tile, a tile's chunks loaded while the one before it
  // is summed up. Of gate and up (kPairs) a tile is eight rows of each.
  // ------------------------------
  struct TileRows {
    int a, b;
  };
  template <bool kPairs>
  static __device__ __forceinline__ TileRows RowsOf(const BlockRun& run, int unit) {
    const int left = run.units - unit;
    const int a = min(left, kLayersRows);
    return {a, kPairs ? a : min(left - a, kLayersRows)};
  }
  __device__ __forceinline__ void LoadStream(const TileRows& rows) {
    multiply.Load(loaded, rows.a, rows.b, 2 * S::PieceColumns(0));
  }
  // The first tile's first piece, while activations are awaited.
  template <bool kPairs>
  __device__ __forceinline__ void LoadFirst(const BlockRun& run) {
    LoadStream(RowsOf<kPairs>(run, 0));
  }
  template <bool kPairs>
  __device__ __forceinline__ void MultiplyStream(const BlockRun& run) {
    constexpr int kUnits = kPairs ? kLayersRows : 2 * kLayersRows;
    PieceX<S::kStreamColumns> in[kPieces];
#pragma unroll
    for (int c = 0; c < kPieces; ++c) multiply.LoadX(in[c], c);
#pragma unroll 1
    for (int unit = 0; unit < run.units; unit += kUnits) {
      const TileRows rows = RowsOf<kPairs>(run, unit);
      TileSums<S::kStreamColumns> sums;
#pragma unroll
      for (int c = 0; c < kPieces; ++c) {
        multiply.Add(sums, loaded, in[c]);
        multiply.Release(rows.b > 0);
        if (c + 1 < kPieces) LoadStream(rows);
      }
      if (unit + kUnits >= run.units) {
        Leave(sums);
        break;
      }
      const TileRows next = RowsOf<kPairs>(run, unit + kUnits);
      const bool ready = multiply.Ready(next.b > 0);
      if (ready) LoadStream(next);
      Leave(sums);
      if (!ready) LoadStream(next);
    }
  }

  // ---- Output and down: piece after piece, all tiles of it
  // ----------------------------------------
  static constexpr int kTiles = (S::kHidden / 132 + 1 + 15) / 16;  // at most

  template <int kProduct>
  __device__ __forceinline__ bool Works(int piece) const {
    constexpr int kColumns = S::Columns(kProduct);
    return kColumns % S::kPiece == 0 || piece * S::kPiece + column < kColumns;
  }
  static __device__ __forceinline__ TileRows RowsOf(const BlockRun& run, int tile) {
    return RowsOf<false>(run, 16 * tile);
  }
  template <int kProduct>
  __device__ __forceinline__ void LoadTile(const TileRows& rows, bool works) {
    if (works) {
      multiply.Load(loaded, rows.a, rows.b, 2 * S::PieceColumns(kProduct));
    } else {
      multiply.Skip(rows.b > 0);
    }
  }
  // Pieces `first` ... `end` - 1 of a product, x beginning with piece `first`, whose first tile is
  // loaded. Then the first of the next piece is, if there is one.
  template <int kProduct>
  __device__ __forceinline__ void MultiplyPieces(TileSums<kRows> (&sums)[kTiles],
                                                 const BlockRun& run, int first, int end) {
    constexpr int kAll = S::Pieces(S::Columns(kProduct));
#pragma unroll 1
    for (int c = first; c < end; ++c) {
      const bool works = Works<kProduct>(c);
      PieceX<kRows> in;
      if (works) multiply.LoadX(in, c - first);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if (16 * tile >= run.units) break;
        const TileRows rows = RowsOf(run, tile);
        if (works) multiply.Add(sums[tile], loaded, in);
        multiply.Release(rows.b > 0);
        if (16 * (tile + 1) < run.units) {
          LoadTile<kProduct>(RowsOf(run, tile + 1), works);
        } else if (c + 1 < kAll) {
          LoadTile<kProduct>(RowsOf(run, 0), Works<kProduct>(c + 1));
        }
      }
    }
  }
  __device__ __forceinline__ void LeaveTiles(const TileSums<kRows> (&sums)[kTiles],
                                             const BlockRun& run) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (16 * tile < run.units) Leave(sums[tile]);
    }
  }

  __device__ __forceinline__ void Output(const uint64_t* words, uint32_t tag) {
    constexpr int kOutputPieces = S::Pieces(S::kQRows);
    constexpr int kQuads = S::kDim / 4;
    const BlockRun run = shared.runs[1];
    LoadTile<1>(RowsOf(run, 0), Works<1>(0));
    Await();
#pragma unroll
    for (int c = 0; c < kOutputPieces; ++c) {
      const int own = c * S::kPiece + column;
      if (own >= S::kQRows) break;
      const int head = own / S::kDim;
      const int quad = own % S::kDim / 4;
      const uint64_t* const at = words + S::kPartsAt + 2 * (head * S::kParts * kQuads + quad);
      WideWord parts[kRows][S::kParts];
      bool all;
      do {
        all = true;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int p = 0; p < S::kParts; ++p) {
            parts[r][p] = LoadWideWord(at + 2 * (r * S::kHeads * S::kParts + p) * kQuads);
          }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) all = all && PartsHave<T>(parts[r], tag);
      } while (!all);
      __syncwarp();
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const Pack<T, 4> merged = MergeParts4<T>(parts[r]);
        StoreShare<kRows>(x + (c * kRows + r) * kLayersShare, lane,
                          *reinterpret_cast<const uint2*>(&merged));
      }
    }
    __syncwarp();
    TileSums<kRows> sums[kTiles];
    MultiplyPieces<1>(sums, run, 0, kOutputPieces);
    LeaveTiles(sums, run);
  }

  __device__ __forceinline__ void Down(const uint64_t* words, uint32_t tag) {
    constexpr int kDownPieces = S::Pieces(S::kIntermediate);
    const BlockRun run = shared.runs[3];
    LoadTile<3>(RowsOf(run, 0), true);
    Await();
    const uint64_t* const at = words + S::kActivatedAt + column / 2;
    const auto store = [&](const TwoWords& two, int place) {
      StoreShare<kRows>(x + place * kLayersShare, lane, make_uint2(two.bits(0), two.bits(1)));
    };
    TileSums<kRows> sums[kTiles];
    if constexpr (kRows == 1) {
      TwoWords taken[kDownPieces];
      bool all;
      do {
        all = true;
#pragma unroll
        for (int c = 0; c < kDownPieces; ++c) taken[c] = LoadTwoWords(at + c * S::kPiece / 2);
#pragma unroll
        for (int c = 0; c < kDownPieces; ++c) all = all && taken[c].Has(tag);
      } while (!all);
      __syncwarp();
#pragma unroll
      for (int c = 0; c < kDownPieces; ++c) store(taken[c], c);
      __syncwarp();
      MultiplyPieces<3>(sums, run, 0, kDownPieces);
    } else {
      TwoWords taken[kRows];
      const auto ask = [&](int c) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          taken[r] = LoadTwoWords(at + r * (S::kIntermediate / 2) + c * (S::kPiece / 2));
        }
      };
      ask(0);
#pragma unroll 1
      for (int c = 0; c < kDownPieces; ++c) {
        for (;;) {
          bool all = true;
#pragma unroll
          for (int r = 0; r < kRows; ++r) all = all && taken[r].Has(tag);
          if (all) break;
          ask(c);
        }
        __syncwarp();
#pragma unroll
        for (int r = 0; r < kRows; ++r) store(taken[r], r);
        if (c + 1 < kDownPieces) ask(c + 1);
        __syncwarp();
        MultiplyPieces<3>(sums, run, c, c + 1);
      }
    }
    LeaveTiles(sums, run);
  }

  // What the next launch takes in place of this one's `hidden`: block 0's, when all have read theirs.
  __device__ __forceinline__ void LeaveStream(int first) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kPieces; ++c) {
        *reinterpret_cast<float4*>(static_cast<float*>(args.p.hidden.data) + r * S::kHidden +
                                   c * S::kPiece + column) = held[r][c];
      }
    }
    if (threadIdx.x == 0) {
      *args.p.advance = first + 1;
      LayersExchange* const exchange = static_cast<LayersExchange*>(args.p.exchange);
      exchange->layers += 1;
      // What blocks would have said of down, if anybody in this launch read it.
      *exchange->counts[kDownCount] += static_cast<uint32_t>(args.blocks);
    }
  }

  // first: the layer in shared.layers[0].
  __device__ __forceinline__ void Run(uint64_t* all_words, uint32_t tag, int first) {
    const int layers = kOne ? 1 : args.p.layers;
    AttentionItem item = {};
    const bool attends = static_cast<int>(blockIdx.x) < S::kItems;
    if (!kOne && attends) {
      item = ItemOf<S>(args.p.map, args.p.lanes);
      CacheBlockTable(item, args.p.lanes.groups, shared.attention, static_cast<int>(threadIdx.x),
                      S::kWarps * kWarp);
      BarrierOf<S::kWarps * kWarp>(2);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kPieces; ++c) {
        held[r][c] =
            __ldcg(reinterpret_cast<const float4*>(static_cast<const float*>(args.p.hidden.data) +
                                                   r * S::kHidden + c * S::kPiece + column));
      }
    }
    // Of what the layer before adds.
    const uint64_t* words = nullptr;
    const float* const memory =
        kOne && first > 0 ? static_cast<const float*>(args.p.delta.data) : nullptr;
    const float* post = kOne ? shared.layers[0].input_post_norm : nullptr;
    const BlockRun qkv = shared.runs[0];
    const BlockRun gate_up = shared.runs[2];
    float4 weights[kPieces];
#pragma unroll 1
    for (int l = 0; l < layers; ++l) {
      const LayerParams& layer = shared.layers[l % 2];
      uint64_t* const own = all_words + (l % 2) * S::kWords;
      ++tag;
      // There is room for the next kernel's blocks only when this one's end.
      if (l + 1 == layers) LaunchDependents();
      // A launch of one layer begins with weights on their way, others with weights that are there.
      if constexpr (!kOne) LoadFirst<false>(qkv);
      TakeStream(words, tag - 1, memory, post, layer.attention_norm, weights);
      if constexpr (kOne) LoadFirst<false>(qkv);
      MultiplyStream<false>(qkv);
      if (attends) {
        if constexpr (kOne) {
          BarrierOf<(S::kWarps + 1) * kWarp>(3);  // the summing warp's block table is there
          item = ItemOf<S>(args.p.map, args.p.lanes);
        }
        AttendPart<T, S>(layer, item, own, tag, shared.attention, &shared.qkv_there, l & 1);
        if (threadIdx.x == 0) {
          Count(static_cast<LayersExchange*>(args.p.exchange)->counts[kPartsCount]);
        }
      }
      Output(own, tag);
      Join(2 * l);
      LoadFirst<true>(gate_up);
      TakeStream(own + S::kOutputAt, tag, nullptr, layer.attention_post_norm, layer.mlp_norm,
                 weights);
      MultiplyStream<true>(gate_up);
      Join(2 * l + 1);
      // All blocks' words of output have been read by now, so all have read what they begin with.
      if (kOne && blockIdx.x == 0) LeaveStream(first);
      if (attends && first + l + 1 < args.p.layers) {
        PartSlots<T, S>(shared.layers[(l + 1) % 2], item, shared.attention).Prefetch();
      }
      Down(own, tag);
      words = own + S::kDownAt;
      post = layer.mlp_post_norm;
    }
    if (kOne || blockIdx.x != 0) return;
    TakeStream(words, tag, nullptr, post, args.p.final_norm, weights);
    Join(2 * layers);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float inverse = shared.factors[0][r].y;
#pragma unroll
      for (int c = 0; c < kPieces; ++c) {
        const float4 normed = Times(held[r][c], weights[c]);
        const float four[4] = {normed.x * inverse, normed.y * inverse, normed.z * inverse,
                               normed.w * inverse};
        StoreFloats<T, 4>(
            four, static_cast<T*>(args.p.normed.data) + r * S::kHidden + c * S::kPiece + column);
      }
    }
    if (threadIdx.x == 0) {
      LayersExchange* const exchange = static_cast<LayersExchange*>(args.p.exchange);
      exchange->layers += static_cast<uint32_t>(layers);
    }
  }
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
