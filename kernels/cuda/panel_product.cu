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
// Bytes: weights once a tile of rows (of 8 to 64, or 128; from memory once, since blocks of one
// tile of outputs stand side by side), activations once a block (from the L2 cache), outputs once.
// Grid: x split blocks a tile of rows, y tiles of 64 outputs. 160 threads. Shared memory: 112 to
// 209 KiB (RingOf).
#include <cuda.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/panel_product.h"
#include "kernels/cuda/panel_ptx.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kPanelOutputs = 64;
constexpr int kColumns = 64;  // of a panel
constexpr int kPanelBytes = kPanelOutputs * kColumns * 2;
constexpr int kPanels = 2;          // of weights, a stage
constexpr int kGroup = kWarpgroup;  // threads that multiply
constexpr int kThreads = kGroup + kWarp;
constexpr int kMostSplit = 8;
constexpr int kManyRows = 128;  // of a tile, where there are more than kPanelRows
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
  // Of a tile, in fours.
  static constexpr int kFours = kRows * kPanelOutputs / kWide;
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
  // Early: what comes next has weights to ask for, too. So it may begin while kernels before this one
  // still run, and reads before its wait only what they do not write.
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

// kSplit blocks, a cluster, share a tile's columns.
template <typename T, int kRows, Pair kPair, int kSplit>
__global__ void __launch_bounds__(kThreads, kRows == kManyRows ? 1 : 2)
    PanelKernel(const __grid_constant__ PanelArgs p) {
  using Shape = PanelShape<kRows, kPair>;
  __shared__ uint64_t full[kMostStages], empty[kMostStages];
  unsigned char* const dynamic = DynamicShared();
  unsigned char* const ring = dynamic + (-SharedAddress(dynamic) & 1023);
  const int tile = static_cast<int>(blockIdx.y);
  const int first_row = static_cast<int>(blockIdx.x) / kSplit * kRows;
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
  if (thread >= kGroup) {
    if (thread == kGroup) {
      CopyStages<kRows, kPair>(p, tile, first_row, first, last, ring, full, empty);
    }
    if constexpr (kSplit > 1) {
      __syncwarp();
      ArriveCluster();
      WaitCluster();
      ArriveCluster();
      WaitCluster();
    }
    return;
  }

  // Of the tile's sums this block ends a run of fours, a thread these.
  constexpr int kOwn = Shape::kFours / kSplit;
  constexpr int kItems = (kOwn + kGroup - 1) / kGroup;
  struct Item {
    int row, output;  // of the tile
    bool exists;
  };
  const auto item_at = [&](int i) {
    constexpr int kAcross = kPanelOutputs / kWide;
    const int four = rank * kOwn + i * kGroup + thread;
    const int row = four / kAcross;
    return Item{row, four % kAcross * kWide,
                i * kGroup + thread < kOwn && first_row + row < p.rows};
  };
  const auto output_of = [&](const Item& item) { return tile * kPanelOutputs + item.output; };
  Four before[kPair == Pair::kGateUp ? 1 : kItems];
  if constexpr (kPair != Pair::kGateUp) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) before[i] = BiasesAt(p, p.bias, output_of(item_at(i)));
  }
  WaitForDependency();
  if constexpr (kPair != Pair::kGateUp) {
    if (p.add) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const Item item = item_at(i);
        if (item.exists) AddOut(p, first_row + item.row, output_of(item), before[i]);
      }
    }
  }

  float sums[Shape::kSets][Shape::kSums];
  MultiplyStages<T, kRows, kPair>(p, first, last, ring, full, empty, sums);
  // What the ring held has been multiplied, by all warps of the group.
  SyncGroup();
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
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const Item item = item_at(i);
    if (!item.exists) continue;
    const int output = output_of(item);
    const float* const from = shared + item.row * Shape::kPitch + item.output;
    Four total;
    if constexpr (kSplit == 1) {
      total = LoadPack<float, kWide>(from);
    } else {
      Four parts[kSplit];
#pragma unroll
      for (int k = 0; k < kSplit; ++k) parts[k] = LoadPack<float, kWide>(SharedOfBlock(from, k));
      total = parts[0];
#pragma unroll
      for (int k = 1; k < kSplit; ++k) AddTo(parts[k], total);
    }
    if constexpr (kPair == Pair::kGateUp) {
      AddTo(BiasesAt(p, p.bias, output), total);
      Four up = LoadPack<float, kWide>(from + kRows * Shape::kPitch);
      AddTo(BiasesAt(p, p.up_bias, output), up);
#pragma unroll
      for (int e = 0; e < kWide; ++e) {
        total.at[e] = Activate(p.activation, total.at[e]) * up.at[e];
      }
    } else {
      AddTo(before[i], total);
    }
    StoreOut<T>(p, first_row + item.row, output, total);
  }
  if constexpr (kSplit > 1) {
    // Others may still read this block's sums.
    ArriveCluster();
    WaitCluster();
  }
}

// The driver's function that describes a matrix to the tensor copy engine.
using EncodeTensor = decltype(&cuTensorMapEncodeTiled);

EncodeTensor FindEncodeTensor() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                             12000, cudaEnableDefault, &result);
  return error == cudaSuccess && result == cudaDriverEntryPointSuccess
             ? reinterpret_cast<EncodeTensor>(found)
             : nullptr;
}

