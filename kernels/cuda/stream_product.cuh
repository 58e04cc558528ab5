// The product of few rows, up to kStreamRows, as a stream of the weights: what a decode step's time
// is made of.
//
// Bytes: every weight once, the activations once a block (from the L2 cache), the outputs once.
// Grid: one block a multiprocessor, or as many as there are units; each takes one run of weights,
// all of them as long. Shared memory: a ring of 40-80 KiB of weight pieces, and the activations.
// The ring is filled before WaitForDependency, while the kernel before still runs: weights and the
// layer's table are not written by any kernel. Sums are float32 in an order that depends on the
// weights' shape and on the number of multiprocessors, not on the number of rows.
// Assumes: columns a multiple of 8; every pointer of the parameters and of the layer's table a
// multiple of 16 bytes.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/stream_plan.h"
#include "kernels/cuda/stream_ring.cuh"
#include "kernels/cuda/stream_rows.cuh"
#include "kernels/cuda/stream_sums.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

template <typename Params>
struct StreamParams {
  StreamPlan plan;
  Params operation;
  float* scratch;      // what the operation asks for
  uint32_t* counters;  // [kCounters], zero
};

// What is particular to an operation: a class Op, made by every thread from the StreamParams before
// WaitForDependency. It has
//   Params                       the operation's
//   TileAt(unit, end)            the rows of the tile that begins at `unit`
//   FillRows(plan, row, shared, x)    the activations to shared memory, by the consumers; `row` is
//                                the one that this thread will end, if there is such a row
//   kEnds                        ends of an activation row in a tile: 16, one for each row of
//                                weights, or 8, for rows i of both halves together
//   Ends(tile, i)                whether end i is there
//   Load(unit, row, i)           what End needs from memory, ahead of the sums: Before
//   End(unit, row, i, sum, before)    sum(k): of row k of the tile, the second half from 8 on
//   Finish(p, shared)            the operation's end, by the consumers of every block
template <typename T, typename Op>
__global__ void __launch_bounds__(kStreamThreads, SIROCCO_HOPPER ? 2 : 1)
    StreamKernel(const __grid_constant__ StreamParams<typename Op::Params> p) {
  __shared__ __align__(16) float partial[2][kStreamWarps][kStreamSums];
  __shared__ float norm_sums[2 * kStreamWarps];
  __shared__ __align__(8) uint64_t full[kStreamSlots];
  __shared__ __align__(8) uint64_t empty[kStreamSlots];
  LaunchDependents();

  const StreamPlan& plan = p.plan;
  unsigned char* const slots = DynamicShared();
  T* const x = reinterpret_cast<T*>(slots + plan.slots * plan.slot_bytes());
  const int first_unit = static_cast<int>(int64_t{plan.units} * blockIdx.x / gridDim.x);
  const int end_unit = static_cast<int>(int64_t{plan.units} * (blockIdx.x + 1) / gridDim.x);
  const int warp = threadIdx.x / kWarp;
  Op op(p);
  StreamRing<T, Op> ring(plan, op, first_unit, end_unit, slots, full, empty);

#if SIROCCO_HOPPER
  const bool copies = threadIdx.x == kStreamConsumers;
  if (copies) ring.Start();
  __syncwarp();
  __syncthreads();
  if (copies) ring.CopyRest();
#else
  ring.Start();
#endif
  WaitForDependency();
  if (warp >= kStreamWarps) return;
  const int row = threadIdx.x / Op::kEnds;
  const int i = threadIdx.x % Op::kEnds;
  op.FillRows(plan, row, norm_sums, x);
  SyncConsumers();
  int buffer = 0;
  for (int unit = first_unit; unit < end_unit; buffer ^= 1) {
    const StreamTile<T> tile = op.TileAt(unit, end_unit);
    const bool ends = row < plan.rows && op.Ends(tile, i);
    typename Op::Before before = {};
    if (ends) before = op.Load(unit, row, i);

    StreamSums<T> sums;
    for (int column = 0; column < plan.columns; column += plan.piece_columns) {
      sums.Add({.slot = ring.Acquire(),
                .half_bytes = plan.half_rows * plan.row_bytes,
                .row_bytes = plan.row_bytes,
                .rows = {tile.rows[0], tile.rows[1]},
                .columns = min(plan.piece_columns, plan.columns - column),
                .first_column = column,
                .x = x + column,
                .x_stride = plan.x_stride,
                .x_rows = plan.rows});
      ring.Release();
    }
    sums.Store(plan.rows, partial[buffer][warp]);
    // Two buffers: the barrier of the next tile keeps the one after from writing what is read.
    SyncConsumers();
    if (ends) {
      const auto sum = [&](int of) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < kStreamWarps; ++w) {
          total += partial[buffer][w][row * 2 * kStreamHalf + of];
        }
        return total;
      };
      op.End(unit, row, i, sum, before);
    }
    unit += tile.units;
  }
  op.Finish(p, norm_sums);
}

// cudaErrorNotSupported for a plan that does not fit.
template <typename T, typename Op>
cudaError_t LaunchStream(const StreamPlan& plan, const typename Op::Params& operation,
                         const LaunchContext& context) {
  if (!plan.fits) return cudaErrorNotSupported;
  const StreamParams<typename Op::Params> p = {
      plan, operation, static_cast<float*>(context.scratch), context.counters};
  if (const cudaError_t error = AllowShared(StreamKernel<T, Op>, plan.shared_bytes);
      error != cudaSuccess) {
    return error;
  }
  if (const cudaError_t error = PreferShared(StreamKernel<T, Op>); error != cudaSuccess) {
    return error;
  }
  return LaunchKernel(StreamKernel<T, Op>, dim3(plan.blocks), dim3(kStreamThreads),
                      plan.shared_bytes, context, p);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
