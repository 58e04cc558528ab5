// Operations that know which lane and position a row is: a step's begin, embedding, rotary
// embedding, the KV write.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/kv_slots.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

struct BeginStepWork {
  BeginStepParams p;
  StepFault* fault;  // in host memory
};

// A few bytes a row. Grid: one block. Shared: 4 bytes.
//
// Where an update lies outside the block tables none is applied, and the fault is left for the
// host; the rest is done, so that what follows in the step stays within its tables.
__global__ void __launch_bounds__(kRowThreads)
    BeginStepKernel(const __grid_constant__ BeginStepWork work) {
  const BeginStepParams& p = work.p;
  __shared__ int first_wrong;
  const int thread = static_cast<int>(threadIdx.x);
  WaitForDependency();
  LaunchDependents();
  const int updates = p.update_count == nullptr ? 0 : *p.update_count;
  if (thread == 0) first_wrong = updates;
  __syncthreads();
  for (int i = thread; i < updates; i += kRowThreads) {
    const BlockUpdate u = p.updates[i];
    const bool inside = u.lane >= 0 && u.lane < p.lanes.max_lanes && u.group >= 0 &&
                        u.group < p.lanes.groups && u.logical >= 0 &&
                        u.logical < p.lanes.max_blocks;
    if (!inside) atomicMin(&first_wrong, i);
  }
  __syncthreads();
  if (first_wrong < updates) {
    if (thread == 0 && work.fault->count == 0) {
      work.fault->update = p.updates[first_wrong];
      work.fault->index = first_wrong;
      __threadfence_system();
      work.fault->count = 1;
    }
  } else {
    for (int i = thread; i < updates; i += kRowThreads) {
      const BlockUpdate u = p.updates[i];
      const int64_t table = int64_t{u.lane} * p.lanes.groups + u.group;
      p.lanes.block_table[table * p.lanes.max_blocks + u.logical] = u.physical;
    }
  }
  if (p.derive_positions) {
    for (int r = thread; r < p.rows; r += kRowThreads) {
      p.map.position[r] = p.lanes.lane[p.map.lane[r]].length - 1;
    }
  }
  if (p.layer_counter != nullptr && thread == 0) *p.layer_counter = 0;
}

// Reads a row of the table, writes a row. Grid: a row, and kRowThreads * kCount elements of it.
template <typename T, int kCount>
__global__ void __launch_bounds__(kRowThreads) EmbedKernel(const __grid_constant__ EmbedParams p) {
  WaitForDependency();
  LaunchDependents();
  const int i = static_cast<int>(blockIdx.y * kRowThreads + threadIdx.x) * kCount;
  if (i >= p.table.cols) return;
  const int row = static_cast<int>(blockIdx.x);
  const int id =
      p.lanes.history[int64_t{p.map.lane[row]} * p.lanes.max_length + p.map.position[row]];
  float values[kCount];
  LoadFloats<T, kCount>(static_cast<const T*>(p.table.data) + int64_t{id} * p.table.cols + i,
                        values);
#pragma unroll
  for (int j = 0; j < kCount; ++j) values[j] *= p.scale;
  StoreFloats<float, kCount>(values,
                             static_cast<float*>(p.out.data) + int64_t{row} * p.out.width + i);
}

// Reads and writes the part of each head that turns. Grid: a row, and kRowThreads * kCount pairs.
template <typename T, int kCount>
__global__ void __launch_bounds__(kRowThreads)
    RotaryKernel(const __grid_constant__ RotaryParams p) {
  WaitForDependency();
  LaunchDependents();
  const int half = p.table.dim / 2;
  const int pair = static_cast<int>(blockIdx.y * kRowThreads + threadIdx.x) * kCount;
  const int head = pair / half;
  if (head >= p.heads.width / p.head_dim) return;
  const int i = pair - head * half;
  const int row = static_cast<int>(blockIdx.x);
  const float* const table = p.table.cos_sin + int64_t{p.map.position[row]} * p.table.dim + i;
  T* const at =
      static_cast<T*>(p.heads.data) + int64_t{row} * p.heads.width + int64_t{head} * p.head_dim + i;
  float low[kCount], high[kCount], cosine[kCount], sine[kCount];
  LoadFloats<T, kCount>(at, low);
  LoadFloats<T, kCount>(at + half, high);
  LoadFloats<float, kCount>(table, cosine);
  LoadFloats<float, kCount>(table + half, sine);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const float turned = low[j] * cosine[j] - high[j] * sine[j];
    high[j] = high[j] * cosine[j] + low[j] * sine[j];
    low[j] = turned;
  }
  StoreFloats<T, kCount>(low, at);
  StoreFloats<T, kCount>(high, at + half);
}

