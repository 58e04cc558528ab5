// The products of the experts that were chosen, as a stream of their weights: gate and up with the
// activation, then down, then what rows add to the residual stream.
//
// Bytes: each chosen expert's weights once for up to 8 or 32 rows that chose it (ExpertWork), the
// activations from caches, each pair's outputs of down twice in float32 (from the L2 cache).
// Grids: one block a multiprocessor, or two, whatever was chosen; each takes one run of tasks, a
// warp one task at a time: 16 rows of an expert's weights (of gate and up eight each) by an item's
// pairs. The last kernel: 1,024 columns of a row a block. Shared memory: the block's items, 9 KiB;
// weights are on their way in registers, and the next task's before a task ends. The order of sums
// depends on the weights' shape alone. Measured on an H200, of one row with 8 experts of 768 by
// 2,048 2,840 GB/s, of 64 rows 3,990 (tests/bench/results/experts.md).
// Assumes: the hidden and the intermediate size are multiples of 16 bytes, and so are all pointers.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/expert_sums.cuh"
#include "kernels/cuda/expert_work.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kHalf = 8;  // rows of weights
// A block has tasks of so many items at most: where there are more, there are more blocks.
constexpr int kBlockItems = 64;
constexpr int kMostItemPairs = 4 * kExpertTileRows;

__device__ __forceinline__ int Group() { return static_cast<int>(threadIdx.x) % kWarp / 4; }

// activated[pair] = activation(x * gate^T) * (x * up^T), x the pair's row. A task's halves are the
// same eight outputs of both.
template <typename T>
class GateUpTasks {
 public:
  // Items are listed by the kernel before.
  static constexpr bool kItemsAreOld = false;

  __device__ GateUpTasks(const ExpertWork& work, const LayerParams& layer)
      : gate_(static_cast<const T*>(layer.gate.data)),
        up_(static_cast<const T*>(layer.up.data)),
        in_(static_cast<const T*>(work.p.normed.data)),
        out_(static_cast<T*>(work.p.activated.data)),
        width_(work.p.hidden.width),
        outputs_(work.p.layer.intermediate),
        a_row_(work.p.layer.experts_a_row),
        activation_(layer.activation) {}
  __device__ int tasks_an_item() const { return (outputs_ + kHalf - 1) / kHalf; }
  __device__ int columns() const { return width_; }
  // Row Group() of a half; one that is not there is another one.
  __device__ const T* Weights(int expert, int task, int half) const {
    const int output = min(task * kHalf + Group(), outputs_ - 1);
    return (half == 0 ? gate_ : up_) + (int64_t{expert} * outputs_ + output) * width_;
  }
  __device__ const T* In(int pair) const { return in_ + int64_t{pair / a_row_} * width_; }
  __device__ void End(int pair, int task, float gate, float up) const {
    const int output = task * kHalf + Group();
    if (output >= outputs_) return;
    out_[int64_t{pair} * outputs_ + output] = FromFloat<T>(Activate(activation_, gate) * up);
  }

 private:
  const T* gate_;
  const T* up_;
  const T* in_;
  T* out_;
  int width_, outputs_, a_row_;
  Activation activation_;
};

// products[pair] = activated[pair] * down^T. A task's second half follows the first.
template <typename T>
class DownTasks {
 public:
  // Items were listed before the kernel before began.
  static constexpr bool kItemsAreOld = true;

  __device__ DownTasks(const ExpertWork& work, const LayerParams& layer)
      : down_(static_cast<const T*>(layer.down.data)),
        in_(static_cast<const T*>(work.p.activated.data)),
        out_(work.products),
        inputs_(work.p.layer.intermediate),
        width_(work.p.hidden.width) {}
  __device__ int tasks_an_item() const { return (width_ + 2 * kHalf - 1) / (2 * kHalf); }
  __device__ int columns() const { return inputs_; }
  __device__ const T* Weights(int expert, int task, int half) const {
    const int output = min((2 * task + half) * kHalf + Group(), width_ - 1);
    return down_ + (int64_t{expert} * width_ + output) * inputs_;
  }
  __device__ const T* In(int pair) const { return in_ + int64_t{pair} * inputs_; }
  __device__ void End(int pair, int task, float low, float high) const {
    const int output = 2 * task * kHalf + Group();
    float* const to = out_ + int64_t{pair} * width_ + output;
    if (output < width_) to[0] = low;
    if (output + kHalf < width_) to[kHalf] = high;
  }

 private:
  const T* down_;
  const T* in_;
  float* out_;
  int inputs_, width_;
};

