// The product of few rows, up to kStreamRows, as a stream of the weights: what a decode step's time
// is made of.
//
// Bytes: every weight once, the activations once a block (from the L2 cache), the outputs once.
// Grid: one block a multiprocessor, or as many as there are units; each takes one run of weights,
// all of them as long. Shared memory: a ring of 96 KiB of weights (64 KiB beside activations that
// leave no more; 48 KiB where not Hopper), the activations, and 16 KiB of sums. The ring is filled
// before WaitForDependency, while the kernel before still runs: weights and the layer's table are
// not written by any kernel. Sums are float32 in an order that depends on the weights' shape and on
// the number of multiprocessors, not on the number of rows; or, in order (StreamTuning), in that of
// ordered_product.cuh, which hangs on nothing but the number of columns: whichever warp gets them,
// groups p, p + 8, p + 16, ... of a row make its partial sum p. Assumes: columns a multiple of 8;
// every pointer of the parameters and of the layer's table a multiple of 16 bytes.
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
//   kParts                       rows of weights that a unit is: 1, or 2 (one in each half)
//   TileAt(unit, end)            the rows of the tile that begins at `unit`
//   Prefetch()                   asks for what no kernel writes and the rest of Op reads; before
//                                the wait
//   kReady                       whether the activations need only be copied: then
//   Ready()                      gives them; else
//   FillRows<kOrdered>(plan, shared, x)    makes them in shared memory
//   Load(unit, row)              what End needs from memory, ahead of the sums: Before
//   End(unit, row, sums, before) sums: [kParts]
//   Finish<kOrdered>(p, shared)  the operation's end, of every block
// kOrdered: for `batch_invariant`.
template <typename T, typename Op, int kDepth, bool kOwnColumns, bool kOrdered>
__global__ void __launch_bounds__(kStreamThreads, 2)
    StreamKernel(const __grid_constant__ StreamParams<typename Op::Params> p) {
  __shared__ __align__(16) float partial[2][kStreamPartials][kStreamWarps];
  __shared__ float norm_sums[kNormSums<kOrdered>];
  const StreamPlan& plan = p.plan;
  const int warp = threadIdx.x / kWarp;
  constexpr int kRing = kDepth * kStreamSlotBytes;  // a warp's
  unsigned char* const slots = DynamicShared();
  T* const x = reinterpret_cast<T*>(slots + kStreamWarps * kRing);
  const int first_unit = plan.first_unit(blockIdx.x);
  const int end_unit = plan.first_unit(blockIdx.x + 1);
  Op op(p);
  StreamRing<T, Op, kDepth, kOwnColumns> ring(plan, op, first_unit, end_unit, slots + warp * kRing);
  ring.Start();
  op.Prefetch();
  WaitForDependency();
  // Not earlier: a kernel after the next would take the next one's room.
  LaunchDependents();

  // Units are ended together, as many as there is room for their warps' sums: each by one thread a
  // row of activations.
  const int threads_a_row = kStreamThreads / plan.rows;
  const int own_row = static_cast<int>(threadIdx.x) / threads_a_row;
  const int own_unit = static_cast<int>(threadIdx.x) % threads_a_row;
  if constexpr (kOwnColumns) {
    ring.StartRows(plan, op.Ready(), x);
  } else {
    if constexpr (Op::kReady) {
      CopyRows(plan, op.Ready(), x);
    } else {
      op.template FillRows<kOrdered>(plan, norm_sums, x);
    }
    __syncthreads();
  }
  const int most_units = kStreamPartials / (Op::kParts * plan.rows);
  const typename StreamSums<T>::Places places(plan, x);
  int group = warp;  // this warp's next of the tile: groups go round the warps, tile by tile
  int buffer = 0;
  for (int unit = first_unit; unit < end_unit; buffer ^= 1) {
    const int first = unit;
    const int most = min(end_unit, first + most_units);
    typename Op::Before before = {};
    const bool loaded = own_row < plan.rows && first + own_unit < most;
    if (loaded) before = op.Load(first + own_unit, own_row);
    do {
      const StreamTile<T> tile = op.TileAt(unit, end_unit);
      if (unit + tile.units > most) break;
      StreamSums<T> sums;
      const int part = kOrdered ? group : warp;  // group: 0 ... 7, in each tile another warp's
      for (; group < plan.groups; group += kStreamWarps) sums.Add(places, ring.Next(), group);
      group -= plan.groups;
      // A unit's parts lie together.
      sums.Store(tile, plan.rows, Op::kParts == 2 ? 1 : plan.half_rows, Op::kParts,
                 &partial[buffer][(unit - first) * Op::kParts * plan.rows][part]);
      unit += tile.units;
    } while (unit < end_unit);
    // Two buffers: this barrier also keeps sums of the buffer after next from overwriting what is
    // read now.
    __syncthreads();
    for (int u = own_unit; own_row < plan.rows && first + u < unit; u += threads_a_row) {
      float sums[Op::kParts];
#pragma unroll
      for (int part = 0; part < Op::kParts; ++part) {
        const float* of = partial[buffer][(u * Op::kParts + part) * plan.rows + own_row];
        constexpr int kAtOnce = kOrdered ? kStreamWarps / 2 : kStreamWarps;
        float totals[kStreamWarps / kAtOnce] = {};
#pragma unroll
        for (int i = 0; i < kStreamWarps; ++i) totals[i / kAtOnce] += of[i];
        sums[part] = kOrdered ? totals[0] + totals[kStreamWarps / kAtOnce - 1] : totals[0];
      }
      op.End(first + u, own_row, sums,
             u == own_unit && loaded ? before : op.Load(first + u, own_row));
    }
  }
  op.template Finish<kOrdered>(p, norm_sums);
}

