// Panels of weights on their way through shared memory (panel_product.cu): what a stage is, who
// copies it and who multiplies it.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/panel_order.h"
#include "kernels/cuda/panel_product.h"
#include "kernels/cuda/panel_ptx.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kPanelOutputs = kTileOutputs;
inline constexpr int kColumns = kMapColumns;
inline constexpr int kPanelBytes = kPanelOutputs * kColumns * 2;
inline constexpr int kPanels = 2;          // of weights, a stage
inline constexpr int kGroup = kWarpgroup;  // threads that multiply
inline constexpr int kJoiners = kWarp;  // that make factors and join the stream, with unnormed rows
// And a warp that copies.
constexpr int Threads(bool unnormed) { return kGroup + kWarp + (unnormed ? kJoiners : 0); }
inline constexpr int kManyRows = 128;  // of a tile, where there are more than kPanelRows
inline constexpr int kMostStages = 12;
inline constexpr int kWide = 4;  // sums that are ended and stored at once
using Four = Pack<float, kWide>;
inline constexpr int kStaticBytes = 1024;  // of shared memory, at most: barriers and factors

// What the two panels of a stage are: columns that follow one another, or gate's and up's of the
// same outputs.
enum class Pair { kColumns, kGateUp };

template <Pair kPair>
__host__ __device__ constexpr int StageColumns() {
  return kPair == Pair::kColumns ? kPanels * kColumns : kColumns;
}

template <int kRows, Pair kPair>
struct PanelShape {
  static constexpr int kInPanels = StageColumns<kPair>() / kColumns;
  static constexpr int kInBytes = kRows * kColumns * 2;  // of one panel
  static constexpr int kStageBytes = kPanels * kPanelBytes + kInPanels * kInBytes;
  // Sets of sums, of one panel's outputs each, and a thread's sums of one.
  static constexpr int kSets = kPair == Pair::kColumns ? 1 : 2;
  static constexpr int kSums = kRows / 2;
  // Sums in shared memory, where they are ended: [set][row][kPitch]. What a warp stores lies in
  // different banks.
  static constexpr int kPitch = kPanelOutputs + 4;
  static constexpr int kSumsBytes = kSets * kRows * kPitch * 4;
  // Of a tile, in fours, and bytes of as many.
  static constexpr int kFours = kRows * kPanelOutputs / kWide;
  static constexpr int kFoursBytes = kFours * kWide * 4;
};

struct PanelArgs {
  CUtensorMap weight;
  CUtensorMap up;  // where there is one
  CUtensorMap in;
  void* out;
  const float* bias;
  const float* up_bias;
  int32_t rows;
  int32_t outputs;
  int32_t stages;
  int32_t slots;  // of the ring: 2 ... kMostStages
  int32_t inbox;  // bytes from the ring's first to a cluster's Inbox
  bool add;
  bool wide;     // out is float32
  bool aligned;  // rows of out, and the biases, to kWide elements
  Activation activation;
};

struct UnnormedArgs : PanelArgs {
  UnnormedIn unnormed;
  UnnormedOut leaves;
  int32_t width;  // of a row that is read
  float inverse_width;
  int32_t tiles;  // that left its squares
};
template <bool kUnnormed>
using ArgsOf = std::conditional_t<kUnnormed, UnnormedArgs, PanelArgs>;

// Of the threads that multiply.
__device__ __forceinline__ void SyncGroup() { SyncNamed(1, kGroup); }

// A place in a ring.
struct Slot {
  int at = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Next(int slots) {
    if (++at < slots) return;
    at = 0;
    parity ^= 1;
  }
};

// By one thread: brings stages [first, last) to the ring.
template <int kRows, Pair kPair>
__device__ __forceinline__ void CopyStages(const PanelArgs& p, int tile, int first_row, int first,
                                           int last, unsigned char* ring, uint64_t* full,
                                           uint64_t* empty) {
  using Shape = PanelShape<kRows, kPair>;
  const uint64_t policy = EvictFirstPolicy();
  const int output = tile * kPanelOutputs;
  const auto weights = [&](int stage, int slot) {
    unsigned char* const to = ring + slot * Shape::kStageBytes;
    const int column = stage * StageColumns<kPair>();
    ArriveExpecting(&full[slot], Shape::kStageBytes);
    CopyBox(to, p.weight, column, output, &full[slot], policy);
    CopyBox(to + kPanelBytes, kPair == Pair::kGateUp ? p.up : p.weight,
            kPair == Pair::kColumns ? column + kColumns : column, output, &full[slot], policy);
  };
  const auto activations = [&](int stage, int slot) {
    unsigned char* const to = ring + slot * Shape::kStageBytes + kPanels * kPanelBytes;
#pragma unroll
    for (int i = 0; i < Shape::kInPanels; ++i) {
      CopyBox(to + i * Shape::kInBytes, p.in, stage * StageColumns<kPair>() + i * kColumns,
              first_row, &full[slot]);
    }
  };
  const int filled = min(p.slots, last - first);
  for (int i = 0; i < filled; ++i) weights(first + i, i);
  PrefetchMap(p.in);
  // Early: what comes next has weights to ask for, too. So it may begin while kernels before this
  // one still run, and reads before its wait only what they do not write.
  LaunchDependents();
  WaitForDependency();
  for (int i = 0; i < filled; ++i) activations(first + i, i);
  Slot slot;
  for (int stage = first + filled; stage < last; ++stage) {
    WaitBarrier(&empty[slot.at], slot.parity);
    weights(stage, slot.at);
    activations(stage, slot.at);
    slot.Next(p.slots);
  }
}

