// Products as a stream of panels of weights, multiplied by warpgroups (Hopper). The weights are the
// side of 64 of the matrix units, so that few rows waste little.
//
// A *panel* is 64 rows of weights (outputs) by 64 columns (128 bytes), one copy of the tensor copy
// engine. A block owns 64 outputs, of gate and of up where both are multiplied, and goes through
// its columns in stages of two panels (two of columns that follow one another, or gate's and up's)
// beside the same columns of the activations. One warp's thread copies; a warpgroup multiplies. The
// ring is filled with weights before WaitForDependency, while the kernel before still runs. Where
// outputs are few, a cluster of blocks shares them: each multiplies a run of the columns, and the
// sums meet in shared memory. How many do hangs on the shape and the GPU, not on the rows, and each
// block multiplies 16 columns after the other: so a row's sums are the same bits in a tile of any
// number of rows, in any place of it.
//
// Bytes: weights once a tile of rows (of 8 to 64, or kManyRows; from memory once, since blocks of
// the same outputs stand side by side), activations once a block (from the L2 cache), outputs once.
// Grid: split blocks a tile of rows, tiles of rows a tile of 64 outputs. 160 threads, with unnormed
// rows 192 or 224. Shared memory: 112 to 209 KiB (RingOf).
#include <cuda.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/panel_maps.h"
#include "kernels/cuda/panel_product.h"
#include "kernels/cuda/panel_ptx.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kPanelOutputs = kTileOutputs;
constexpr int kColumns = kMapColumns;
constexpr int kPanelBytes = kPanelOutputs * kColumns * 2;
constexpr int kPanels = 2;          // of weights, a stage
constexpr int kGroup = kWarpgroup;  // threads that multiply
// And a warp that copies; with unnormed rows others that make factors and join the stream.
constexpr int Joiners(int rows, bool unnormed) {
  return !unnormed ? 0 : rows <= kPanelRows ? kWarp : 2 * kWarp;
}
constexpr int Threads(int rows, bool unnormed) { return kGroup + kWarp + Joiners(rows, unnormed); }
constexpr int kManyRows = 128;  // of a tile, where there are more than kPanelRows
constexpr int kMostSplit = 8;
constexpr int kMostStages = 12;
constexpr int kWide = 4;  // sums that are ended and stored at once

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

using Four = Pack<float, kWide>;

// The biases of outputs output ... output + 3, zeros where there is none.
__device__ __forceinline__ Four BiasesAt(const PanelArgs& p, const float* bias, int output) {
  Four four = {};
  if (bias == nullptr) return four;
  if (p.aligned) return output < p.outputs ? LoadPack<float, kWide>(bias + output) : four;
#pragma unroll
  for (int e = 0; e < kWide; ++e) {
    if (output + e < p.outputs) four.at[e] = bias[output + e];
  }
  return four;
}

__device__ __forceinline__ void AddTo(const Four& x, Four& sum) {
#pragma unroll
  for (int e = 0; e < kWide; ++e) sum.at[e] += x.at[e];
}

// Adds what `out` holds.
__device__ __forceinline__ void AddOut(const PanelArgs& p, int row, int output, Four& sum) {
  const float* const from = static_cast<const float*>(p.out) + int64_t{row} * p.outputs + output;
  if (p.aligned) {
    if (output < p.outputs) AddTo(LoadPack<float, kWide>(from), sum);
    return;
  }
#pragma unroll
  for (int e = 0; e < kWide; ++e) {
    if (output + e < p.outputs) sum.at[e] += from[e];
  }
}

template <typename T>
__device__ __forceinline__ void StoreOut(const PanelArgs& p, int row, int output,
                                         const Four& value) {
  const int64_t at = int64_t{row} * p.outputs + output;
  if (p.aligned) {
    if (output >= p.outputs) return;
    if (p.wide) {
      StorePack(value, static_cast<float*>(p.out) + at);
    } else {
      StoreFloats<T, kWide>(value.at, static_cast<T*>(p.out) + at);
    }
    return;
  }
#pragma unroll
  for (int e = 0; e < kWide; ++e) {
    if (output + e >= p.outputs) continue;
    if (p.wide) {
      static_cast<float*>(p.out)[at + e] = value.at[e];
    } else {
      static_cast<T*>(p.out)[at + e] = FromFloat<T>(value.at[e]);
    }
  }
}

