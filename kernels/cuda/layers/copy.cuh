// The warp of layers.cu that copies its block's part of all weights into the ring.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/layers/exchange.cuh"
#include "kernels/cuda/layers/ring.cuh"
#include "kernels/cuda/layers/shape.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Of `layers` layers from the table's entry at `table` on.
template <typename S>
__device__ __noinline__ void CopyWeights(const LayersArgs& args, const LayerParams* table,
                                         int layers, const BlockRun (&runs)[4], RingShared& shared,
                                         unsigned char* ring) {
  using T = Element;
  RingWriter<S::kRowsPad> writer(shared, ring, args.ring_bytes, args.tuning.under_way);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const BlockRun qkv = runs[0], output = runs[1], gate_up = runs[2], down = runs[3];
  struct Pointers {
    const T *q, *k, *v, *o, *gate, *up, *down;
    __device__ explicit Pointers(const LayerParams& l)
        : q(static_cast<const T*>(l.q.data)),
          k(static_cast<const T*>(l.k.data)),
          v(static_cast<const T*>(l.v.data)),
          o(static_cast<const T*>(l.o.data)),
          gate(static_cast<const T*>(l.gate.data)),
          up(static_cast<const T*>(l.up.data)),
          down(static_cast<const T*>(l.down.data)) {}
  };
  // A chunk of rows that follow each other, from the matrix's row at `from` on.
  const auto chunk = [&]<int kProduct>(std::integral_constant<int, kProduct>, int piece,
                                       const T* from, int rows) {
    constexpr int kColumns = S::Columns(kProduct);
    writer.Begin(rows, S::RowBytes(kProduct));
    if constexpr (kColumns <= S::kPiece) {
      writer.PutRun(from, 0, rows);
    } else {
      writer.PutRows(from + lane * kColumns + piece * S::kPiece, rows);
    }
  };
  // Tile after tile within a piece.
  const auto plain = [&](auto product, const BlockRun& run, const T* from) {
    constexpr int kColumns = S::Columns(product);
    for (int piece = 0; piece < S::Pieces(kColumns); ++piece) {
      for (int unit = 0; unit < run.units; unit += S::kTileRows) {
        chunk(product, piece, from + int64_t{run.first + unit} * kColumns,
              min(S::kTileRows, run.units - unit));
      }
    }
  };
  Pointers next(table[0]);
  for (int layer = 0; layer < layers; ++layer) {
    const Pointers weights = next;
    if (layer + 1 < layers) next = Pointers(table[layer + 1]);
    const auto matrix_of = [&](int row, int& begin, int& rows) {
      const bool is_q = row < S::kQRows;
      const bool is_k = !is_q && row < S::kQRows + S::kKvRows;
      begin = is_q ? 0 : is_k ? S::kQRows + 0 : S::kQRows + S::kKvRows;
      rows = is_q ? S::kQRows + 0 : S::kKvRows + 0;
      return is_q ? weights.q : is_k ? weights.k : weights.v;
    };
    // Piece after piece of a tile.
    for (int tile = 0; tile < qkv.units; tile += 2 * kLayersRows) {
      for (int piece = 0; piece < S::Pieces(S::kHidden); ++piece) {
        for (int unit = tile; unit < min(tile + 2 * kLayersRows, qkv.units);
             unit += S::kTileRows) {
          const int first = qkv.first + unit;
          const int count = min(S::kTileRows, qkv.units - unit);
          writer.Begin(count, S::RowBytes(0));
          int begin, rows;
          if constexpr (S::kHidden <= S::kPiece && S::kRowsPad == 0) {
            for (int at = first; at < first + count; at += rows) {
              const T* const matrix = matrix_of(at, begin, rows);
              rows = min(first + count, begin + rows) - at;
              writer.PutRun(matrix + int64_t{at - begin} * S::kHidden, at - first, rows);
            }
          } else {
            const T* const matrix = matrix_of(first + lane, begin, rows);
            writer.PutRows(matrix + int64_t{first + lane - begin} * S::kHidden + piece * S::kPiece,
                           count);
          }
        }
      }
    }
    plain(std::integral_constant<int, 1>(), output, weights.o);
    for (int unit = 0; unit < gate_up.units; unit += kLayersRows) {
      const int rows = min(kLayersRows, gate_up.units - unit);
      const int64_t at = int64_t{gate_up.first + unit} * S::kHidden;
      for (int piece = 0; piece < S::Pieces(S::kHidden); ++piece) {
        chunk(std::integral_constant<int, 2>(), piece, weights.gate + at, rows);
        chunk(std::integral_constant<int, 2>(), piece, weights.up + at, rows);
      }
    }
    plain(std::integral_constant<int, 3>(), down, weights.down);
  }
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
