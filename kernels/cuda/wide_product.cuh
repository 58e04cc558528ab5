// The kernel of wide products (wide_product.h).
//
// A block owns kGroups * 64 rows by kOutputs outputs, of gate and up alternately in eights where
// both are multiplied, so that a thread has both sums of an output. The warps of a warpgroup of its
// own copy stages of 64 inputs to a ring; kGroups warpgroups multiply 64 rows each. Blocks of
// a cluster own neighbouring tiles: those of the same outputs bring a part of the weights each, to
// all of them, those of the same rows a part of the rows. Clusters go from item to item (WideGrid);
// the ring is filled for the next while one is ended. Its first weights are asked for before
// WaitForDependency.
//
// With kSplit 2 a cluster has each tile twice, for half of the inputs each: then few outputs are
// blocks for all multiprocessors, of which none brings as many rows as whole tiles would want. The
// two exchange sums, and each ends half of the outputs. They do that once, so all clusters find room
// at once.
//
// Bytes: weights from memory once a group of row tiles, and between L2 and multiprocessors, of a
// stage, (kRows / kAcross + kOutputs / kDown) * 128 a block. A multiprocessor takes 64 bytes a clock
// of the (kRows + kOutputs) * 128 of a stage: what bounds small tiles. Grid: as many clusters as
// find room at once, or as there are items. (kGroups + 1) * 128 threads, all registers. Shared
// memory: 196 to 227 KiB.
//
// Measured on an H200 (wide_pair_bench products), us, cuBLASLt's best -> this: llama3.1-8b's down of
// 64 rows (117 MB) 34.7 -> 32.1, 3,660 GB/s; of 128 37.9 -> 36.7; gate and up of 64 rows (235 MB) 61.7
// -> 59.2, 3,970 GB/s. Others: wide_product.h.
//
// Assumes rows of 16-bit elements that begin at multiples of 16 bytes, and outputs in eights.
#pragma once

#include <cuda.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/cuda/wide_ends.cuh"
#include "kernels/cuda/wide_grid.h"
#include "kernels/cuda/wide_product.h"
#include "kernels/cuda/wide_ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Warps that copy.
inline constexpr int kWideProducers = kWarpgroup / kWarp;

// kDown, kAcross: row tiles and output tiles of a cluster. kSplit: blocks that share a tile's inputs,
// 1 or 2.
template <int kGroupCount, int kOutputCount, int kDownCount, int kAcrossCount, int kSplitCount = 1>
struct WideShape {
  static constexpr int kGroups = kGroupCount;  // warpgroups that multiply
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kOutputs = kOutputCount;
  static constexpr int kDown = kDownCount;
  static constexpr int kAcross = kAcrossCount;
  static constexpr int kSplit = kSplitCount;
  static constexpr int kSharing = kDown * kAcross;  // blocks that copy for each other
  static constexpr int kBlocks = kSharing * kSplit;
  static constexpr int kThreads = (kGroups + 1) * kWarpgroup;
  static constexpr int kRowBytes = 2 * kMapColumns;  // of a stage
  static constexpr int kInBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kInBytes + kOutputs * kRowBytes;
  // What one block copies of a stage: rows, and outputs, for all that share them.
  static constexpr int kOwnRows = kRows / kAcross;
  static constexpr int kOwnOutputs = kOutputs / kDown;
  static constexpr int kMostShared = 227 * 1024 - 1024;  // what is static and what aligns left out
  static constexpr int kSums = kOutputs / 2;         // a thread's
  static constexpr int kEights = kOutputs / 8;       // of outputs
  // Eights that the first of two blocks ends, and the second at most.
  static constexpr int kEnded = (kEights + kSplit - 1) / kSplit;
  static constexpr int kExchangeBytes = kSplit == 1 ? 0 : kGroups * kWarpgroup * kEnded * 16;
  static constexpr int kMostSlots = 16;
  static constexpr int kFitSlots = (kMostShared - 1024 - kExchangeBytes) / kStageBytes;
  static constexpr int kSlots = kFitSlots < kMostSlots ? kFitSlots : kMostSlots;
  static constexpr int kRingBytes = kSlots * kStageBytes;
  static constexpr int kSharedBytes = 1024 + kRingBytes + kExchangeBytes;
  static constexpr int kArrivals = kGroups * (kWarpgroup / kWarp) * kSharing;  // that empty a slot
  // Registers a thread; at first all have the same.
  static constexpr int kGive = kGroups == 1 ? 56 : kGroups == 2 ? 40 : 32;
  static constexpr int kTake = kGroups == 1 ? 248 : kGroups == 2 ? 232 : 160;
  // Rows of a copy where rows end within a tile: those that do not exist are not asked for, since
  // the copy engine takes longer over them than over others.
  static constexpr int kFewRows = kOwnRows < 32 ? kOwnRows : 32;
  static_assert(kOwnRows % kFewRows == 0 && kOwnOutputs % 8 == 0 && kSlots >= kWideProducers);
};