// Multiplies stages [first, last) as they come.
template <typename T, int kRows, Pair kPair>
__device__ __forceinline__ void MultiplyStages(
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

// ---- Unnormed rows (panel_product.h) ------------------------------------------------------------

// What the group waits for beside its own sums: the rows' factors.
constexpr int kFactorsBarrier = 2;
template <int kJoiners>
__device__ __forceinline__ void LeaveFactors() {
  ArriveNamed(kFactorsBarrier, kGroup + kJoiners);
}
template <int kJoiners>
__device__ __forceinline__ void TakeFactors() {
  SyncNamed(kFactorsBarrier, kGroup + kJoiners);
}
// The threads that call the first; that the second sees all their factors.
template <int kJoiners>
__device__ __forceinline__ void SyncJoiners() {
  if constexpr (kJoiners == kWarp) {
    __syncwarp();
  } else {
    SyncNamed(3, kJoiners);
  }
}

// What a row's sums are multiplied by: (first + joins * second) * inverse.
struct Factors {
  float joins;  // r1
  float inverse;
};

__device__ __forceinline__ float InverseRms(float squares, const UnnormedArgs& p) {
  return rsqrtf(fmaf(squares, p.inverse_width, p.unnormed.epsilon));
}

// A row's sum of kCount squares over the tiles, by 1 << `shift` lanes that follow one another, each
// every so many tiles, for all of them. Loads wait together: a way to the L2 cache takes as long as
// the sums of a small product.
template <int kCount>
__device__ __forceinline__ Pack<float, kCount> SumSquares(const UnnormedArgs& p, int row,
                                                          int shift) {
  constexpr int kAtOnce = kCount == 1 ? 32 : 10;
  using Squares = Pack<float, kCount>;
  const float* const squares = p.unnormed.squares + row * kCount;
  Squares sum = {};
  const int lanes = 1 << shift;
  for (int tile = static_cast<int>(threadIdx.x) & (lanes - 1); tile < p.tiles;
       tile += kAtOnce * lanes) {
    Squares part[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = tile + i * lanes;
      part[i] = row < p.rows && at < p.tiles
                    ? LoadPack<float, kCount>(squares + at * p.rows * kCount)
                    : Squares{};
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int e = 0; e < kCount; ++e) sum.at[e] += part[i].at[e];
    }
  }
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
#pragma unroll
    for (int e = 0; e < kCount; ++e) sum.at[e] += __shfl_xor_sync(kAllLanes, sum.at[e], offset);
  }
  return sum;
}

// The joiners, `joiner` of them, after WaitForDependency: the rows' factors. While the others
// multiply.
template <int kRows>
__device__ __forceinline__ void MakeFactors(const UnnormedArgs& p, int joiner, Factors* factors) {
  constexpr int kJoiners = Joiners(kRows, true);
  int shift = 5;  // of the lanes of a row: as many as there are for all rows at once, or one
  while (shift > 0 && kJoiners >> shift < p.rows) --shift;
  const int lane = joiner % kWarp;
  for (int first = joiner / kWarp * (kWarp >> shift); first < p.rows; first += kJoiners >> shift) {
    const int row = first + (lane >> shift);
    Factors made = {};
    if (p.unnormed.post) {
      const Pack<float, 4> sum = SumSquares<4>(p, row, shift);
      made.joins = InverseRms(sum.at[0], p);
      const float added = fmaf(made.joins, sum.at[1], 2 * sum.at[3]);
      // Not below zero where h and what joins it cancel each other.
      made.inverse = InverseRms(fmaxf(fmaf(made.joins, added, sum.at[2]), 0), p);
    } else {
      made.inverse = InverseRms(SumSquares<1>(p, row, shift).at[0], p);
    }
    if (row < p.rows && lane >> shift << shift == lane) factors[row] = made;
  }
}

