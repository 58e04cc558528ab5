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
// two exchange sums, and each ends half of the outputs. They do that once, so all clusters find
// room at once.
//
// Bytes: weights from memory once a group of row tiles, and between L2 and multiprocessors, of a
// stage, (kRows / kAcross + kOutputs / kDown) * 128 a block. A multiprocessor takes 64 bytes a
// clock of the (kRows + kOutputs) * 128 of a stage: what bounds small tiles. Grid: as many clusters
// as find room at once, or as there are items. (kGroups + 1) * 128 threads, all registers. Shared
// memory: 196 to 227 KiB.
//
// Measured on an H200 (wide_pair_bench products), us, cuBLASLt's best -> this: llama3.1-8b's down
// of 64 rows (117 MB) 34.7 -> 32.1, 3,660 GB/s; of 128 37.9 -> 36.7; gate and up of 64 rows (235
// MB) 61.7 -> 59.2, 3,970 GB/s. Others: wide_product.h.
//
// Assumes rows of 16-bit elements that begin at multiples of 16 bytes, and outputs in eights.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/cuda/wide_copy.cuh"
#include "kernels/cuda/wide_ends.cuh"
#include "kernels/cuda/wide_product.h"
#include "kernels/cuda/wide_ptx.cuh"
#include "kernels/cuda/wide_shape.cuh"
#include "kernels/cuda/wide_stream.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

__device__ __forceinline__ WideEndRows EndOf(const WideArgs& p) {
  return {p.out, p.bias, p.up_bias, p.rows, p.outputs, p.activation};
}

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
