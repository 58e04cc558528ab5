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
// Bytes: weights from memory once a group of row tiles, and between L2 and multiprocessors, of a
// stage, (kRows / kShareRows + kOutputs / kShareOutputs) * 128 a block. Grid: as many clusters as
// find room at once, or as there are items. (kGroups + 1) * 128 threads, all registers. Shared
// memory: 196 to 227 KiB.
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
#include "kernels/cuda/wide_grid.h"
#include "kernels/cuda/wide_product.h"
#include "kernels/cuda/wide_ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Warps that copy.
inline constexpr int kWideProducers = kWarpgroup / kWarp;

// What becomes of the sums.
enum class WideEnd { kStore, kAdd, kGateUp };

// kDown, kAcross: row tiles and output tiles of a cluster.
template <int kGroupCount, int kOutputCount, int kDownCount, int kAcrossCount>
struct WideShape {
  static constexpr int kGroups = kGroupCount;  // warpgroups that multiply
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kOutputs = kOutputCount;
  static constexpr int kDown = kDownCount;
  static constexpr int kAcross = kAcrossCount;
  static constexpr int kBlocks = kDown * kAcross;
  static constexpr int kThreads = (kGroups + 1) * kWarpgroup;
  static constexpr int kRowBytes = 2 * kMapColumns;  // of a stage
  static constexpr int kInBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kInBytes + kOutputs * kRowBytes;
  // What one block copies of a stage: rows, and outputs, for all that share them.
  static constexpr int kOwnRows = kRows / kAcross;
  static constexpr int kOwnOutputs = kOutputs / kDown;
  static constexpr int kMostShared = 227 * 1024 - 1024;  // what is static and what aligns left out
  static constexpr int kSlots = (kMostShared - 1024) / kStageBytes;
  static constexpr int kSharedBytes = 1024 + kSlots * kStageBytes;
  static constexpr int kArrivals = kGroups * (kWarpgroup / kWarp) * kBlocks;  // that empty a slot
  static constexpr int kSums = kOutputs / 2;                                  // a thread's
  // Registers a thread; at first all have the same.
  static constexpr int kGive = kGroups == 2 ? 40 : 32;
  static constexpr int kTake = kGroups == 2 ? 232 : 160;
  // Rows of a copy where rows end within a tile: those that do not exist are not asked for, since
  // the copy engine takes longer over them than over others.
  static constexpr int kFewRows = 32;
  static_assert(kOwnRows % kFewRows == 0 && kOwnOutputs % 16 == 0 && kSlots >= kWideProducers);
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
  bool wide;        // out is float32
  bool once;        // each weight is read once
  Activation activation;
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
  int row_rank, output_rank;

  __device__ WideTilePlace()
      : row_rank(static_cast<int>(blockIdx.x) % Shape::kBlocks % Shape::kDown),
        output_rank(static_cast<int>(blockIdx.x) % Shape::kBlocks / Shape::kDown) {}
  __device__ __forceinline__ int RowTile(const WideItem& item) const {
    return item.rows * Shape::kDown + row_rank;
  }
  __device__ __forceinline__ int OutputTile(const WideItem& item) const {
    return item.outputs * Shape::kAcross + output_rank;
  }
  // Of the cluster those that have this block's rows; its outputs.
  __device__ __forceinline__ uint16_t SameRows() const {
    uint32_t mask = 0;
#pragma unroll
    for (int i = 0; i < Shape::kAcross; ++i) mask |= 1u << (row_rank + i * Shape::kDown);
    return static_cast<uint16_t>(mask);
  }
  __device__ __forceinline__ uint16_t SameOutputs() const {
    return static_cast<uint16_t>(((1u << Shape::kDown) - 1) << (output_rank * Shape::kDown));
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
    stages_ = StagesOf(p_.depth, item.part, p_.grid.parts);
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

// A thread's place in a tile: rows `row` and row + 8, outputs `output` and output + 1 of each
// eight.
struct WidePlace {
  int row, output;
};

__device__ __forceinline__ float2 TwoBiases(const float* bias, int output) {
  return bias != nullptr ? *reinterpret_cast<const float2*>(bias + output) : float2{0, 0};
}

// x * sigmoid of what the activation takes of it: both activations are of this form, since
// (1 + tanh(u)) / 2 is the sigmoid of 2u. Within a few units in the last place, by two special
// instructions in place of a division. Large negative x give -0, as x * 0 does.
template <Activation kActivation>
__device__ __forceinline__ float ActivateWide(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  constexpr float kTwoSqrt2OverPi = 2 * 0.79788456080286535588f;
  if constexpr (kActivation == Activation::kSilu) {
    return x * Reciprocal(1.0f + Exp2(-kLog2E * x));
  } else {
    const float inner = fmaf(0.044715f * x * x, x, x);
    return x * Reciprocal(1.0f + Exp2(-kLog2E * kTwoSqrt2OverPi * inner));
  }
}

template <typename T>
__device__ __forceinline__ uint32_t PackTwo(float low, float high) {
  const Pack<T, 2> two = {{FromFloat<T>(low), FromFloat<T>(high)}};
  return *reinterpret_cast<const uint32_t*>(&two);
}

// Two eights of a row at once, `first` and `second` being this thread's two elements of each:
// neighbouring threads exchange theirs, so that each stores four and all of them whole sectors.
template <typename T>
__device__ __forceinline__ void StoreEights(T* eights, uint32_t first, uint32_t second,
                                            bool row_exists, bool second_exists) {
  const bool odd = threadIdx.x % 2 != 0;
  const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? first : second, 1);
  const uint2 four = odd ? uint2{other, second} : uint2{first, other};
  T* const to = eights + (odd ? 8 : 0) + threadIdx.x % 4 / 2 * 4;
  if (row_exists && (!odd || second_exists)) *reinterpret_cast<uint2*>(to) = four;
}

// Ends rows of 16-bit elements: pair(j, h) are the thread's two elements of eight j, row + 8 * h.
template <typename T, int kEights, typename Pair>
__device__ __forceinline__ void StoreHalves(const WideArgs& p, int row, int first_output,
                                            const Pair& pair) {
#pragma unroll
  for (int j = 0; j < kEights; j += 2) {
    const int output = first_output + 8 * j;
    if (output >= p.outputs) break;  // for all threads: outputs come in eights
    const bool second = j + 1 < kEights && output + 8 < p.outputs;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t a = pair(j, h);
      const uint32_t b = j + 1 < kEights ? pair(j + 1 < kEights ? j + 1 : j, h) : 0;
      T* const eights =
          static_cast<T*>(p.out) + static_cast<int64_t>(row + 8 * h) * p.outputs + output;
      StoreEights<T>(eights, a, b, row + 8 * h < p.rows, second);
    }
  }
}

