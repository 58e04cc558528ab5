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
// block multiplies in an order that does not either (panel_order.h): so a normed row's sums are the
// same bits in a tile of any number of rows, in any place of it.
//
// Bytes: weights once a tile of rows (of 8 to 64, or kManyRows; from memory once, since blocks of
// the same outputs stand side by side), activations once a block (from the L2 cache), outputs once.
// Grid: split blocks a tile of rows, tiles of rows a tile of 64 outputs. 160 threads, with unnormed
// rows 192. Shared memory: 112 to 209 KiB (RingOf).
#include <cuda.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/panel_gate.cuh"
#include "kernels/cuda/panel_maps.h"
#include "kernels/cuda/panel_order.h"
#include "kernels/cuda/panel_product.h"
#include "kernels/cuda/panel_ptx.cuh"
#include "kernels/cuda/panel_stages.cuh"
#include "kernels/cuda/panel_unnormed.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

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

// Where a block finds the sums that the cluster's blocks have of its share: they write there, and
// nobody waits for all of a cluster's threads. A barrier of these would cost half a microsecond:
// what it orders is all memory.
struct Inbox {
  static constexpr int kBarrierBytes = 16;
  uint64_t* full;  // when all are there
  float* fours;    // [kSplit, a block's share], and as many of second rows where two stand for one

  __device__ __forceinline__ explicit Inbox(unsigned char* at)
      : full(reinterpret_cast<uint64_t*>(at)),
        fours(reinterpret_cast<float*>(at + kBarrierBytes)) {}
};

// Whether there may be more rows than a tile has.
constexpr bool TiledRows(int rows, bool unnormed) { return !unnormed && rows == kManyRows; }