// The same threads: the block's share of the stream, where what joins it is normed. Made after
// WaitForDependency: the first loads are then on their way while the factors are made.
template <int kRows>
class Joiner {
 public:
  __device__ __forceinline__ Joiner(const UnnormedArgs& p, int joiner)
      : p_(p),
        fours_(p.unnormed.post ? p.rows * (p.width / kWide) : 0),
        step_(static_cast<int>(gridDim.x) * kJoiners),
        four_(static_cast<int>(blockIdx.x) * kJoiners + joiner) {
    Load();
  }
  // `sum` may be `hidden`: nobody else reads what this thread writes.
  __device__ __forceinline__ void operator()(const Factors* factors) {
    while (four_ < fours_) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int four = four_ + i * step_;
        if (four >= fours_) break;
        const float joins = factors[four * kWide / p_.width].joins;
#pragma unroll
        for (int e = 0; e < kWide; ++e) {
          hidden_[i].at[e] = fmaf(joins, added_[i].at[e], hidden_[i].at[e]);
        }
        StorePack(hidden_[i], p_.unnormed.sum + four * kWide);
      }
      four_ += kAtOnce * step_;
      Load();
    }
  }

 private:
  static constexpr int kJoiners = Joiners(kRows, true);
  // Of 96 blocks' threads: all of gemma3-1b's stream.
  static constexpr int kAtOnce = kRows <= 16 ? 1 : kRows == 32 ? 2 : 4;

  __device__ __forceinline__ void Load() {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int four = four_ + i * step_;
      if (four >= fours_) break;
      hidden_[i] = LoadPack<float, kWide>(p_.unnormed.hidden + four * kWide);
      added_[i] = LoadPack<float, kWide>(p_.unnormed.added + four * kWide);
    }
  }

  const UnnormedArgs& p_;
  const int fours_;  // of the stream
  const int step_;   // to the thread's next
  int four_;         // the thread's first of those that are loaded
  Four hidden_[kAtOnce] = {}, added_[kAtOnce] = {};
};

// What one thread leaves: fours of one run of outputs. Made before WaitForDependency.
struct Leaver {
  const UnnormedArgs& p;
  int tile, output;
  bool exists;
  Four post = {}, next = {};

  __device__ __forceinline__ Leaver(const UnnormedArgs& args, int tile, int output)
      : p(args),
        tile(tile),
        output(output),
        exists(p.leaves.rows != nullptr && output < p.outputs) {
    if (!exists) return;
    next = LoadPack<float, kWide>(p.leaves.next + output);
    if (p.leaves.post != nullptr) post = LoadPack<float, kWide>(p.leaves.post + output);
  }
  __device__ __forceinline__ Four Hidden(int row) const {
    return exists && p.leaves.post != nullptr ? LoadPack<float, kWide>(p.leaves.hidden + At(row))
                                              : Four{};
  }
  // By the 16 lanes that have a row of the tile: `value` is s, or delta, which becomes what is
  // stored in `out`.
  __device__ __forceinline__ void operator()(int row, const Four& hidden, Four& value) const {
    if (p.leaves.rows == nullptr) return;
    const bool has_post = p.leaves.post != nullptr;
    Pack<float, 4> squares = {};
    Four own, joining;
#pragma unroll
    for (int e = 0; e < kWide; ++e) {
      const float x = exists ? value.at[e] : 0;
      squares.at[0] = fmaf(x, x, squares.at[0]);
      if (has_post) {
        const float a = x * post.at[e];
        squares.at[1] = fmaf(a, a, squares.at[1]);
        squares.at[2] = fmaf(hidden.at[e], hidden.at[e], squares.at[2]);
        squares.at[3] = fmaf(hidden.at[e], a, squares.at[3]);
        own.at[e] = hidden.at[e] * next.at[e];
        joining.at[e] = a * next.at[e];
        value.at[e] = a;
      } else {
        own.at[e] = x * next.at[e];
      }
    }
    if (exists) {
      auto* const rows = static_cast<__nv_bfloat16*>(p.leaves.rows);
      StoreFloats<__nv_bfloat16, kWide>(own.at, rows + At(row));
      if (has_post) StoreFloats<__nv_bfloat16, kWide>(joining.at, rows + At(p.rows + row));
    }
    constexpr int kAcross = kPanelOutputs / kWide;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const uint32_t lanes = 0xffffu << (lane & kAcross);
#pragma unroll
    for (int offset = kAcross / 2; offset > 0; offset /= 2) {
      squares.at[0] += __shfl_xor_sync(lanes, squares.at[0], offset);
      if (!has_post) continue;
#pragma unroll
      for (int e = 1; e < 4; ++e) squares.at[e] += __shfl_xor_sync(lanes, squares.at[e], offset);
    }
    if (lane % kAcross != 0) return;
    float* const to = p.leaves.squares + (tile * p.rows + row) * SquaresOf(has_post);
    if (has_post) {
      StorePack(squares, to);
    } else {
      *to = squares.at[0];
    }
  }