// The items that a block has tasks of. A pair that an item does not have is its last one.
struct BlockItems {
  ExpertItem items[kBlockItems];
  int pairs[kBlockItems][kMostItemPairs];
};

// A warp's weights on their way, kSteps steps of a task at a time.
template <typename T, typename Tasks, int kSteps>
class WeightCursor {
 public:
  using Batch = uint4[kSteps][2];

  // first_item: of `items`.
  __device__ WeightCursor(const Tasks& tasks, const BlockItems& items, int first_item, int task,
                          int end)
      : tasks_(tasks),
        items_(items),
        first_item_(first_item),
        task_(task),
        end_(end),
        chunks_(tasks.columns() / static_cast<int>(16 / sizeof(T))) {
    FindTask();
  }
  // Of 16 bytes, of a row.
  __device__ int chunks() const { return chunks_; }

  // Asks for the next steps, of the warp's next task where this one has no more.
  __device__ __forceinline__ void Ask(Batch& to) {
    if (task_ >= end_) return;
    const int chunk = done_ + static_cast<int>(threadIdx.x) % kStepChunks;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int at = chunk + s * kStepChunks;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        to[s][half] =
            LoadOnceInOrder16(reinterpret_cast<const uint4*>(from_[half]) + at, at < chunks_);
      }
    }
    done_ += kSteps * kStepChunks;
    if (done_ < chunks_) return;
    done_ = 0;
    task_ += kWarps;
    FindTask();
  }

 private:
  __device__ __forceinline__ void FindTask() {
    if (task_ >= end_) return;
    const int each = tasks_.tasks_an_item();
    const int item = task_ / each;
    const int expert = items_.items[item - first_item_].expert;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      from_[half] = tasks_.Weights(expert, task_ - item * each, half);
    }
  }

  const Tasks& tasks_;
  const BlockItems& items_;
  const int first_item_;
  int task_;
  const int end_;
  const int chunks_;
  int done_ = 0;  // of the task's chunks
  const T* from_[2] = {};
};

template <typename T, typename Tasks, int kTiles, int kSteps, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks)
    ExpertProductKernel(const __grid_constant__ ExpertWork work) {
  constexpr int kItemPairs = kTiles * kExpertTileRows;
  __shared__ BlockItems held;
  const Tasks tasks(work, LayerOf(work.p.layer));
  if constexpr (!Tasks::kItemsAreOld) {
    WaitForDependency();
    LaunchDependents();
  }
  const int each = tasks.tasks_an_item();
  const int64_t all = int64_t{__ldcg(work.item_count)} * each;
  const int first = static_cast<int>(all * blockIdx.x / gridDim.x);
  const int end = static_cast<int>(all * (blockIdx.x + 1) / gridDim.x);
  const int first_item = first / each;
  const int items = first < end ? (end - 1) / each - first_item + 1 : 0;
  for (int i = static_cast<int>(threadIdx.x); i < items; i += kThreads) {
    const ExpertItem& item = work.items[first_item + i];
    held.items[i] = {__ldcg(&item.expert), __ldcg(&item.first), __ldcg(&item.count)};
  }
  __syncthreads();
  int task = first + static_cast<int>(threadIdx.x) / kWarp;
  using Cursor = WeightCursor<T, Tasks, kSteps>;
  Cursor cursor(tasks, held, first_item, task, end);
  typename Cursor::Batch one, other;
  cursor.Ask(one);
  for (int i = static_cast<int>(threadIdx.x); i < items * kItemPairs; i += kThreads) {
    const ExpertItem& item = held.items[i / kItemPairs];
    held.pairs[i / kItemPairs][i % kItemPairs] =
        __ldcg(work.pairs + item.first + min(i % kItemPairs, item.count - 1));
  }
  if constexpr (Tasks::kItemsAreOld) {
    WaitForDependency();
    LaunchDependents();
  }
  __syncthreads();
  if (task >= end) return;

  ExpertSums<T, kTiles, kSteps> sums;
  int item = 0;
  const auto begin = [&] {
    item = task / each - first_item;
    sums.Begin(held.items[item].count, [&](int i) { return tasks.In(held.pairs[item][i]); });
  };
  int done = 0;
  // Multiplies what has come while more is on its way; false: it was the last.
  const auto turn = [&](const typename Cursor::Batch& come, typename Cursor::Batch& next) {
    const int chunk = done + static_cast<int>(threadIdx.x) % kStepChunks;
    sums.Ask(chunk, cursor.chunks());
    cursor.Ask(next);
    sums.Add(come, chunk, cursor.chunks());
    done += kSteps * kStepChunks;
    if (done < cursor.chunks()) return true;
    sums.Finish([&](int i, float low, float high) {
      if (i < held.items[item].count) {
        tasks.End(held.pairs[item][i], task - (first_item + item) * each, low, high);
      }
    });
    done = 0;
    task += kWarps;
    if (task >= end) return false;
    begin();
    return true;
  };
  begin();
  while (turn(one, other) && turn(other, one)) {
  }
}