template <typename T, typename Op, int kDepth, bool kOwnColumns, bool kOrdered>
cudaError_t LaunchStreamOf(const StreamParams<typename Op::Params>& p,
                           const LaunchContext& context) {
  const auto kernel = StreamKernel<T, Op, kDepth, kOwnColumns, kOrdered>;
  cudaError_t error = AllowShared(kernel, p.plan.shared_bytes);
  if (error == cudaSuccess) error = PreferShared(kernel);
  if (error != cudaSuccess) return error;
  return LaunchKernel(kernel, dim3(p.plan.blocks), dim3(kStreamThreads), p.plan.shared_bytes,
                      context, p);
}

template <typename T, typename Op, bool kOrdered>
cudaError_t LaunchStreamOf(const StreamParams<typename Op::Params>& p,
                           const LaunchContext& context) {
  const bool deep = p.plan.depth == kStreamDepth;
  if constexpr (Op::kReady) {
    if (p.plan.own_columns) {
      return deep ? LaunchStreamOf<T, Op, kStreamDepth, true, kOrdered>(p, context)
                  : LaunchStreamOf<T, Op, kStreamShallow, true, kOrdered>(p, context);
    }
  }
  return deep ? LaunchStreamOf<T, Op, kStreamDepth, false, kOrdered>(p, context)
              : LaunchStreamOf<T, Op, kStreamShallow, false, kOrdered>(p, context);
}

// cudaErrorNotSupported for a plan that does not fit, and of float32 for one in order.
template <typename T, typename Op>
cudaError_t LaunchStream(const StreamPlan& plan, const typename Op::Params& operation,
                         const LaunchContext& context) {
  if (!plan.fits) return cudaErrorNotSupported;
  const StreamParams<typename Op::Params> p = {
      plan, operation, static_cast<float*>(context.scratch), context.counters};
  if (!plan.ordered) return LaunchStreamOf<T, Op, false>(p, context);
  if constexpr (sizeof(T) == 2) return LaunchStreamOf<T, Op, true>(p, context);
  return cudaErrorNotSupported;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