 private:
  __device__ __forceinline__ int64_t At(int row) const { return int64_t{row} * p.outputs + output; }
};

// Of warps whose lanes may have parted.
template <int kSplit>
__device__ __forceinline__ void MeetCluster() {
  if constexpr (kSplit > 1) {
    __syncwarp();
    ArriveCluster();
    WaitCluster();
  }
}

struct NoLeaver {
  __device__ __forceinline__ NoLeaver(const PanelArgs& /*p*/, int /*tile*/, int /*output*/) {}
};

// Whether there may be more rows than a tile has.
constexpr bool TiledRows(int rows, bool unnormed) { return !unnormed && rows == kManyRows; }

// kSplit blocks, a cluster, share a tile's columns.
template <typename T, int kRows, Pair kPair, int kSplit, bool kUnnormed>
__global__ void __launch_bounds__(Threads(kRows, kUnnormed), TiledRows(kRows, kUnnormed) ? 1 : 2)
    PanelKernel(const __grid_constant__ ArgsOf<kUnnormed> p) {
  using Shape = PanelShape<kRows, kPair>;
  constexpr int kJoiners = Joiners(kRows, kUnnormed);
  __shared__ uint64_t full[kMostStages], empty[kMostStages];
  __shared__ Factors factors[kUnnormed ? kRows : 1];
  unsigned char* const dynamic = DynamicShared();
  unsigned char* const ring = dynamic + (-SharedAddress(dynamic) & 1023);
  // Blocks of the same outputs stand side by side.
  const int row_tiles = TiledRows(kRows, kUnnormed) ? (p.rows + kRows - 1) / kRows : 1;
  const int tile = static_cast<int>(blockIdx.x) / kSplit / row_tiles;
  const int first_row = static_cast<int>(blockIdx.x) / kSplit % row_tiles * kRows;
  const int rank = static_cast<int>(blockIdx.x) % kSplit;
  const int first = p.stages * rank / kSplit;
  const int last = p.stages * (rank + 1) / kSplit;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == kGroup) {
    for (int i = 0; i < p.slots; ++i) {
      InitBarrier(&full[i], 1);
      InitBarrier(&empty[i], kGroup / kWarp);
    }
    PublishBarriers();
  }
  __syncthreads();
  if constexpr (kUnnormed) {
    if (thread >= kGroup + kWarp) {
      const int joiner = thread - kGroup - kWarp;
      if (p.unnormed.squares == nullptr) {
        LeaveFactors<kJoiners>();
        MeetCluster<kSplit>();
      } else {
        WaitForDependency();
        Joiner<kRows> join(p, joiner);
        MakeFactors<kRows>(p, joiner, factors);
        SyncJoiners<kJoiners>();
        LeaveFactors<kJoiners>();
        // Before the stream is stored: meeting waits for stores, and others want the sums.
        MeetCluster<kSplit>();
        join(factors);
      }
      MeetCluster<kSplit>();
      return;
    }
  }
  if (thread >= kGroup) {
    if (thread == kGroup) {
      CopyStages<kRows, kPair>(p, tile, first_row, first, last, ring, full, empty);
    }
    MeetCluster<kSplit>();
    MeetCluster<kSplit>();
    return;
  }

  // Of the tile's sums this block ends some fours, a thread these: a run of them, or, where rows
  // that are read may be two of those that are written, every kSplit-th row.
  constexpr int kAcross = kPanelOutputs / kWide;
  // Of more than kPanelRows unnormed ones two stand for one.
  constexpr int kWritten = kUnnormed && kRows > kPanelRows ? kRows / UnnormedRowsOf(true) : kRows;
  constexpr int kOwn = kWritten * kAcross / kSplit;
  constexpr int kItems = (kOwn + kGroup - 1) / kGroup;
  struct Item {
    int row, output;  // of the tile
    bool exists;
  };
  const auto item_at = [&](int i) {
    const int own = i * kGroup + thread;
    if constexpr (kUnnormed) {
      const int row = own / kAcross * kSplit + rank;
      return Item{row, own % kAcross * kWide, own < kOwn && row < p.rows};
    } else {
      const int four = rank * kOwn + own;
      const int row = four / kAcross;
      return Item{row, four % kAcross * kWide, own < kOwn && first_row + row < p.rows};
    }
  };
  const auto output_of = [&](const Item& item) { return tile * kPanelOutputs + item.output; };
  constexpr bool kLeaves = kUnnormed && kPair != Pair::kGateUp && kRows <= kPanelRows;
  using Leaves = std::conditional_t<kLeaves, Leaver, NoLeaver>;
  const Leaves leave(p, tile, output_of(item_at(0)));
  // What is added to the sums: loaded at once, or where registers are few at the end.
  constexpr bool kEarly = kPair != Pair::kGateUp && (kRows <= kPanelRows || !kUnnormed);
  Four before[kEarly ? kItems : 1];
  Four hidden[kLeaves ? kItems : 1];
  if constexpr (kEarly) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) before[i] = BiasesAt(p, p.bias, output_of(item_at(i)));
  }
  WaitForDependency();
  if constexpr (kEarly) {
    if (p.add) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const Item item = item_at(i);
        if (item.exists) AddOut(p, first_row + item.row, output_of(item), before[i]);
      }
    }
  }
  if constexpr (kLeaves) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const Item item = item_at(i);
      hidden[i] = item.exists ? leave.Hidden(item.row) : Four{};
    }
  }

  float sums[Shape::kSets][Shape::kSums];
  MultiplyStages<T, kRows, kPair>(p, first, last, ring, full, empty, sums);
  // What the ring held has been multiplied, by all warps of the group.
  if constexpr (kUnnormed) {
    TakeFactors<kJoiners>();
  } else {
    SyncGroup();
  }
  float* const shared = reinterpret_cast<float*>(ring);
  const int lane = thread % kWarp;