struct WideArgs {
  CUtensorMap in;
  CUtensorMap weight;  // of gate and up: columns, 8 rows, gate and up, groups of 8 rows
  void* out;
  const float* bias;
  const float* up_bias;
  WideGrid grid;
  int32_t rows;
  int32_t outputs;  // of `out`
  int32_t depth;    // stages of all inputs
  int32_t box;      // rows of a copy of `in`
  bool once;        // each weight is read once
  Activation activation;
  RowSquares unnormed;
  float of_one;  // 1 / inputs
  WideLeaves leaves;
  int32_t tiles, runs;  // of the outputs, that leave squares: tiles, filled up to a multiple of 4
};

// A place in the ring, for each thread that goes through it.
template <int kSlots>
struct WideSlot {
  int at = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Next() {
    if (++at < kSlots) return;
    at = 0;
    parity ^= 1;
  }
};

// A block's place in its cluster, and its tile of an item.
template <typename Shape>
struct WideTilePlace {
  int row_rank, output_rank, part_rank;

  __device__ WideTilePlace() {
    const int rank = static_cast<int>(blockIdx.x) % Shape::kBlocks;
    row_rank = rank % Shape::kDown;
    output_rank = rank / Shape::kDown % Shape::kAcross;
    part_rank = rank / Shape::kSharing;
  }
  __device__ __forceinline__ int RowTile(const WideItem& item) const {
    return item.rows * Shape::kDown + row_rank;
  }
  __device__ __forceinline__ int OutputTile(const WideItem& item) const {
    return item.outputs * Shape::kAcross + output_rank;
  }
  __device__ __forceinline__ WideStages Stages(const WideItem& item, const WideArgs& p) const {
    return Shape::kSplit > 1 ? StagesOf(p.depth, part_rank, Shape::kSplit)
                             : StagesOf(p.depth, item.part, p.grid.parts);
  }
  // Of the cluster's blocks the first that copies for this one.
  __device__ __forceinline__ int FirstSharing() const { return part_rank * Shape::kSharing; }
  // Those that have this block's rows; its outputs.
  __device__ __forceinline__ uint16_t SameRows() const {
    uint32_t mask = 0;
#pragma unroll
    for (int i = 0; i < Shape::kAcross; ++i) mask |= 1u << (row_rank + i * Shape::kDown);
    return static_cast<uint16_t>(mask << FirstSharing());
  }
  __device__ __forceinline__ uint16_t SameOutputs() const {
    return static_cast<uint16_t>(((1u << Shape::kDown) - 1)
                                 << (output_rank * Shape::kDown + FirstSharing()));
  }
  // That with the tile's other inputs.
  __device__ __forceinline__ int Peer() const {
    return row_rank + output_rank * Shape::kDown + (1 - part_rank) * Shape::kSharing;
  }
};

// ---- Copies -------------------------------------------------------------------------------------