template <typename Shape, typename T, WideEnd kEnd>
__device__ __forceinline__ void EndTile(const WideArgs& p, const WideItem& item, int row_tile,
                                        int output_tile, const float (&sums)[Shape::kSums]) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp;
  const int row = row_tile * Shape::kRows + thread / kWarp * 16 + lane / 4;
  const int own = lane % 4 * 2;
  constexpr int kEights = Shape::kOutputs / 8;
  if constexpr (kEnd == WideEnd::kGateUp) {
    const int first = output_tile * (Shape::kOutputs / 2);
    // What is the same for all outputs is asked once.
    const auto end = [&](auto activation, auto biased) {
      StoreHalves<T, kEights / 2>(p, row, first, [&](int j, int h) {
        constexpr Activation kActivation = decltype(activation)::value;
        const float* const gate = sums + 8 * j + 2 * h;
        const float* const up = gate + 4;
        float2 gate_bias = {0, 0}, up_bias = {0, 0};
        if constexpr (decltype(biased)::value) {
          const bool exists = first + 8 * j < p.outputs;
          gate_bias = TwoBiases(exists ? p.bias : nullptr, first + 8 * j + own);
          up_bias = TwoBiases(exists ? p.up_bias : nullptr, first + 8 * j + own);
        }
        return PackTwo<T>(ActivateWide<kActivation>(gate[0] + gate_bias.x) * (up[0] + up_bias.x),
                          ActivateWide<kActivation>(gate[1] + gate_bias.y) * (up[1] + up_bias.y));
      });
    };
    const auto with = [&](auto activation) {
      if (p.bias == nullptr && p.up_bias == nullptr) {
        end(activation, std::false_type());
      } else {
        end(activation, std::true_type());
      }
    };
    if (p.activation == Activation::kSilu) {
      with(std::integral_constant<Activation, Activation::kSilu>());
    } else {
      with(std::integral_constant<Activation, Activation::kGeluTanh>());
    }
    return;
  }
  const int first = output_tile * Shape::kOutputs;
  if (kEnd == WideEnd::kStore && !p.wide) {
    StoreHalves<T, kEights>(p, row, first, [&](int j, int h) {
      const int output = first + 8 * j + own;
      const float2 bias = TwoBiases(first + 8 * j < p.outputs ? p.bias : nullptr, output);
      const float* const two = sums + 4 * j + 2 * h;
      return PackTwo<T>(two[0] + bias.x, two[1] + bias.y);
    });
    return;
  }
  float* const out =
      static_cast<float*>(p.out) + int64_t{item.part} * p.rows * p.outputs + first + own;
  // Eights whose residuals are on their way at once: as many as registers allow.
  constexpr int kAtOnce = Shape::kGroups == 2 ? 8 : 4;