// kSplit blocks, a cluster, share a tile's columns.
template <typename T, int kRows, Pair kPair, int kSplit, bool kUnnormed>
__global__ void __launch_bounds__(Threads(kUnnormed), TiledRows(kRows, kUnnormed) ? 1 : 2)
    PanelKernel(const __grid_constant__ ArgsOf<kUnnormed> p) {
  using Shape = PanelShape<kRows, kPair>;
  __shared__ uint64_t full[kMostStages], empty[kMostStages];
  __shared__ Factors factors[kUnnormed ? kRows : 1];
  static_assert(sizeof(full) + sizeof(empty) + sizeof(factors) <= kStaticBytes);
  unsigned char* const dynamic = DynamicShared();
  unsigned char* const ring = dynamic + (-SharedAddress(dynamic) & 1023);
  // Blocks of the same outputs stand side by side.
  const int row_tiles = TiledRows(kRows, kUnnormed) ? (p.rows + kRows - 1) / kRows : 1;
  const int tile = static_cast<int>(blockIdx.x) / kSplit / row_tiles;
  const int first_row = static_cast<int>(blockIdx.x) / kSplit % row_tiles * kRows;
  const int rows = TiledRows(kRows, kUnnormed) ? min(kRows, p.rows - first_row) : p.rows;
  const int rank = static_cast<int>(blockIdx.x) % kSplit;
  const int first = p.stages * rank / kSplit;
  const int last = p.stages * (rank + 1) / kSplit;
  const int thread = static_cast<int>(threadIdx.x);
  // Of the tile's sums this block ends those of every kSplit-th row, in fours.
  constexpr int kAcross = kPanelOutputs / kWide;
  constexpr int kOwn = Shape::kFours / kSplit;
  bool two = false;  // rows stand for one
  if constexpr (kUnnormed) two = p.unnormed.squares != nullptr && p.unnormed.post;
  const Inbox inbox(ring + p.inbox);
  if (thread == kGroup) {
    for (int i = 0; i < p.slots; ++i) {
      InitBarrier(&full[i], 1);
      InitBarrier(&empty[i], kGroup / kWarp);
    }
    if constexpr (kSplit > 1) InitBarrier(inbox.full, 1);
    PublishBarriers();
    if constexpr (kSplit > 1) {
      const int own_rows = (rows - rank + kSplit - 1) / kSplit;
      ArriveExpecting(inbox.full, (two ? 2 : 1) * kSplit * own_rows * kPanelOutputs * 4);
    }
  }
  __syncthreads();
  // All blocks have begun, and an inbox may be written, when its second part is over.
  if constexpr (kSplit > 1) ArriveClusterRelaxed();
  if constexpr (kUnnormed) {
    if (thread >= kGroup + kWarp) {
      const int joiner = thread - kGroup - kWarp;
      if (p.unnormed.squares == nullptr) {
        LeaveFactors();
      } else {
        WaitForDependency();
        Joiner<kRows> join(p, joiner);
        MakeFactors<kRows>(p, joiner, factors);
        __syncwarp();
        LeaveFactors();
        join(factors);
      }
      return;
    }
  }
  if (thread >= kGroup) {
    if (thread == kGroup) {
      CopyStages<kRows, kPair>(p, tile, first_row, first, last, ring, full, empty);
    }
    return;
  }

  // A thread's.
  constexpr int kItems = (kOwn + kGroup - 1) / kGroup;
  struct Item {
    int row, output;  // of the tile
    bool exists;
  };
  const auto item_at = [&](int i) {
    const int own = i * kGroup + thread;
    const int row = own / kAcross * kSplit + rank;
    return Item{row, own % kAcross * kWide, own < kOwn && row < rows};
  };
  const auto output_of = [&](const Item& item) { return tile * kPanelOutputs + item.output; };
  constexpr bool kLeaves = kUnnormed && kPair != Pair::kGateUp;
  using Leaves = std::conditional_t<kLeaves, Leaver, NoLeaver>;
  const Leaves leave(p, tile, output_of(item_at(0)));
  // What is added to the sums: loaded at once, or where registers are few at the end.
  constexpr bool kEarly = kPair != Pair::kGateUp && !TiledRows(kRows, kUnnormed);
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
  if constexpr (kUnnormed) {
    MultiplyInOneChain<T, kRows, kPair>(p, first, last, ring, full, empty, sums);
  } else {
    MultiplyStages<T, kRows, kPair>(p, first, last, ring, full, empty, sums);
  }
  // What the ring held has been multiplied, by all warps of the group.
  if constexpr (kUnnormed) {
    TakeFactors();
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
  SyncGroup();
  if constexpr (kSplit > 1) {
    // To the blocks whose shares they are.
    WaitCluster();
#pragma unroll
    for (int i = 0; i < Shape::kFours / kGroup; ++i) {
      const int four = i * kGroup + thread;
      const int row = four / kAcross;
      if (row >= rows) continue;
      const int own = row / kSplit * kAcross + four % kAcross;
      const float* const from = shared + row * Shape::kPitch + four % kAcross * kWide;
      float* const at = inbox.fours + (rank * kOwn + own) * kWide;
      StoreToBlock(LoadPack<float, kWide>(from).at, at, inbox.full, row % kSplit);
      if (two) {
        StoreToBlock(LoadPack<float, kWide>(from + p.rows * Shape::kPitch).at,
                     at + Shape::kFours * kWide, inbox.full, row % kSplit);
      }
    }
    WaitBarrierOfCluster(inbox.full, 0);
  }
  // A row's sums that the cluster's blocks have.
  const auto total_at = [&](int i, int row, int output, bool second) {
    if constexpr (kSplit == 1) {
      return LoadPack<float, kWide>(shared + row * Shape::kPitch + output);
    } else {
      const float* const from =
          inbox.fours + (i * kGroup + thread + (second ? Shape::kFours : 0)) * kWide;
      Four parts[kSplit];
#pragma unroll
      for (int k = 0; k < kSplit; ++k) parts[k] = LoadPack<float, kWide>(from + k * kOwn * kWide);
#pragma unroll
      for (int k = 1; k < kSplit; ++k) AddTo(parts[k], parts[0]);
      return parts[0];
    }
  };
  // The same of a row that is written, by `set`, normed.
  const auto sum_at = [&](int i, int set, const Item& item) {
    const int row = set * kRows + item.row;
    Four total = total_at(i, row, item.output, false);
    if constexpr (kUnnormed) {
      if (p.unnormed.squares != nullptr) {
        const Factors by = factors[item.row];
        if (p.unnormed.post) {
          const Four second = total_at(i, row + p.rows, item.output, true);
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
    // Where rows are left, lanes add up what others have.
    if (!kLeaves && !item.exists) continue;
    const int output = output_of(item);
    Four total = item.exists ? sum_at(i, 0, item) : Four{};
    if constexpr (kPair == Pair::kGateUp) {
      AddTo(BiasesAt(p, p.bias, output), total);
      Four up = sum_at(i, 1, item);
      AddTo(BiasesAt(p, p.up_bias, output), up);
#pragma unroll
      for (int e = 0; e < kWide; ++e) {
        total.at[e] = PanelGate(p.activation, total.at[e]) * up.at[e];
      }
    } else {
      Four more = kEarly ? before[kEarly ? i : 0] : BiasesAt(p, p.bias, output);
      if (!kEarly && p.add && item.exists) AddOut(p, first_row + item.row, output, more);
      AddTo(more, total);
      if constexpr (kLeaves) {
        leave(item.row, item.exists, hidden[i], total);
        if (!item.exists) continue;
      }
    }
    StoreOut<T>(p, first_row + item.row, output, total);
  }
}

// KiB. What counts is whose blocks find room side by side: a block waits with its ring full while
// kernels before it run, but where its ring leaves the next kernel's blocks no room, their weights
// wait for it to end. Measured on an H200 as a chain of all layers (panel_bench), us a layer:
//
// Normed. gemma3-1b's gate and up (108 blocks) beside its down (144): 124 and 104 KiB 25.1 with 4
// rows, 28.7 with 16, 38.9 with 64; 124 and 112, which do not fit, 28.3, 28.7, 38.8; 208 and 112
// 27.5, 29.5, 40.7; 208 and 208 28.4, 30.8, 39.5. llama3.2-1b's (128 and 128): 124 and
// 104 41.6, 45.8,
// -; 208 and 208 42.3, 43.1, -. Down of llama3.1-8b (56 stages a block): 208 117.7 to 120 with 4
// and 16 rows, 112 126 to 137. q, k and v 160, 112: llama3.2-1b with 4 rows 41.5, 43.7, with
// 64 56.4, 59.7; gemma3-1b with 64 38.1, 38.8.
//
// Unnormed, where no norm is between kernels: gate and up and the others 104 and 112 KiB, 208 and
// 112: llama3.2-1b with 4 rows 40.9, 41.7, with 16 42.0, 43.1, with 32 47.0, 46.7;
// gemma3-1b 26.4, 24.5, with 16 29.4, 27.9. llama3.1-8b 104 and, of long shares, 208: 117.4, 119.3,
// 126.2; 208 and 208 119.6, 121.6, 126.5. But whole steps of llama3.2-1b, whose attention reads
// beside a gate and up that is there early: 104 KiB 867 with 4 rows, 888 with 16, 953 with 32; 144
// 823, 859, 937; 208 812, 849, 929. Whole steps of llama3.1-8b, gate and up in more blocks than
// multiprocessors, and q, k, v and output: 104 and 112 KiB 3,849, 4,068, 4,340; 144 and 112 3,806,
// 3,981, 4,292; 144 and 160 3,786, 3,940, 4,217; 192 and 112 3,863, 4,015, 4,299; of qwen3-4b 104
// and 112 2,852, 2,769, 3,046; 144 and 160 2,502, 2,691, 3,043.
//
// Where down of few outputs would have 144 or 160 too, 4 rows of llama3.2-1b take 822, of gemma3-1b
// 798 us in place of 785 and 770.
template <int kRows, Pair kPair, bool kUnnormed>
int32_t RingOf(int32_t blocks, const Matrix& weight, int32_t stages, int multiprocessors) {
  if (kRows == kManyRows) return 208;
  if (kPair == Pair::kGateUp) {
    if (kUnnormed) return blocks <= multiprocessors ? 208 : 144;
    return weight.cols <= 1536 ? 124 : 208;
  }
  // What waits is little beside what is still to come.
  if (stages >= (kUnnormed ? 32 : 16)) return 208;
  if (kUnnormed) return std::min(weight.rows, weight.cols) > 2048 ? 160 : 112;
  return blocks <= multiprocessors * 3 / 4 ? 160 : 104;
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
      1024 * (tuning.ring > 0
                  ? tuning.ring
                  : RingOf<kRows, kPair, kUnnormed>(tiles * kSplit, p.weight,
                                                    args.stages / kSplit, context.multiprocessors));
  const bool two = p.unnormed.squares != nullptr && p.unnormed.post;
  const int32_t inbox_bytes =
      kSplit == 1 ? 0 : Inbox::kBarrierBytes + (two ? 2 : 1) * Shape::kFoursBytes;
  args.slots = std::clamp<int32_t>((ring - inbox_bytes) / Shape::kStageBytes, 2, kMostStages);
  args.slots = std::min<int32_t>(args.slots, std::max<int32_t>(2, CeilDiv(args.stages, kSplit)));
  args.inbox = std::max<int32_t>(args.slots * Shape::kStageBytes, Shape::kSumsBytes);
  const int32_t shared_bytes = 1024 + args.inbox + inbox_bytes;

  const auto kernel = PanelKernel<T, kRows, kPair, kSplit, kUnnormed>;
  cudaError_t error = AllowShared(kernel, 227 * 1024 - kStaticBytes);
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
                        dim3(Threads(kUnnormed)), kSplit, static_cast<size_t>(shared_bytes),
                        context, args);
}

template <typename T, int kRows, Pair kPair, bool kUnnormed>
cudaError_t LaunchSplit(const PanelProductParams& p, PanelMaps& maps, const LaunchContext& context,
                        const PanelTuning& tuning) {
  const int32_t tiles = static_cast<int32_t>(CeilDiv(p.weight.rows, kPanelOutputs));
  const int32_t stages = static_cast<int32_t>(CeilDiv(p.weight.cols, StageColumns<kPair>()));
  switch (tuning.split > 0 ? tuning.split
                           : PanelSplitOf(tiles, stages, context.multiprocessors, kUnnormed)) {
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
  if (p.up.data != nullptr) {
    return Launch<T, kRows, Pair::kGateUp, 1, kUnnormed>(p, maps, context, tuning);
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
  if constexpr (!kUnnormed) {
    launch(std::integral_constant<int, 64>());
    launch(std::integral_constant<int, kManyRows>());
  }
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