// Reads k and v, writes them to the cache. Grid: a row, kRowThreads * kCount elements of it, and
// k or v.
template <typename T, typename Kv, int kCount>
__global__ void __launch_bounds__(kRowThreads)
    WriteKvKernel(const __grid_constant__ WriteKvParams p) {
  WaitForDependency();
  LaunchDependents();
  const int i = static_cast<int>(blockIdx.y * kRowThreads + threadIdx.x) * kCount;
  if (i >= p.k.width) return;
  const bool is_v = blockIdx.z == 1;
  const int row = static_cast<int>(blockIdx.x);
  const int head = i / p.kv.head_dim;
  const int position = p.map.position[row];
  const int32_t* const block_table = p.lanes.BlockTable(p.map.lane[row], p.kv.group);
  const int64_t to = SlotOffset(p.kv, block_table, head, position) +
                     (is_v ? p.kv.value_offset : 0) + (i - head * p.kv.head_dim);
  const T* const from =
      static_cast<const T*>(is_v ? p.v.data : p.k.data) + int64_t{row} * p.k.width + i;
  float values[kCount];
  LoadFloats<T, kCount>(from, values);
  StoreFloats<Kv, kCount>(values, static_cast<Kv*>(p.kv.data) + to);
}

// The same in float8, whose scale is that of the whole vector: a warp a head of k or of v, twice
// through it. Grid: kRowThreads / 32 of them a block, through all of the first row, then of the next.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    WriteScaledKvKernel(const __grid_constant__ WriteKvParams p) {
  WaitForDependency();
  LaunchDependents();
  const int item = static_cast<int>((blockIdx.x * kRowThreads + threadIdx.x) / kWarp);
  const int row = item / (2 * p.kv.kv_heads);
  if (row >= p.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int vector = item - row * 2 * p.kv.kv_heads;
  const bool is_v = vector >= p.kv.kv_heads;
  const int head = is_v ? vector - p.kv.kv_heads : vector;
  const T* const from = static_cast<const T*>(is_v ? p.v.data : p.k.data) +
                        int64_t{row} * p.k.width + int64_t{head} * p.kv.head_dim;
  uint32_t largest = 0;
  for (int i = lane; i < p.kv.head_dim; i += kWarp) {
    largest = max(largest, MagnitudeBits(ToFloat(from[i])));
  }
  const uint8_t scale = KvScaleFor(WarpMax(largest));
  const float inverse = KvScaleInverse(scale);
  const int position = p.map.position[row];
  const int block =
      p.lanes.BlockTable(p.map.lane[row], p.kv.group)[position / p.kv.block_size];
  Float8* const to = static_cast<Float8*>(p.kv.data);
  Float8* const slot =
      to + OffsetInBlock(p.kv, block, head, position) + (is_v ? p.kv.value_offset : 0);
  for (int i = lane; i < p.kv.head_dim; i += kWarp) {
    slot[i] = ToFloat8(ToFloat(from[i]) * inverse);
  }
  if (lane == 0) StoreScale(p.kv, block, head, position, is_v, scale);
}

}  // namespace

cudaError_t LaunchBeginStep(const BeginStepParams& p, const LaunchContext& context) {
  return LaunchKernel(BeginStepKernel, dim3(1), dim3(kRowThreads), 0, context,
                      BeginStepWork{p, context.fault});
}

cudaError_t LaunchEmbed(const EmbedParams& p, const LaunchContext& context) {
  return WithType(p.table.dtype, [&](auto zero) {
    using T = decltype(zero);
    return WithCount<8>({p.table.cols}, {p.table.data, p.out.data}, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      const dim3 grid(static_cast<uint32_t>(p.rows), Blocks(p.table.cols, kRowThreads * kCount));
      return LaunchKernel(EmbedKernel<T, kCount>, grid, dim3(kRowThreads), 0, context, p);
    });
  });
}

cudaError_t LaunchRotary(const RotaryParams& p, const LaunchContext& context) {
  const int32_t half = p.table.dim / 2;
  if (half == 0) return cudaSuccess;  // nothing turns
  const int64_t pairs = int64_t{p.heads.width / p.head_dim} * half;
  return WithType(p.heads.dtype, [&](auto zero) {
    using T = decltype(zero);
    return WithCount<4>({p.head_dim, half}, {p.heads.data, p.table.cos_sin}, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      const dim3 grid(static_cast<uint32_t>(p.rows), Blocks(pairs, kRowThreads * kCount));
      return LaunchKernel(RotaryKernel<T, kCount>, grid, dim3(kRowThreads), 0, context, p);
    });
  });
}

cudaError_t LaunchWriteKv(const WriteKvParams& p, const LaunchContext& context) {
  return WithType(p.k.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (p.kv.dtype == DType::kFloat8) {
      const int64_t vectors = int64_t{p.rows} * 2 * p.kv.kv_heads;
      return LaunchKernel(WriteScaledKvKernel<T>, dim3(Blocks(vectors, kRowThreads / kWarp)),
                          dim3(kRowThreads), 0, context, p);
    }
    return WithType(p.kv.dtype, [&](auto kv_zero) {
      using Kv = decltype(kv_zero);
      return WithCount<8>({p.kv.head_dim, p.kv.block_stride, p.kv.value_offset},
                          {p.k.data, p.v.data, p.kv.data}, [&](auto count) {
                            constexpr int kCount = decltype(count)::value;
                            const dim3 grid(static_cast<uint32_t>(p.rows),
                                            Blocks(p.k.width, kRowThreads * kCount), 2);
                            return LaunchKernel(WriteKvKernel<T, Kv, kCount>, grid,
                                                dim3(kRowThreads), 0, context, p);
                          });
    });
  });
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