// By one thread of each warp of a block's last warpgroup, which take stages in turn: one alone needs
// longer for a stage's copies than a tile of 128 outputs is multiplied.
template <typename Shape, WideEnd kEnd>
class WideProducer {
 public:
  // own: 0 ... kWideProducers - 1
  __device__ WideProducer(const WideArgs& p, int own, unsigned char* ring, uint64_t* full,
                          uint64_t* empty)
      : p_(p),
        own_(own),
        ring_(ring),
        full_(full),
        empty_(empty),
        weights_policy_(p.once ? EvictFirstPolicy() : EvictNormalPolicy()),
        in_policy_(EvictNormalPolicy()) {}

  __device__ __forceinline__ void Run(int cluster, int clusters) {
    PrefetchMap(p_.weight);
    PrefetchMap(p_.in);
    // The first item's weights, as far as the ring goes, before what is multiplied with them is
    // there.
    Begin(cluster);
    const int filled = min(Shape::kSlots, stages_.last - stages_.first);
#pragma unroll 1
    for (int i = own_; i < filled; i += kWideProducers) Weights(stages_.first + i, i);
    LaunchDependents();
    WaitForDependency();
#pragma unroll 1
    for (int i = 0; i < filled; ++i) {
      if (Mine()) Activations(stages_.first + i, slot_.at);
      Next();
    }
    // Slots that were not filled are as those that were: nobody empties what was never full.
    first_round_ = Shape::kSlots - filled;
    Stages(stages_.first + filled);
#pragma unroll 1
    for (int i = cluster + clusters; i < p_.grid.items(); i += clusters) {
      Begin(i);
      Stages(stages_.first);
    }
  }

 private:
  __device__ __forceinline__ void Begin(int index) {
    const WideItem item = p_.grid.At(index);
    stages_ = place_.Stages(item, p_);
    row_ = place_.RowTile(item) * Shape::kRows;
    output_ = place_.OutputTile(item) * Shape::kOutputs;
    // Those that exist, up to whole copies.
    const int rest = max(p_.rows - row_ + p_.box - 1, 0);
    rows_ = min(rest / p_.box * p_.box, Shape::kRows);
  }
  __device__ __forceinline__ bool Mine() const { return turn_ == own_; }
  __device__ __forceinline__ void Next() {
    turn_ = turn_ + 1 < kWideProducers ? turn_ + 1 : 0;
    slot_.Next();
  }

  __device__ __forceinline__ void Stages(int first) {
#pragma unroll 1
    for (int stage = first; stage < stages_.last; ++stage) {
      const bool waits = first_round_ <= 0;
      if (!waits) --first_round_;
      if (Mine()) {
        // What filled the slot before is emptied in the phase before this one's. Others may be a
        // round of the ring ahead or behind, not two: each of them has waited for the slot of its
        // own last stage, kWideProducers before this one.
        if (waits) WaitBarrier(&empty_[slot_.at], slot_.parity ^ 1);
        Weights(stage, slot_.at);
        Activations(stage, slot_.at);
      }
      Next();
    }
  }

  __device__ __forceinline__ void Weights(int stage, int slot) {
    const int own = place_.row_rank * Shape::kOwnOutputs;
    const int output = output_ + own;
    unsigned char* const to =
        ring_ + slot * Shape::kStageBytes + Shape::kInBytes + own * Shape::kRowBytes;
    const int column = stage * kMapColumns;
    ArriveExpecting(&full_[slot], (rows_ + Shape::kOutputs) * Shape::kRowBytes);
    if constexpr (kEnd == WideEnd::kGateUp) {
      // 16 of the tile's outputs are a group of 8 of gate's and of up's.
      if constexpr (Shape::kDown > 1) {
        CopyGroupsToBlocks(to, p_.weight, column, output / 16, &full_[slot], place_.SameOutputs(),
                           weights_policy_);
      } else {
        CopyGroups(to, p_.weight, column, output / 16, &full_[slot], weights_policy_);
      }
    } else {
      if constexpr (Shape::kDown > 1) {
        CopyBoxToBlocks(to, p_.weight, column, output, &full_[slot], place_.SameOutputs(),
                        weights_policy_);
      } else {
        CopyBox(to, p_.weight, column, output, &full_[slot], weights_policy_);
      }
    }
  }

