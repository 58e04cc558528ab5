// A warp's ring of weight groups in shared memory. The warp copies what it will multiply itself, so
// that nothing is handed from warp to warp. By asynchronous copies of 16 bytes a lane rather than by
// bulk copies: a row's 128 bytes would be one each, and issuing them took one thread longer than
// the memory needed (Hopper; 16 of them, 1.5 us).
//
// A slot is [16 rows][128 bytes]: both halves of a tile. In odd rows the two runs of 64 bytes change
// places, so that what eight lanes read of two rows lies in different banks.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/stream_plan.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Rows of weights whose sums are made at once.
template <typename T>
struct StreamTile {
  int units;
  const T* weights[2];  // the first row of each half; rows of a half follow one another
  int rows[2];          // of each half
};

// Where chunk `chunk` of 16 bytes of a row is in a slot.
__device__ __forceinline__ int SlotChunk(int row, int chunk) {
  return row * kStreamGroupBytes + (chunk ^ (row % 2 * 4)) * 16;
}

// Op::TileAt(unit, end) says which rows belong to the tile that begins at `unit`.
template <typename T, typename Op, int kDepth, bool kOwnColumns>
class StreamRing {
 public:
  // slots: this warp's kDepth, aligned to 128 bytes.
  __device__ StreamRing(const StreamPlan& plan, const Op& op, int first_unit, int end_unit,
                        unsigned char* slots)
      : columns_(plan.columns),
        groups_(plan.groups),
        op_(op),
        slots_(slots),
        unit_(first_unit),
        end_(end_unit),
        group_(threadIdx.x / kWarp),
        policy_(EvictFirstPolicy()) {
    to_ = SlotChunk(Row(), Chunk());
    if (unit_ < end_) NextTile();
  }

  // Asks for the first groups.
  __device__ void Start() {
    while (group_ >= groups_ && unit_ < end_) SkipTile();
    for (int i = 0; i + 1 < kDepth; ++i) Copy();
  }

  // After Start, with kOwnColumns: from now on the columns of activations that the warp multiplies
  // come with the weights of its first tile, so that no warp waits for another's or for more than it
  // needs. A warp's groups must be the same columns in every tile. in: [rows, columns]; x: in shared
  // memory.
  __device__ void StartRows(const StreamPlan& plan, const T* in, T* x) {
    in_ = in;
    x_ = x;
    x_rows_ = plan.rows;
    x_stride_ = plan.x_stride;
    x_group_ = static_cast<int>(threadIdx.x) / kWarp;
    for (int i = 0; i + 1 < kDepth; ++i) CopyColumns();
    CommitCopies();
    WaitForCopies<0>();  // the weights were asked for before them
    __syncwarp();
  }

  // Waits for the warp's next group, and asks for the one that is kDepth - 1 further on. The
  // group before may not be read any more.
  __device__ __forceinline__ const unsigned char* Next() {
    WaitForCopies<kDepth - 2>();
    __syncwarp();
    Copy();
    const unsigned char* slot = slots_ + taken_;
    taken_ = taken_ + kStreamSlotBytes == kRing ? 0 : taken_ + kStreamSlotBytes;
    return slot;
  }

 private:
  static constexpr int kRing = kDepth * kStreamSlotBytes;
  // A lane copies a chunk of rows Row() and Row() + 4 of both halves.
  static constexpr int kRowsAtOnce = kWarp / (kStreamGroupBytes / 16);
  static constexpr int kGroupElements = kStreamGroupBytes / sizeof(T);

  __device__ __forceinline__ static int Row() { return threadIdx.x % kWarp / 8; }
  __device__ __forceinline__ static int Chunk() { return threadIdx.x % 8; }

  __device__ __forceinline__ void NextTile() {
    const StreamTile<T> tile = op_.TileAt(unit_, end_);
    units_ = tile.units;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      rows_[half] = tile.rows[half] - Row();
      from_[half] = tile.weights[half] + int64_t{Row()} * columns_ + Chunk() * (16 / sizeof(T));
    }
  }
  __device__ __forceinline__ void SkipTile() {
    group_ -= groups_;
    unit_ += units_;
    if (unit_ < end_) NextTile();
  }

  // Of the first tile's next group, where there is one.
  __device__ __forceinline__ void CopyColumns() {
    if (x_group_ >= groups_) return;
    const int column = x_group_ * kGroupElements + Chunk() * static_cast<int>(16 / sizeof(T));
    const bool inside = column < columns_;
    for (int row = Row(); row < x_rows_; row += kRowsAtOnce) {
      CopyAsync16(x_ + row * x_stride_ + column,
                  in_ + int64_t{row} * columns_ + (inside ? column : 0), inside);
    }
    x_group_ += kStreamWarps;
  }

  __device__ __forceinline__ void Copy() {
    // Not in kernels that need it not: ptxas 13.0 then named registers that hold nothing as those of
    // the policy (an illegal instruction, where norms are made first).
    if constexpr (kOwnColumns) CopyColumns();
    if (unit_ < end_) {
      unsigned char* to = slots_ + asked_ + to_;
      const int column = group_ * kGroupElements;
      // The last group may be narrower: zeros.
      const bool inside = column + Chunk() * static_cast<int>(16 / sizeof(T)) < columns_;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const T* from = from_[half] + (inside ? column : 0);
#pragma unroll
        for (int i = 0; i < kStreamHalf / kRowsAtOnce; ++i) {
          if (i * kRowsAtOnce < rows_[half]) {
            CopyAsync16(to + (half * kStreamHalf + i * kRowsAtOnce) * kStreamGroupBytes, from,
                        inside, policy_);
          }
          from += kRowsAtOnce * columns_;
        }
      }
      asked_ = asked_ + kStreamSlotBytes == kRing ? 0 : asked_ + kStreamSlotBytes;
      group_ += kStreamWarps;
      while (group_ >= groups_ && unit_ < end_) SkipTile();
    }
    CommitCopies();
  }

  const int columns_;
  const int groups_;
  const Op& op_;
  unsigned char* const slots_;
  int unit_;  // of the next copy: its tile's first
  const int end_;
  int group_;  // of the next copy
  const uint64_t policy_;
  int to_;  // of the lane's first chunk in a slot
  int units_ = 0;
  int rows_[2] = {};  // of each half, from the lane's first row on
  const T* from_[2] = {};
  int asked_ = 0;  // the next copy's slot
  int taken_ = 0;  // the next group's slot
  // Of StartRows.
  const T* in_ = nullptr;
  T* x_ = nullptr;
  int x_rows_ = 0;
  int x_stride_ = 0;
  int x_group_ = 0;  // of the next copy of columns
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