#pragma unroll
  for (int m = 0; m < Shape::kSets; ++m) {
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) {
      const int row = m * kRows + i / 4 * 8 + lane % 4 * 2 + i % 2;
      shared[row * Shape::kPitch + thread / kWarp * 16 + lane / 4 + i / 2 % 2 * 8] = sums[m][i];
    }
  }
  if constexpr (kSplit > 1) {
    ArriveCluster();
    WaitCluster();
  } else {
    SyncGroup();
  }
  // A row's sums that the cluster's blocks have.
  const auto total_at = [&](int row, int output) {
    const float* const from = shared + row * Shape::kPitch + output;
    if constexpr (kSplit == 1) {
      return LoadPack<float, kWide>(from);
    } else {
      Four parts[kSplit];
#pragma unroll
      for (int k = 0; k < kSplit; ++k) parts[k] = LoadPack<float, kWide>(SharedOfBlock(from, k));
#pragma unroll
      for (int k = 1; k < kSplit; ++k) AddTo(parts[k], parts[0]);
      return parts[0];
    }
  };
  // The same of a row that is written, by `set`, normed.
  const auto sum_at = [&](int set, const Item& item) {
    const int row = set * kRows + item.row;
    Four total = total_at(row, item.output);
    if constexpr (kUnnormed) {
      if (p.unnormed.squares != nullptr) {
        const Factors by = factors[item.row];
        if (p.unnormed.post) {
          const Four second = total_at(row + p.rows, item.output);
#pragma unroll
          for (int e = 0; e < kWide; ++e) {
            total.at[e] = fmaf(by.joins, second.at[e], total.at[e]);
          }
        }
#pragma unroll
        for (int e = 0; e < kWide; ++e) total.at[e] *= by.inverse;
      }
    }
    return total;
  };
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const Item item = item_at(i);
    if (!item.exists) continue;
    const int output = output_of(item);
    Four total = sum_at(0, item);
    if constexpr (kPair == Pair::kGateUp) {
      AddTo(BiasesAt(p, p.bias, output), total);
      Four up = sum_at(1, item);
      AddTo(BiasesAt(p, p.up_bias, output), up);
#pragma unroll
      for (int e = 0; e < kWide; ++e) {
        total.at[e] = Activate(p.activation, total.at[e]) * up.at[e];
      }
    } else {
      AddTo(kEarly ? before[kEarly ? i : 0] : BiasesAt(p, p.bias, output), total);
      if constexpr (kLeaves) leave(item.row, hidden[i], total);
    }
    StoreOut<T>(p, first_row + item.row, output, total);
  }
  if constexpr (kSplit > 1) {
    // Others may still read this block's sums.
    ArriveCluster();
    WaitCluster();
  }
}