  __device__ __forceinline__ void Activations(int stage, int slot) {
    const int column = stage * kMapColumns;
    const int first = place_.output_rank * Shape::kOwnRows;
    const int last = min(first + Shape::kOwnRows, rows_);
    unsigned char* const to = ring_ + slot * Shape::kStageBytes;
#pragma unroll 1
    for (int row = first; row < last; row += p_.box) {
      if constexpr (Shape::kAcross > 1) {
        CopyBoxToBlocks(to + row * Shape::kRowBytes, p_.in, column, row_ + row, &full_[slot],
                        place_.SameRows(), in_policy_);
      } else {
        CopyBox(to + row * Shape::kRowBytes, p_.in, column, row_ + row, &full_[slot], in_policy_);
      }
    }
  }

  const WideArgs& p_;
  const int own_;
  unsigned char* const ring_;
  uint64_t* const full_;
  uint64_t* const empty_;
  const uint64_t weights_policy_, in_policy_;
  const WideTilePlace<Shape> place_;
  // Of the item that is under way: the tile's first row and output, and rows that are copied.
  WideStages stages_;
  int row_ = 0, output_ = 0, rows_ = 0;
  WideSlot<Shape::kSlots> slot_;
  int turn_ = 0;         // whose stage it is
  int first_round_ = 0;  // slots that have never been filled
};

// ---- Ends ---------------------------------------------------------------------------------------

__device__ __forceinline__ WideEndRows EndOf(const WideArgs& p) {
  return {p.out, p.bias, p.up_bias, p.rows, p.outputs, p.activation};
}

// What a thread ends: of rows `row` and row + 8, of the eights from output `first` to `last`, outputs
// `own` and own + 1. `first` and `last` are the same for all threads, which the compiler is to see:
// loops that it takes for divergent cost those after them their uniform registers.
struct WidePlace {
  int row, own, first, last;
  bool exists[2];  // the rows

  // outputs: of the tile; of these `part` of those that kSplit blocks share.
  template <typename Shape>
  __device__ static WidePlace Of(const Shape&, int row_tile, int output_tile, int outputs, int part,
                                 const WideArgs& p) {
    const int thread = static_cast<int>(threadIdx.x);
    const int row = row_tile * Shape::kRows + thread / kWarp * 16 + thread % kWarp / 4;
    const int first = output_tile * outputs + part * Shape::kEnded * 8;
    const int last = part + 1 < Shape::kSplit ? first + Shape::kEnded * 8
                                              : (output_tile + 1) * outputs;
    return {row, thread % 4 * 2, first, min(last, p.outputs), {row < p.rows, row + 8 < p.rows}};
  }
};

// What a thread adds to and multiplies with, asked for before it is wanted.
template <int kEights>
struct WideStream {
  float2 at[kEights][2];
  float2 next[kEights];
};

template <int kEights>
__device__ __forceinline__ void LoadStream(const WideArgs& p, const WidePlace& place,
                                           WideStream<kEights>& stream) {
#pragma unroll
  for (int j = 0; j < kEights; ++j) {
    const bool exists = place.first + 8 * j < place.last;
    stream.next[j] = TwoBiases(exists ? p.leaves.next : nullptr, place.first + 8 * j + place.own);
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float* const row = static_cast<const float*>(p.out) +
                             static_cast<int64_t>(place.row + 8 * h) * p.outputs + place.first +
                             place.own;
#pragma unroll
    for (int j = 0; j < kEights; ++j) {
      const bool exists = place.exists[h] && place.first + 8 * j < place.last;
      stream.at[j][h] = exists ? *reinterpret_cast<const float2*>(row + 8 * j) : float2{0, 0};
    }
  }
}