#pragma unroll
  for (int j = 0; j < kEights; j += kAtOnce) {
    float2 before[kAtOnce][2];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        before[i][h] = {0, 0};
        if constexpr (kEnd == WideEnd::kAdd) {
          if (j + i < kEights && first + 8 * (j + i) < p.outputs && row + 8 * h < p.rows) {
            before[i][h] = *reinterpret_cast<const float2*>(
                out + static_cast<int64_t>(row + 8 * h) * p.outputs + 8 * (j + i));
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (j + i >= kEights || first + 8 * (j + i) >= p.outputs) break;
      const float2 bias = TwoBiases(p.bias, first + 8 * (j + i) + own);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float* const two = sums + 4 * (j + i) + 2 * h;
        if (row + 8 * h < p.rows) {
          *reinterpret_cast<float2*>(out + static_cast<int64_t>(row + 8 * h) * p.outputs +
                                     8 * (j + i)) =
              float2{before[i][h].x + (two[0] + bias.x), before[i][h].y + (two[1] + bias.y)};
        }
      }
    }
  }
}

// Asks the L2 cache for what a tile's sums will be added to.
template <typename Shape>
__device__ __forceinline__ void PrefetchTile(const WideArgs& p, int row_tile, int output_tile) {
  constexpr int kLine = 32;  // elements
  constexpr int kLines = Shape::kOutputs / kLine;
  constexpr int kThreads = Shape::kGroups * kWarpgroup;
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kRows * kLines; i += kThreads) {
    const int row = row_tile * Shape::kRows + i / kLines;
    const int output = output_tile * Shape::kOutputs + i % kLines * kLine;
    if (row < p.rows && output < p.outputs) {
      PrefetchL2(static_cast<const float*>(p.out) + int64_t{row} * p.outputs + output);
    }
  }
}

// ---- The kernel ---------------------------------------------------------------------------------

// By one warpgroup: its 64 rows of all tiles of the block.
template <typename Shape, typename T, WideEnd kEnd>
__device__ __forceinline__ void MultiplyTiles(const WideArgs& p, int cluster, int clusters,
                                              const unsigned char* ring, uint64_t* full,
                                              uint64_t* empty) {
  const WideTilePlace<Shape> place;
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const uint64_t first_in = Operand(ring + group * 64 * Shape::kRowBytes);
  const uint64_t first_weights = Operand(ring + Shape::kInBytes);
  const auto leave = [&](int slot) {
    if (lane < Shape::kBlocks) ArriveAtBlock(&empty[slot], lane);
  };
  float sums[Shape::kSums] = {};
  WideSlot<Shape::kSlots> slot;
  WaitForDependency();
#pragma unroll 1
  for (int i = cluster; i < p.grid.items(); i += clusters) {
    const WideItem item = p.grid.At(i);
    const WideStages stages = StagesOf(p.depth, item.part, p.grid.parts);
    if (place.RowTile(item) * Shape::kRows + group * 64 >= p.rows) {
      // Nothing of this warpgroup's.
      for (int stage = stages.first; stage < stages.last; ++stage) {
        WaitBarrier(&full[slot.at], slot.parity);
        leave(slot.at);
        slot.Next();
      }
      continue;
    }
    if constexpr (kEnd == WideEnd::kAdd) {
      PrefetchTile<Shape>(p, place.RowTile(item), place.OutputTile(item));
    }
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
    EndTile<Shape, T, kEnd>(p, item, place.RowTile(item), place.OutputTile(item), sums);
  }
}

template <typename Shape, typename T, WideEnd kEnd>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    WideKernel(const __grid_constant__ WideArgs p) {
  __shared__ uint64_t full[Shape::kSlots], empty[Shape::kSlots];
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
    PublishBarriers();
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
    MultiplyTiles<Shape, T, kEnd>(p, cluster, clusters, ring, full, empty);
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
  args.wide = p.out.dtype == DType::kFloat32;
  args.activation = p.activation;
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
      const cuuint64_t row_bytes = static_cast<cuuint64_t>(p.weight.cols) * 2;
      const cuuint64_t between = static_cast<cuuint64_t>(static_cast<const char*>(p.up.data) -
                                                         static_cast<const char*>(p.weight.data));
      const cuuint64_t size[4] = {static_cast<cuuint64_t>(p.weight.cols), 8, 2,
                                  static_cast<cuuint64_t>(p.weight.rows / 8)};
      const cuuint64_t stride[3] = {row_bytes, between, 8 * row_bytes};
      const cuuint32_t box[4] = {kMapColumns, 8, 2, Shape::kOwnOutputs / 16};
      error =
          DescribeTensor<4>(encode, p.weight.data, p.weight.dtype, size, stride, box, args.weight);
    }
    if (error != cudaSuccess) return error;
  }
  const int clusters = std::min<int>(room, args.grid.items());
  return LaunchClusters(kernel, dim3(static_cast<unsigned>(clusters * Shape::kBlocks)),
                        dim3(Shape::kThreads), Shape::kBlocks, Shape::kSharedBytes, context, args);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