// Multiplies stages [first, last) as they come: each panel is a chain of its own (panel_order.h).
template <typename T, int kRows, Pair kPair>
__device__ __forceinline__ void MultiplyStages(
    const PanelArgs& p, int first, int last, const unsigned char* ring, uint64_t* full,
    uint64_t* empty,
    float (&sums)[PanelShape<kRows, kPair>::kSets][PanelShape<kRows, kPair>::kSums]) {
  using Shape = PanelShape<kRows, kPair>;
  static_assert(kColumns == kOrderChain);
  // Chains that are multiplied side by side. Of gate's and up's many rows there are no registers for
  // two.
  constexpr int kChains = kRows == kManyRows && kPair == Pair::kGateUp ? 1 : kPanels;
  float chains[kChains][Shape::kSums];
#pragma unroll
  for (int m = 0; m < Shape::kSets; ++m) {
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) sums[m][i] = 0;
  }
  Slot slot;
  for (int stage = first; stage < last; ++stage) {
    WaitBarrier(&full[slot.at], slot.parity);
    const unsigned char* const at = ring + slot.at * Shape::kStageBytes;
    const uint64_t weights = Operand(at);
    const uint64_t in = Operand(at + kPanels * kPanelBytes);
#pragma unroll
    for (int panel = 0; panel < kPanels; panel += kChains) {
#pragma unroll
      for (int c = 0; c < kChains; ++c) {
#pragma unroll
        for (int i = 0; i < Shape::kSums; ++i) chains[c][i] = 0;
        Settle(chains[c]);
      }
      BeginProducts();
#pragma unroll
      for (int c = 0; c < kChains; ++c) {
        const uint64_t a = weights + (panel + c) * (kPanelBytes / 16);
        const uint64_t b = in + (kPair == Pair::kColumns ? (panel + c) * (Shape::kInBytes / 16) : 0);
#pragma unroll
        for (int k = 0; k < kColumns / 16; ++k) {
          MultiplyPanel<T, kRows>(chains[c], a + 2 * k, b + 2 * k);
        }
      }
      CommitProducts();
      WaitForProducts<0>();
#pragma unroll
      for (int c = 0; c < kChains; ++c) Settle(chains[c]);
      if (panel + kChains == kPanels && threadIdx.x % kWarp == 0) ArriveBarrier(&empty[slot.at]);
      if constexpr (kPair == Pair::kColumns) {
#pragma unroll
        for (int i = 0; i < Shape::kSums; ++i) sums[0][i] += chains[0][i] + chains[1][i];
      } else {
#pragma unroll
        for (int c = 0; c < kChains; ++c) {
#pragma unroll
          for (int i = 0; i < Shape::kSums; ++i) sums[panel + c][i] += chains[c][i];
        }
      }
    }
    slot.Next(p.slots);
  }
}

// Multiplies stages [first, last) as they come, all in one chain: a little faster, for steps whose rows
// nobody compares with those of others.
template <typename T, int kRows, Pair kPair>
__device__ __forceinline__ void MultiplyInOneChain(
    const PanelArgs& p, int first, int last, const unsigned char* ring, uint64_t* full,
    uint64_t* empty,
    float (&sums)[PanelShape<kRows, kPair>::kSets][PanelShape<kRows, kPair>::kSums]) {
  using Shape = PanelShape<kRows, kPair>;
#pragma unroll
  for (int m = 0; m < Shape::kSets; ++m) {
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) sums[m][i] = 0;
  }
  Slot slot;
  int used = -1;  // the slot of the stage before
  for (int stage = first; stage < last; ++stage) {
    WaitBarrier(&full[slot.at], slot.parity);
    const unsigned char* const at = ring + slot.at * Shape::kStageBytes;
    const uint64_t weights = Operand(at);
    const uint64_t in = Operand(at + kPanels * kPanelBytes);
    BeginProducts();
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      const uint64_t a = weights + panel * (kPanelBytes / 16);
      const uint64_t b = in + (kPair == Pair::kColumns ? panel * (Shape::kInBytes / 16) : 0);
#pragma unroll
      for (int k = 0; k < kColumns / 16; ++k) {
        MultiplyPanel<T, kRows>(sums[Shape::kSets == 2 ? panel : 0], a + 2 * k, b + 2 * k);
      }
    }
    CommitProducts();
    WaitForProducts<1>();
    if (used >= 0 && threadIdx.x % kWarp == 0) ArriveBarrier(&empty[used]);
    used = slot.at;
    slot.Next(p.slots);
  }
  WaitForProducts<0>();
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
