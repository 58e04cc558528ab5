// Logprobs, ranks and the most probable ids of rows: of sampled ids whose lanes ask, and of given
// ones.
#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/sample_row.cuh"
#include "kernels/cuda/score.cuh"
#include "kernels/cuda/score_top.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// The mass of a slice: the sum of exp(logit - highest).
struct SliceMass {
  double mass;
  float highest;
};

// What one block of a row has found; nothing here depends on which slices were its.
struct PartScore {
  int32_t better;  // ids before the scored one
  uint64_t top[kMaxTopLogprobs];
};

struct ScoreScratchParts {
  SliceMass* masses;  // [R, slices]
  PartScore* found;   // [R, slices], of which `parts` a row are used
  size_t bytes;
};

ScoreScratchParts PartsOfScratch(int32_t rows, int32_t vocab, void* base) {
  ScratchParts parts(base);
  ScoreScratchParts scratch;
  const int64_t slices = int64_t{rows} * SlicesOf(vocab);
  scratch.masses = parts.Take<SliceMass>(slices);
  scratch.found = parts.Take<PartScore>(slices);
  scratch.bytes = parts.bytes();
  return scratch;
}

template <typename Op>
struct ScoreKernelParams {
  Op op;
  ScoreScratchParts scratch;
  uint32_t* counters;  // [R]
  int32_t slice_count;
  int32_t parts;  // thread blocks a row
  bool aligned;   // rows of the logits, to four of them
};

// What is to be scored in a row.
struct Scored {
  bool asked;
  int32_t id;
  int32_t top;
};

__device__ __forceinline__ Scored ScoredOf(const SampleParams& p, int32_t row) {
  const Lane& lane = p.lanes.lane[p.row_lane[row]];
  return {(lane.flags & kLaneLogprobs) != 0, p.out[row].token_id, lane.top_logprobs};
}

__device__ __forceinline__ Scored ScoredOf(const ScoreTokensParams& p, int32_t row) {
  const int64_t history = int64_t{p.map.lane[row]} * p.lanes.max_length;
  return {true, p.lanes.history[history + p.map.position[row] + 1], p.top};
}

// The same bits for the same x, whatever the block: warps by halving, then in order.
__device__ __forceinline__ double BlockSumOf(double x) {
  __shared__ double sums[kSliceWarps];
  x = WarpSum(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kSliceWarps; ++i) sum += sums[i];
  return sum;
}

__device__ __forceinline__ int32_t BlockSumOf(int32_t x) {
  __shared__ int32_t sum;
  __syncthreads();
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  if (x != 0) atomicAdd(&sum, x);
  __syncthreads();
  return sum;
}

// Adds a slice to what the block has found.
__device__ __forceinline__ void ScoreSlice(const float* logits, int32_t vocab, bool aligned,
                                           int32_t slice, uint64_t scored, int32_t wanted,
                                           int32_t& better, SliceMass* out, TopShared& top) {
  float x[kSlicePacks][4];
  LoadSlice(logits, slice, vocab, aligned, x);
  uint64_t ranks[kSlicePacks * 4];
  float highest = Excluded();
#pragma unroll
  for (int j = 0; j < kSlicePacks; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const uint64_t rank = x[j][e] == Excluded() ? 0 : RankOf(x[j][e], PackId(slice, j) + e);
      ranks[j * 4 + e] = rank;
      if (rank > scored) ++better;
      highest = fmaxf(highest, x[j][e]);
    }
  }
  highest = BlockMaxOf<kSliceThreads>(highest);
  double mass = 0;
#pragma unroll
  for (int j = 0; j < kSlicePacks; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) mass += static_cast<double>(expf(x[j][e] - highest));
  }
  mass = BlockSumOf(mass);
  if (threadIdx.x == 0) *out = {mass, highest};
  if (wanted > 0) TakeTop(ranks, wanted, top);
}

// The logarithm of the row's mass.
__device__ __forceinline__ double LogMass(const SliceMass* masses, int32_t slice_count) {
  float highest = Excluded();
  for (int32_t s = static_cast<int32_t>(threadIdx.x); s < slice_count; s += kSliceThreads) {
    highest = fmaxf(highest, masses[s].highest);
  }
  highest = BlockMaxOf<kSliceThreads>(highest);
  double mass = 0;
  for (int32_t s = static_cast<int32_t>(threadIdx.x); s < slice_count; s += kSliceThreads) {
    mass += masses[s].mass * exp(static_cast<double>(masses[s].highest) - highest);
  }
  return highest + log(BlockSumOf(mass));
}

__device__ __forceinline__ float Logprob(float logit, double log_mass) {
  return static_cast<float>(fmax(logit - log_mass, -static_cast<double>(kLargestFloat)));
}