// The stream + sums; and what is left of it (WideLeaves). Of the runs beyond the last tile's, which
// fill up a multiple of four, that tile's blocks leave zeros.
template <int kEights>
__device__ __forceinline__ void EndStream(const WideArgs& p, const WidePlace& place, int run,
                                          const float (&sums)[4 * kEights],
                                          const WideStream<kEights>& stream) {
  float squares[2] = {0, 0};
#pragma unroll
  for (int j = 0; j < kEights; j += 2) {
    if (place.first + 8 * j >= place.last) break;
    const bool second = j + 1 < kEights && place.first + 8 * (j + 1) < place.last;
    uint32_t left[2][2] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (i == 1 && !second) break;
      const int output = place.first + 8 * (j + i) + place.own;
      const float2 bias = TwoBiases(p.bias, output);
      const float2 next = stream.next[j + i];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float* const two = sums + 4 * (j + i) + 2 * h;
        float2 s = stream.at[j + i][h];
        s.x += two[0] + bias.x;
        s.y += two[1] + bias.y;
        squares[h] = fmaf(s.y, s.y, fmaf(s.x, s.x, squares[h]));
        left[h][i] = PackTwo<__nv_bfloat16>(s.x * next.x, s.y * next.y);
        if (place.exists[h]) {
          *reinterpret_cast<float2*>(static_cast<float*>(p.out) +
                                     static_cast<int64_t>(place.row + 8 * h) * p.outputs + output) =
              s;
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      auto* const eights = static_cast<__nv_bfloat16*>(p.leaves.rows) +
                           static_cast<int64_t>(place.row + 8 * h) * p.outputs + place.first +
                           8 * j;
      StoreEights<__nv_bfloat16>(eights, left[h][0], left[h][1], place.exists[h], second);
    }
  }
#pragma unroll
  for (int far = 1; far < 4; far *= 2) {
    squares[0] += __shfl_xor_sync(kAllLanes, squares[0], far);
    squares[1] += __shfl_xor_sync(kAllLanes, squares[1], far);
  }
  const int lane = static_cast<int>(threadIdx.x) % 4;
  const bool last = run + 1 == p.tiles;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float* const of_row = p.leaves.squares + static_cast<int64_t>(place.row + 8 * h) * p.runs;
    if (!place.exists[h]) continue;
    if (lane == 0 && run < p.tiles) of_row[run] = squares[h];
    if (lane > 0 && last && run + lane < p.runs) of_row[run + lane] = 0;
  }
}

// inverse: what the sums of rows `row` and row + 8 are multiplied by.
template <int kEights>
__device__ __forceinline__ void EndStore(const WideArgs& p, const WidePlace& place, int part,
                                         float2 inverse, const float (&sums)[4 * kEights]) {
  float* const out = static_cast<float*>(p.out) + int64_t{part} * p.rows * p.outputs;
#pragma unroll
  for (int j = 0; j < kEights; ++j) {
    if (place.first + 8 * j >= place.last) break;
    const int output = place.first + 8 * j + place.own;
    const float2 bias = TwoBiases(p.bias, output);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float* const two = sums + 4 * j + 2 * h;
      const float scale = h == 0 ? inverse.x : inverse.y;
      if (place.exists[h]) {
        *reinterpret_cast<float2*>(out + static_cast<int64_t>(place.row + 8 * h) * p.outputs +
                                   output) =
            float2{fmaf(two[0], scale, bias.x), fmaf(two[1], scale, bias.y)};
      }
    }
  }
}

// ---- Sums of two blocks -------------------------------------------------------------------------