// So many blocks share a tile's columns that all blocks together are about one a multiprocessor.
int32_t SplitOf(int32_t tiles, int32_t stages, int multiprocessors) {
  int32_t split = 1;
  while (split < kMostSplit && 2 * split * tiles <= multiprocessors + multiprocessors / 8 &&
         4 * split <= stages) {
    split *= 2;
  }
  return split;
}

// KiB. Of gate and up nearly all there are: they bring the most bytes, behind a norm that leaves
// the memory idle. Other products have half of them, for two blocks a multiprocessor: this
// kernel's, or one of this kernel's and one of the next. Where few rows' blocks do not need a
// second place, more. Measured on an H100 in whole steps of 16 rows, gate and up's ring and the
// others', in us: gemma3-1b (144 blocks for down) 104, 112 1,234; 176, 112 1,206; 208, 112 1,184;
// 176, 160 1,261; llama3.2-1b 1,187, 1,157, -, 1,143; llama3.1-8b 5,990, 5,809, -, 5,625. With 64
// rows: llama3.2-1b 1,535, 1,512,
// -, 1,570.
//
// With unnormed rows nothing leaves the memory idle: what counts is that a block finds room beside
// one of the kernel before. Then gate and up have what output's blocks of gemma3-1b (37 KiB) and of
// llama3.2-1b (73) leave, and where they are more than the multiprocessors they, too, stand two by
// two. Reckoned, not measured.
template <int kRows, Pair kPair, bool kUnnormed>
int32_t RingOf(int32_t blocks, int32_t columns, int multiprocessors) {
  const bool one_each = blocks <= multiprocessors;
  if (kUnnormed) return kPair == Pair::kColumns || !one_each ? 112 : columns <= 1536 ? 176 : 144;
  if (kPair == Pair::kGateUp || kRows == kManyRows) return 208;
  return kRows <= 16 && one_each ? 160 : 112;
}

PanelMatrix MatrixOf(const Matrix& weight) {
  return {weight.data, weight.dtype, weight.rows, weight.cols, kPanelOutputs};
}

template <typename T, int kRows, Pair kPair, int kSplit, bool kUnnormed>
cudaError_t Launch(const PanelProductParams& p, PanelMaps& maps, const LaunchContext& context,
                   const PanelTuning& tuning) {
  using Shape = PanelShape<kRows, kPair>;
  ArgsOf<kUnnormed> args = {};
  if constexpr (kUnnormed) {
    args.unnormed = p.unnormed;
    args.leaves = p.leaves;
    args.width = p.in.width;
    args.inverse_width = 1.0f / static_cast<float>(p.in.width);
    args.tiles = static_cast<int32_t>(CeilDiv(p.in.width, kPanelOutputs));
  }
  args.out = p.out.data;
  args.bias = p.bias;
  args.up_bias = p.up_bias;
  args.rows = p.rows;
  args.outputs = p.weight.rows;
  args.stages = static_cast<int32_t>(CeilDiv(p.weight.cols, StageColumns<kPair>()));
  args.add = p.add;
  args.wide = p.out.dtype == DType::kFloat32;
  args.aligned = p.weight.rows % kWide == 0 && IsAligned(p.out.data, 16) && IsAligned(p.bias, 16) &&
                 IsAligned(p.up_bias, 16);
  args.activation = p.activation;
  const int32_t tiles = static_cast<int32_t>(CeilDiv(p.weight.rows, kPanelOutputs));
  const int32_t ring =
      1024 * (tuning.ring > 0 ? tuning.ring
                              : RingOf<kRows, kPair, kUnnormed>(tiles * kSplit, p.in.width,
                                                                context.multiprocessors));
  args.slots = std::clamp<int32_t>(ring / Shape::kStageBytes, 2, kMostStages);
  args.slots = std::min<int32_t>(args.slots, std::max<int32_t>(2, CeilDiv(args.stages, kSplit)));
  const int32_t shared_bytes =
      1024 + std::max<int32_t>(args.slots * Shape::kStageBytes, Shape::kSumsBytes);

  const auto kernel = PanelKernel<T, kRows, kPair, kSplit, kUnnormed>;
  cudaError_t error = AllowShared(kernel, 227 * 1024 - 1024);
  if (error == cudaSuccess) error = PreferShared(kernel);
  // Those of weights while kernels are loaded, too: what a step then finds is made.
  if (error == cudaSuccess) error = maps.Find(MatrixOf(p.weight), args.weight);
  if (error == cudaSuccess && kPair == Pair::kGateUp) error = maps.Find(MatrixOf(p.up), args.up);
  if (error == cudaSuccess && !context.load_only) {
    error = maps.Find({p.in.data, p.in.dtype, InRowsOf(p), p.in.width, kRows}, args.in);
  }
  if (error != cudaSuccess) return error;
  const int64_t row_tiles = TiledRows(kRows, kUnnormed) ? CeilDiv(p.rows, kRows) : 1;
  return LaunchClusters(kernel, dim3(static_cast<unsigned>(row_tiles * tiles * kSplit)),
                        dim3(Threads(kRows, kUnnormed)), kSplit, static_cast<size_t>(shared_bytes),
                        context, args);
}