// Merges the lists of a row's parts.
__device__ __forceinline__ void MergeTop(const PartScore* found, int32_t parts, int32_t wanted,
                                         TopShared& top) {
  constexpr int kRanks = 8;
  const int32_t count = parts * kMaxTopLogprobs;
  ClearTop(top);
  for (int32_t begin = 0; begin < count; begin += kSliceThreads * kRanks) {
    uint64_t ranks[kRanks];
#pragma unroll
    for (int i = 0; i < kRanks; ++i) {
      const int32_t at = begin + i * kSliceThreads + static_cast<int32_t>(threadIdx.x);
      const int32_t place = at % kMaxTopLogprobs;
      ranks[i] = at < count && place < wanted ? found[at / kMaxTopLogprobs].top[place] : 0;
    }
    TakeTop(ranks, wanted, top);
  }
}

// Reads the logits once: R * vocab * 4 bytes.
// Grid: R * parts blocks of kSliceThreads; each takes every parts-th slice of its row, and the last
// of a row to arrive merges. Blocks of rows that do not ask exit at once.
template <typename Op>
__global__ void __launch_bounds__(kSliceThreads)
    ScoreKernel(const __grid_constant__ ScoreKernelParams<Op> p) {
  __shared__ TopShared top;
  WaitForDependency();
  LaunchDependents();
  const int32_t row = static_cast<int32_t>(blockIdx.x) / p.parts;
  const int32_t part = static_cast<int32_t>(blockIdx.x) % p.parts;
  const Scored scored = ScoredOf(p.op, row);
  if (!scored.asked) return;

  const int32_t vocab = p.op.logits.width;
  const float* logits = static_cast<const float*>(p.op.logits.data) + int64_t{row} * vocab;
  const float logit = Clamped(logits[scored.id]);
  const uint64_t rank = RankOf(logit, scored.id);
  const int32_t wanted = max(0, min(scored.top, min(kMaxTopLogprobs, vocab)));
  SliceMass* masses = p.scratch.masses + int64_t{row} * p.slice_count;
  PartScore* found = p.scratch.found + int64_t{row} * p.slice_count;
  int32_t better = 0;
  ClearTop(top);
  for (int32_t slice = part; slice < p.slice_count; slice += p.parts) {
    ScoreSlice(logits, vocab, p.aligned, slice, rank, wanted, better, &masses[slice], top);
  }
  better = BlockSumOf(better);
  if (threadIdx.x == 0) {
    found[part].better = better;
    for (int32_t i = 0; i < wanted; ++i) found[part].top[i] = top.list[kSliceWarps][i];
  }
  if (!LastToArrive(&p.counters[row], static_cast<uint32_t>(p.parts))) return;

  const double log_mass = LogMass(masses, p.slice_count);
  better = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < p.parts; i += kSliceThreads) {
    better += found[i].better;
  }
  better = BlockSumOf(better);
  if (wanted > 0) MergeTop(found, p.parts, wanted, top);
  TokenScore* out = &p.op.out[row];
  if (threadIdx.x == 0) {
    out->token_id = scored.id;
    out->logprob = Logprob(logit, log_mass);
    out->rank = better + 1;
    out->top_count = wanted;
  }
  const int32_t place = static_cast<int32_t>(threadIdx.x);
  if (place < kMaxTopLogprobs) {
    const uint64_t at = place < wanted ? top.list[kSliceWarps][place] : 0;
    out->top_ids[place] = place < wanted ? IdOf(at) : 0;
    out->top_logprobs[place] = place < wanted ? Logprob(LogitOf(at), log_mass) : 0;
  }
}

template <typename Op>
cudaError_t LaunchScore(const Op& p, void* scratch, const LaunchContext& context) {
  const int32_t vocab = p.logits.width;
  if (p.rows > kCounters || vocab > kMaxVocab) return cudaErrorNotSupported;
  ScoreKernelParams<Op> kernel = {};
  kernel.op = p;
  kernel.scratch = PartsOfScratch(p.rows, vocab, scratch);
  kernel.counters = context.counters;
  kernel.slice_count = SlicesOf(vocab);
  // Few blocks, since most have nothing to do in a step whose rows do not ask.
  kernel.parts = PartsOf(p.rows, kernel.slice_count, int64_t{context.multiprocessors} * 2);
  kernel.aligned = vocab % 4 == 0 && IsAligned(p.logits.data, 16);
  const dim3 grid(static_cast<unsigned>(p.rows) * static_cast<unsigned>(kernel.parts));
  return LaunchKernel(ScoreKernel<Op>, grid, dim3(kSliceThreads), 0, context, kernel);
}

}  // namespace

size_t ScoreScratch(int32_t rows, int32_t vocab) {
  return PartsOfScratch(rows, vocab, nullptr).bytes;
}

cudaError_t LaunchScoreSampled(const SampleParams& p, void* scratch, const LaunchContext& context) {
  return LaunchScore(p, scratch, context);
}

size_t ScoreTokensScratch(const ScoreTokensParams& p) {
  return ScoreScratch(p.rows, p.logits.width);
}

cudaError_t LaunchScoreTokens(const ScoreTokensParams& p, const LaunchContext& context) {
  return LaunchScore(p, context.scratch, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