// Sends the sums of the outputs that the peer ends, and adds up those of the own. `received`: the
// block's place for them, [groups][eights][threads] of four.
template <typename Shape, int kPart>
__device__ __forceinline__ void ExchangeSums(const float (&sums)[Shape::kSums], int peer,
                                             float* received, uint64_t* arrived,
                                             float (&own)[4 * Shape::kEnded]) {
  constexpr int kFirst = kPart == 0 ? 0 : Shape::kEnded;  // of the own eights
  constexpr int kOwn = kPart == 0 ? Shape::kEnded : Shape::kEights - Shape::kEnded;
  constexpr int kSent = kPart == 0 ? Shape::kEnded : 0;
  const int thread = static_cast<int>(threadIdx.x);
  float* const at = received + (thread / kWarpgroup * Shape::kEnded * kWarpgroup +
                                thread % kWarpgroup) * 4;
#pragma unroll
  for (int j = 0; j < Shape::kEights - kOwn; ++j) {
    const float* const from = sums + 4 * (kSent + j);
    const float four[4] = {from[0], from[1], from[2], from[3]};
    StoreToBlock(four, at + j * kWarpgroup * 4, arrived, peer);
  }
  WaitBarrierOfCluster(arrived, 0);
#pragma unroll
  for (int j = 0; j < kOwn; ++j) {
    const float4 four = *reinterpret_cast<const float4*>(at + j * kWarpgroup * 4);
    const float* const to = sums + 4 * (kFirst + j);
    own[4 * j] = to[0] + four.x;
    own[4 * j + 1] = to[1] + four.y;
    own[4 * j + 2] = to[2] + four.z;
    own[4 * j + 3] = to[3] + four.w;
  }
#pragma unroll
  for (int i = 4 * kOwn; i < 4 * Shape::kEnded; ++i) own[i] = 0;
}

// ---- The kernel ---------------------------------------------------------------------------------

// By one warpgroup: its 64 rows of all tiles of the block.
template <typename Shape, typename T, WideEnd kEnd>
__device__ __forceinline__ void MultiplyTiles(const WideArgs& p, int cluster, int clusters,
                                              unsigned char* ring, uint64_t* full, uint64_t* empty,
                                              uint64_t* arrived) {
  const WideTilePlace<Shape> place;
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const uint64_t first_in = Operand(ring + group * 64 * Shape::kRowBytes);
  const uint64_t first_weights = Operand(ring + Shape::kInBytes);
  const auto leave = [&](int slot) {
    if (lane < Shape::kSharing) ArriveAtBlock(&empty[slot], place.FirstSharing() + lane);
  };
  float sums[Shape::kSums] = {};
  WideSlot<Shape::kSlots> slot;
  WaitForDependency();
#pragma unroll 1
  for (int i = cluster; i < p.grid.items(); i += clusters) {
    const WideItem item = p.grid.At(i);
    const WideStages stages = place.Stages(item, p);
    if (place.RowTile(item) * Shape::kRows + group * 64 >= p.rows) {
      // Nothing of this warpgroup's.
      for (int stage = stages.first; stage < stages.last; ++stage) {
        WaitBarrier(&full[slot.at], slot.parity);
        leave(slot.at);
        slot.Next();
      }
      continue;
    }
    constexpr int kOwn = kEnd == WideEnd::kGateUp ? Shape::kOutputs / 2 : Shape::kOutputs;
    const WidePlace of_thread = WidePlace::Of(Shape(), place.RowTile(item), place.OutputTile(item),
                                              kOwn, place.part_rank, p);
    // While the first stages are on their way.
    float2 inverse = {1, 1};
    constexpr int kEnded = Shape::kEnded;
    WideStream<kEnd == WideEnd::kLeave ? kEnded : 1> stream;
    if constexpr (kEnd == WideEnd::kLeave) {
      LoadStream<kEnded>(p, of_thread, stream);
    } else {
      inverse = RowInverses(p.unnormed, p.of_one, of_thread.row, p.rows);
    }
    __syncwarp();   // together again, for all that the compiler knows: descriptors stay uniform
    int used = -1;  // the slot of the stage before
#pragma unroll 1
    for (int stage = stages.first; stage < stages.last; ++stage) {
      WaitBarrier(&full[slot.at], slot.parity);
      const uint64_t a = first_in + slot.at * (Shape::kStageBytes / 16);
      const uint64_t b = first_weights + slot.at * (Shape::kStageBytes / 16);
      BeginProducts();
#pragma unroll
      for (int k = 0; k < kMapColumns / 16; ++k) {
        MultiplyWide<T, Shape::kOutputs>(sums, a + 2 * k, b + 2 * k, stage > stages.first || k > 0);
      }
      CommitProducts();
      WaitForProducts<1>();
      if (used >= 0) leave(used);
      used = slot.at;
      slot.Next();
    }
    WaitForProducts<0>();
    Settle(sums);
    if (used >= 0) leave(used);
    if constexpr (kEnd == WideEnd::kGateUp) {
      static_assert(Shape::kSplit == 1);
      EndGateUp<T, kEnded / 2>(EndOf(p), of_thread.row, place.OutputTile(item) * kOwn, inverse,
                               sums);
    } else {
      const auto end = [&](const float (&own)[4 * kEnded]) {
        if constexpr (kEnd == WideEnd::kLeave) {
          EndStream<kEnded>(p, of_thread, place.OutputTile(item) * Shape::kSplit + place.part_rank,
                            own, stream);
        } else {
          EndStore<kEnded>(p, of_thread, item.part, inverse, own);
        }
      };
      if constexpr (Shape::kSplit == 1) {
        end(sums);
      } else {
        float own[4 * kEnded];
        float* const received = reinterpret_cast<float*>(ring + Shape::kRingBytes);
        if (place.part_rank == 0) {
          ExchangeSums<Shape, 0>(sums, place.Peer(), received, arrived, own);
        } else {
          ExchangeSums<Shape, 1>(sums, place.Peer(), received, arrived, own);
        }
        end(own);
      }
    }
  }
}