// hidden[row] += the sum over its pairs, in their order, of share * product.
__global__ void __launch_bounds__(kThreads)
    ExpertResidualKernel(const __grid_constant__ ExpertWork work) {
  const ExpertsParams& p = work.p;
  WaitForDependency();
  LaunchDependents();
  const int width = p.hidden.width;
  const int a_row = p.layer.experts_a_row;
  const int blocks = (width + 4 * kThreads - 1) / (4 * kThreads);
  const int row = static_cast<int>(blockIdx.x) / blocks;
  const int column = (static_cast<int>(blockIdx.x) % blocks * kThreads + static_cast<int>(threadIdx.x)) * 4;
  if (column < width) {
    const float* const products = work.products + int64_t{row} * a_row * width + column;
    const float* const shares = p.shares + int64_t{row} * a_row;
    Pack<float, 4> sum = {};
#pragma unroll 8
    for (int i = 0; i < a_row; ++i) {
      const auto product = LoadPack<float, 4>(products + int64_t{i} * width);
      const float share = shares[i];
#pragma unroll
      for (int e = 0; e < 4; ++e) sum.at[e] += share * product.at[e];
    }
    float* const to = static_cast<float*>(p.hidden.data) + int64_t{row} * width + column;
    auto hidden = LoadPack<float, 4>(to);
#pragma unroll
    for (int e = 0; e < 4; ++e) hidden.at[e] += sum.at[e];
    StorePack(hidden, to);
  }
  AdvanceLayer(p.advance, work.counters, gridDim.x);
}

template <typename T, int kTiles, int kSteps, int kBlocks>
cudaError_t LaunchProducts(const ExpertWork& work, const LaunchContext& context) {
  const int64_t intermediate = work.p.layer.intermediate;
  const int64_t width = work.p.hidden.width;
  const auto launch = [&](auto kernel, int64_t tasks_an_item) {
    // Activations come from the L1 cache, which would else stay as small as the kernel before it,
    // a streamed product, asked for. (Of two blocks there would be room for one.)
    if constexpr (kBlocks == 1) {
      const cudaError_t preferred = RaiseAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributePreferredSharedMemoryCarveout,
                                                   cudaSharedmemCarveoutMaxL1);
      if (preferred != cudaSuccess) return preferred;
    }
    // Not more than have a task for each warp; the run of a block's tasks begins and ends within an
    // item.
    const int64_t most = CeilDiv(work.most_items * tasks_an_item, kWarps);
    const int64_t least = CeilDiv(work.most_items, kBlockItems - 2);
    const int64_t blocks =
        std::max(std::min<int64_t>(kBlocks * context.multiprocessors, most), least);
    return LaunchKernel(kernel, dim3(static_cast<uint32_t>(blocks)), dim3(kThreads), 0, context,
                        work);
  };
  const cudaError_t error = launch(ExpertProductKernel<T, GateUpTasks<T>, kTiles, kSteps, kBlocks>,
                                   CeilDiv(intermediate, kHalf));
  if (error != cudaSuccess) return error;
  return launch(ExpertProductKernel<T, DownTasks<T>, kTiles, kSteps, kBlocks>,
                CeilDiv(width, 2 * kHalf));
}

}  // namespace

cudaError_t LaunchExpertProducts(const ExpertWork& work, const LaunchContext& context) {
  const ExpertsParams& p = work.p;
  cudaError_t error = WithType(p.normed.dtype, [&](auto zero) {
    using T = decltype(zero);
    cudaError_t last = cudaSuccess;
    // All are loaded: steps of fewer rows have smaller items.
    if (context.load_only || work.item_pairs == kExpertTileRows) {
      last = LaunchProducts<T, 1, 6, 1>(work, context);
    }
    if constexpr (!std::is_same_v<T, float>) {
      if (last == cudaSuccess && (context.load_only || work.item_pairs > kExpertTileRows)) {
        last = LaunchProducts<T, 4, 2, 2>(work, context);
      }
    }
    return last;
  });
  if (error != cudaSuccess) return error;
  const int64_t blocks = p.rows * CeilDiv(p.hidden.width, 4 * kThreads);
  return LaunchKernel(ExpertResidualKernel, dim3(static_cast<uint32_t>(blocks)), dim3(kThreads), 0,
                      context, work);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