// Boxes of `box_rows` rows by a panel's columns; what is beyond the matrix comes as zeros.
cudaError_t Describe(EncodeTensor encode, const void* data, DType dtype, int32_t rows,
                     int32_t columns, uint32_t box_rows, CUtensorMap& map) {
  const cuuint64_t size[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t stride[1] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[2] = {kColumns, box_rows};
  const cuuint32_t step[2] = {1, 1};
  const CUresult result =
      encode(&map,
             dtype == DType::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
             2, const_cast<void*>(data), size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
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

// KiB. Of gate and up nearly all there are: they bring the most bytes, behind a norm that leaves the
// memory idle. Other products have half of them, for two blocks a multiprocessor: this kernel's, or
// one of this kernel's and one of the next. Where few rows' blocks do not need a second place, more.
// Measured on an H100 in whole steps of 16 rows, gate and up's ring and the others', in us: gemma3-1b
// (144 blocks for down) 104, 112 1,234; 176, 112 1,206; 208, 112 1,184; 176, 160 1,261; llama3.2-1b
// 1,187, 1,157, -, 1,143; llama3.1-8b 5,990, 5,809, -, 5,625. With 64 rows: llama3.2-1b 1,535, 1,512,
// -, 1,570.
template <int kRows, Pair kPair>
int32_t RingOf(int32_t blocks, int multiprocessors) {
  if (kPair == Pair::kGateUp || kRows == kManyRows) return 208;
  return kRows <= 16 && blocks <= multiprocessors ? 160 : 112;
}

template <typename T, int kRows, Pair kPair, int kSplit>
cudaError_t Launch(const PanelProductParams& p, const LaunchContext& context,
                   const PanelTuning& tuning) {
  using Shape = PanelShape<kRows, kPair>;
  PanelArgs args = {};
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
                              : RingOf<kRows, kPair>(tiles * kSplit, context.multiprocessors));
  args.slots = std::clamp<int32_t>(ring / Shape::kStageBytes, 2, kMostStages);
  args.slots = std::min<int32_t>(args.slots, std::max<int32_t>(2, CeilDiv(args.stages, kSplit)));
  const int32_t shared_bytes =
      1024 + std::max<int32_t>(args.slots * Shape::kStageBytes, Shape::kSumsBytes);

  // Found while kernels are loaded, not while a stream is captured.
  static const EncodeTensor encode = FindEncodeTensor();
  if (encode == nullptr) return cudaErrorNotSupported;
  const auto kernel = PanelKernel<T, kRows, kPair, kSplit>;
  cudaError_t error = AllowShared(kernel, 227 * 1024 - 1024);
  if (error == cudaSuccess) error = PreferShared(kernel);
  if (error != cudaSuccess) return error;
  if (!context.load_only) {
    error = Describe(encode, p.weight.data, p.weight.dtype, p.weight.rows, p.weight.cols,
                     kPanelOutputs, args.weight);
    if (error == cudaSuccess && kPair == Pair::kGateUp) {
      error = Describe(encode, p.up.data, p.up.dtype, p.up.rows, p.up.cols, kPanelOutputs, args.up);
    }
    if (error == cudaSuccess) {
      error = Describe(encode, p.in.data, p.in.dtype, p.rows, p.in.width, kRows, args.in);
    }
    if (error != cudaSuccess) return error;
  }
  const auto row_tiles = static_cast<unsigned>(CeilDiv(p.rows, kRows));
  return LaunchClusters(kernel, dim3(row_tiles * kSplit, static_cast<unsigned>(tiles)),
                        dim3(kThreads), kSplit, static_cast<size_t>(shared_bytes), context, args);
}

template <typename T, int kRows, Pair kPair>
cudaError_t LaunchSplit(const PanelProductParams& p, const LaunchContext& context,
                        const PanelTuning& tuning) {
  const int32_t tiles = static_cast<int32_t>(CeilDiv(p.weight.rows, kPanelOutputs));
  const int32_t stages = static_cast<int32_t>(CeilDiv(p.weight.cols, StageColumns<kPair>()));
  switch (tuning.split > 0 ? tuning.split : SplitOf(tiles, stages, context.multiprocessors)) {
    case 1:
      return Launch<T, kRows, kPair, 1>(p, context, tuning);
    case 2:
      return Launch<T, kRows, kPair, 2>(p, context, tuning);
    case 4:
      return Launch<T, kRows, kPair, 4>(p, context, tuning);
    default:
      return Launch<T, kRows, kPair, 8>(p, context, tuning);
  }
}

template <typename T, int kRows>
cudaError_t Launch(const PanelProductParams& p, const LaunchContext& context,
                   const PanelTuning& tuning) {
  if (p.up.data != nullptr) return Launch<T, kRows, Pair::kGateUp, 1>(p, context, tuning);
  return LaunchSplit<T, kRows, Pair::kColumns>(p, context, tuning);
}

// Loads the kernels of fewer rows, too.
template <typename T>
cudaError_t Launch(const PanelProductParams& p, const LaunchContext& context,
                   const PanelTuning& tuning) {
  cudaError_t error = cudaSuccess;
  const auto launch = [&](auto most) {
    constexpr int kMost = decltype(most)::value;
    const bool own = p.rows > kMost / 2 && (p.rows <= kMost || kMost == kManyRows);
    if (error == cudaSuccess && (own || (context.load_only && p.rows > kMost))) {
      error = Launch<T, kMost>(p, context, tuning);
    }
  };
  if (p.rows <= 4) return Launch<T, 8>(p, context, tuning);
  launch(std::integral_constant<int, 8>());
  launch(std::integral_constant<int, 16>());
  launch(std::integral_constant<int, 32>());
  launch(std::integral_constant<int, 64>());
  launch(std::integral_constant<int, kManyRows>());
  return error;
}

}  // namespace

cudaError_t LaunchPanelProduct(const PanelProductParams& p, const LaunchContext& context,
                               const PanelTuning& tuning) {
  return p.weight.dtype == DType::kBFloat16 ? Launch<__nv_bfloat16>(p, context, tuning)
                                            : Launch<__half>(p, context, tuning);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