template <typename Shape, typename T, WideEnd kEnd>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    WideKernel(const __grid_constant__ WideArgs p) {
  __shared__ uint64_t full[Shape::kSlots], empty[Shape::kSlots], arrived;
  unsigned char* const dynamic = DynamicShared();
  // The same place in every block of a cluster: what is static and what is not are alike in all.
  unsigned char* const ring = dynamic + (-SharedAddress(dynamic) & 1023);
  const int cluster = static_cast<int>(blockIdx.x) / Shape::kBlocks;
  const int clusters = static_cast<int>(gridDim.x) / Shape::kBlocks;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int i = 0; i < Shape::kSlots; ++i) {
      InitBarrier(&full[i], 1);
      InitBarrier(&empty[i], Shape::kArrivals);
    }
    if constexpr (Shape::kSplit > 1) InitBarrier(&arrived, 1);
    PublishBarriers();
    if constexpr (Shape::kSplit > 1) {
      // The one item's sums: of the groups that have rows, the eights that this block ends.
      const WideTilePlace<Shape> place;
      const int rows = p.rows - place.RowTile(p.grid.At(cluster)) * Shape::kRows;
      const int groups = max(0, min((rows + 63) / 64, Shape::kGroups));
      const int eights =
          place.part_rank == 0 ? Shape::kEnded : Shape::kEights - Shape::kEnded;
      ArriveExpecting(&arrived, static_cast<uint32_t>(groups * kWarpgroup * eights * 16));
    }
  }
  __syncthreads();
  if constexpr (Shape::kBlocks > 1) {
    // Others may copy to this block's memory and arrive at its barriers from here on.
    ArriveCluster();
    WaitCluster();
  }
  if (thread >= Shape::kGroups * kWarpgroup) {
    GiveRegisters<Shape::kGive>();
    if (thread % kWarp == 0) {
      const int own = thread / kWarp - Shape::kGroups * (kWarpgroup / kWarp);
      WideProducer<Shape, kEnd>(p, own, ring, full, empty).Run(cluster, clusters);
    }
    __syncwarp();
  } else {
    TakeRegisters<Shape::kTake>();
    MultiplyTiles<Shape, T, kEnd>(p, cluster, clusters, ring, full, empty, &arrived);
  }
  if constexpr (Shape::kBlocks > 1) {
    // No block ends while another may still copy to it or arrive there.
    __syncwarp();
    ArriveCluster();
    WaitCluster();
  }
}