template <typename T, int kRows, Pair kPair, bool kUnnormed>
cudaError_t LaunchSplit(const PanelProductParams& p, PanelMaps& maps, const LaunchContext& context,
                        const PanelTuning& tuning) {
  const int32_t tiles = static_cast<int32_t>(CeilDiv(p.weight.rows, kPanelOutputs));
  const int32_t stages = static_cast<int32_t>(CeilDiv(p.weight.cols, StageColumns<kPair>()));
  switch (tuning.split > 0 ? tuning.split : SplitOf(tiles, stages, context.multiprocessors)) {
    case 1:
      return Launch<T, kRows, kPair, 1, kUnnormed>(p, maps, context, tuning);
    case 2:
      return Launch<T, kRows, kPair, 2, kUnnormed>(p, maps, context, tuning);
    case 4:
      return Launch<T, kRows, kPair, 4, kUnnormed>(p, maps, context, tuning);
    default:
      return Launch<T, kRows, kPair, 8, kUnnormed>(p, maps, context, tuning);
  }
}

template <typename T, int kRows, bool kUnnormed>
cudaError_t Launch(const PanelProductParams& p, PanelMaps& maps, const LaunchContext& context,
                   const PanelTuning& tuning) {
  if constexpr (kRows <= kPanelRows || !kUnnormed) {
    if (p.up.data != nullptr) {
      return Launch<T, kRows, Pair::kGateUp, 1, kUnnormed>(p, maps, context, tuning);
    }
  }
  return LaunchSplit<T, kRows, Pair::kColumns, kUnnormed>(p, maps, context, tuning);
}

// Loads the kernels of fewer rows, too.
template <typename T, bool kUnnormed>
cudaError_t Launch(const PanelProductParams& p, PanelMaps& maps, const LaunchContext& context,
                   const PanelTuning& tuning) {
  const int32_t rows = InRowsOf(p);
  cudaError_t error = cudaSuccess;
  const auto launch = [&](auto most) {
    constexpr int kMost = decltype(most)::value;
    const bool own = rows > kMost / 2 && (rows <= kMost || TiledRows(kMost, kUnnormed));
    if (error == cudaSuccess && (own || (context.load_only && rows > kMost))) {
      error = Launch<T, kMost, kUnnormed>(p, maps, context, tuning);
    }
  };
  if (rows <= 4) return Launch<T, 8, kUnnormed>(p, maps, context, tuning);
  launch(std::integral_constant<int, 8>());
  launch(std::integral_constant<int, 16>());
  launch(std::integral_constant<int, 32>());
  launch(std::integral_constant<int, 64>());
  launch(std::integral_constant<int, kManyRows>());
  return error;
}

}  // namespace

cudaError_t LaunchPanelProduct(const PanelProductParams& p, PanelMaps& maps,
                               const LaunchContext& context, const PanelTuning& tuning) {
  if (p.unnormed.squares != nullptr || p.leaves.rows != nullptr) {
    if (!TakesUnnormed(p)) return cudaErrorInvalidValue;
    return Launch<__nv_bfloat16, true>(p, maps, context, tuning);
  }
  return p.weight.dtype == DType::kBFloat16 ? Launch<__nv_bfloat16, false>(p, maps, context, tuning)
                                            : Launch<__half, false>(p, maps, context, tuning);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