// Clusters that find room on the GPU at once.
template <typename Shape>
int WideRoom(void (*kernel)(WideArgs), int multiprocessors) {
  if constexpr (Shape::kBlocks == 1) return multiprocessors;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(multiprocessors / Shape::kBlocks * Shape::kBlocks));
  config.blockDim = dim3(Shape::kThreads);
  config.dynamicSmemBytes = Shape::kSharedBytes;
  cudaLaunchAttribute dimension = {};
  dimension.id = cudaLaunchAttributeClusterDimension;
  dimension.val.clusterDim = {Shape::kBlocks, 1, 1};
  config.attrs = &dimension;
  config.numAttrs = 1;
  int clusters = 0;
  return cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess ? clusters : 0;
}

template <typename Shape, typename T, WideEnd kEnd>
cudaError_t LaunchWide(const WideProductParams& p, const WideChoice& choice,
                       const LaunchContext& context) {
  // Found while kernels are loaded, not while a stream is captured.
  static const EncodeTensor encode = FindEncodeTensor();
  if (encode == nullptr) return cudaErrorNotSupported;
  const auto kernel = WideKernel<Shape, T, kEnd>;
  cudaError_t error = AllowShared(kernel, Shape::kSharedBytes);
  if (error != cudaSuccess) return error;
  static const int room = WideRoom<Shape>(kernel, context.multiprocessors);
  if (room <= 0) return cudaErrorNotSupported;

  const bool both = kEnd == WideEnd::kGateUp;
  WideArgs args = {};
  args.out = p.out.data;
  args.bias = p.bias;
  args.up_bias = p.up_bias;
  args.rows = p.rows;
  args.outputs = p.weight.rows;
  args.depth = static_cast<int32_t>(CeilDiv(p.weight.cols, kMapColumns));
  args.box = p.rows % Shape::kOwnRows == 0 ? Shape::kOwnRows : Shape::kFewRows;
  args.activation = p.activation;
  args.unnormed = p.unnormed;
  args.of_one = 1.0f / static_cast<float>(p.in.width);
  args.leaves = p.leaves;
  args.tiles = static_cast<int32_t>(CeilDiv(p.weight.rows, Shape::kOutputs)) * Shape::kSplit;
  args.runs = RunsOf(p.weight.rows, Shape::kOutputs, Shape::kSplit);
  args.grid.rows = static_cast<int32_t>(CeilDiv(p.rows, Shape::kRows * Shape::kDown));
  args.grid.outputs = static_cast<int32_t>(
      CeilDiv(p.weight.rows * (both ? 2 : 1), Shape::kOutputs * Shape::kAcross));
  args.grid.parts = p.parts;
  args.grid.group = std::clamp<int32_t>(choice.group, 1, args.grid.rows);
  args.once = args.grid.rows == 1;
  if (!context.load_only) {
    error =
        DescribeMatrix(encode, p.in.data, p.in.dtype, p.rows, p.in.width, args.box, args.in);
    if (error == cudaSuccess && !both) {
      error = DescribeMatrix(encode, p.weight.data, p.weight.dtype, p.weight.rows, p.weight.cols,
                             Shape::kOwnOutputs, args.weight);
    }
    if (error == cudaSuccess && both) {
      error = DescribeGateUp(encode, p.weight, p.up, Shape::kOwnOutputs, args.weight);
    }
    if (error != cudaSuccess) return error;
  }
  // Blocks that share inputs exchange their sums once.
  if (Shape::kSplit > 1 && !context.load_only && args.grid.items() > room) {
    return cudaErrorNotSupported;
  }
  const int clusters = std::min<int>(room, args.grid.items());
  return LaunchClusters(kernel, dim3(static_cast<unsigned>(clusters * Shape::kBlocks)),
                        dim3(Shape::kThreads), Shape::kBlocks, Shape::kSharedBytes, context, args);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
