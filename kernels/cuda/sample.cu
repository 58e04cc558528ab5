// Sampling: three kernels, always launched; which of them works on a row is up to the row's lane.
//
//   PlainKernel     rows that are greedy or drawn at a temperature, without options and filters
//   AskedKernel     all other rows, those of beams with options among them
//   ScoreKernel     rows that ask for logprobs (score.cu), whoever chose their id
#include "kernels/cuda/arrive.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/sample_beam.cuh"
#include "kernels/cuda/sample_draw.cuh"
#include "kernels/cuda/sample_filter.cuh"
#include "kernels/cuda/sample_lane.cuh"
#include "kernels/cuda/sample_options.cuh"
#include "kernels/cuda/sample_row.cuh"
#include "kernels/cuda/score.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

// What a slice of a row comes to.
struct SliceBest {
  uint64_t rank;   // of its highest logit
  float estimate;  // of its highest score, with logits scaled from the slice's own highest one
};

struct SampleKernelParams {
  SampleParams op;
  SliceBest* slices;     // [R, slices]
  uint32_t* ngram_bits;  // [R, vocab / 32, rounded up]
  uint32_t* counters;    // [R]
  int32_t slice_count;
  int32_t parts;  // thread blocks a row
  bool aligned;   // rows of the logits, to four of them
  bool options_aligned;
};

__device__ __forceinline__ const float* LogitsOf(const SampleKernelParams& p, int32_t row) {
  return static_cast<const float*>(p.op.logits.data) + int64_t{row} * p.op.logits.width;
}

// ---- Plain rows ----------------------------------------------------------------------------

__device__ __forceinline__ SliceBest BestOfSlice(const SampleKernelParams& p, int32_t row,
                                                 int32_t slice, const Lane& lane, bool drawn) {
  const int32_t vocab = p.op.logits.width;
  float x[kSlicePacks][4];
  LoadSlice(LogitsOf(p, row), slice, vocab, p.aligned, x);
  SliceBest best = {};
#pragma unroll
  for (int j = 0; j < kSlicePacks; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      // Excluded() ranks below all logits.
      best.rank = max(best.rank, RankOf(x[j][e], PackId(slice, j) + e));
    }
  }
  best.rank = BlockMaxOf<kSliceThreads>(best.rank);
  if (!drawn) return best;

  const Gumbel gumbel(lane);
  const float highest = LogitOf(best.rank);
  float estimate = Excluded();
#pragma unroll
  for (int j = 0; j < kSlicePacks; ++j) {
    bool any = false;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      x[j][e] = (x[j][e] - highest) / lane.temperature;
      any = any || x[j][e] > kCannotWin;
    }
    if (!any) continue;
    const Gumbel::Words words = gumbel.WordsFrom(PackId(slice, j));
#pragma unroll
    for (int e = 0; e < 4; ++e) estimate = fmaxf(estimate, x[j][e] + Gumbel::Estimate(words[e]));
  }
  best.estimate = BlockMaxOf<kSliceThreads>(estimate);
  return best;
}

// A slice's estimate with logits scaled from the row's highest.
__device__ __forceinline__ float EstimateOf(const SliceBest& slice, float highest,
                                            float temperature) {
  return slice.estimate + (LogitOf(slice.rank) - highest) / temperature;
}

// The drawn id, once all slices are done: one or, once in a thousand, more slices whose estimates
// are near the highest are read again, and their near ids compared exactly.
__device__ __forceinline__ int32_t DrawFromSlices(const SampleKernelParams& p, int32_t row,
                                                  const Lane& lane, float highest) {
  __shared__ NearIds near_ids;
  __shared__ uint16_t near_slices[kMaxSlices];  // in any order
  __shared__ int32_t near_count;
  const SliceBest* slices = p.slices + int64_t{row} * p.slice_count;
  float estimate = Excluded();
  for (int32_t s = static_cast<int32_t>(threadIdx.x); s < p.slice_count; s += kSliceThreads) {
    estimate = fmaxf(estimate, EstimateOf(slices[s], highest, lane.temperature));
  }
  if (threadIdx.x == 0) {
    near_ids.count = 0;
    near_count = 0;
  }
  const float near = BlockMaxOf<kSliceThreads>(estimate) - kNearScore;
  for (int32_t s = static_cast<int32_t>(threadIdx.x); s < p.slice_count; s += kSliceThreads) {
    if (EstimateOf(slices[s], highest, lane.temperature) >= near) {
      near_slices[atomicAdd(&near_count, 1)] = static_cast<uint16_t>(s);
    }
  }
  __syncthreads();

  const Gumbel gumbel(lane);
  const int32_t count = near_count;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t slice = near_slices[i];
    float x[kSlicePacks][4];
    LoadSlice(LogitsOf(p, row), slice, p.op.logits.width, p.aligned, x);
#pragma unroll
    for (int j = 0; j < kSlicePacks; ++j) {
      const int32_t first = PackId(slice, j);
      const Gumbel::Words words = gumbel.WordsFrom(first);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (x[j][e] == Excluded()) continue;
        const float scaled = ScaledLogit(x[j][e], highest, lane.temperature);
        if (scaled + Gumbel::Estimate(words[e]) >= near) {
          near_ids.Add(scaled, words[e], first + e);
        }
      }
    }
  }
  return BestOfNear<kSliceThreads>(near_ids);
}

// Reads the logits once: R * vocab * 4 bytes; of drawn rows one slice of 16 KiB again.
// Grid: R * parts blocks of kSliceThreads; each takes every parts-th slice of its row, and the last
// of a row to arrive chooses. Blocks of rows that are not plain exit at once.
__global__ void __launch_bounds__(kSliceThreads)
    PlainKernel(const __grid_constant__ SampleKernelParams p) {
  WaitForDependency();
  LaunchDependents();
  const int32_t row = static_cast<int32_t>(blockIdx.x) / p.parts;
  const int32_t part = static_cast<int32_t>(blockIdx.x) % p.parts;
  const int32_t lane_index = p.op.row_lane[row];
  const Lane lane = p.op.lanes.lane[lane_index];
  const Asked asked = AskedOf(lane, p.op.logits.width);
  if (!asked.plain()) return;

  SliceBest* slices = p.slices + int64_t{row} * p.slice_count;
  for (int32_t slice = part; slice < p.slice_count; slice += p.parts) {
    const SliceBest best = BestOfSlice(p, row, slice, lane, asked.drawn);
    if (threadIdx.x == 0) slices[slice] = best;
  }
  if (!LastToArrive(&p.counters[row], static_cast<uint32_t>(p.parts))) return;

  uint64_t rank = 0;
  for (int32_t s = static_cast<int32_t>(threadIdx.x); s < p.slice_count; s += kSliceThreads) {
    rank = max(rank, slices[s].rank);
  }
  rank = BlockMaxOf<kSliceThreads>(rank);
  const int32_t id = asked.drawn ? DrawFromSlices(p, row, lane, LogitOf(rank)) : IdOf(rank);
  ReportId(&p.op.out[row], id);
  __syncthreads();  // nobody reads the lane any more
  if (threadIdx.x == 0) AdvanceLane(p.op.lanes, lane_index, id);
}

// ---- All others ----------------------------------------------------------------------------

__device__ __forceinline__ OptionRow OptionRowOf(const SampleKernelParams& p, int32_t row,
                                                 int32_t lane_index, const Lane& lane,
                                                 uint32_t options) {
  const Lanes& lanes = p.op.lanes;
  const int64_t at = int64_t{lane_index} * lanes.vocab_size;
  OptionRow read;
  read.logits = LogitsOf(p, row);
  read.bias = lanes.bias + at;
  read.counts = lanes.counts + at;
  read.token_flags = lanes.token_flags + at;
  read.ngram_bits = p.ngram_bits + row * CeilDiv(lanes.vocab_size, 32);
  read.vocab = lanes.vocab_size;
  read.aligned = p.options_aligned;
  read.options = options;
  read.repetition_penalty = lane.repetition_penalty;
  read.presence_penalty = lane.presence_penalty;
  read.frequency_penalty = lane.frequency_penalty;
  return read;
}

// A row of a beam with options: its id. Not inline, so that its registers do not crowd those of the
// other rows' way.
__device__ __noinline__ int32_t SampleBeam(const SampleKernelParams& p, int32_t row) {
  const int32_t lane_index = p.op.row_lane[row];
  const Lane& lane = p.op.lanes.lane[lane_index];
  float* const logits = static_cast<float*>(p.op.logits.data) + int64_t{row} * p.op.logits.width;
  ToLogprobs<kFilterThreads>(logits, p.op.logits.width, p.aligned);
  OptionRow options =
      OptionRowOf(p, row, lane_index, lane, AskedOf(lane, p.op.logits.width).options);
  if ((options.options & kLaneNgrams) != 0) {
    MarkNgrams<kFilterThreads>(options,
                               p.op.lanes.history + int64_t{lane_index} * p.op.lanes.max_length,
                               lane.length, lane.no_repeat_ngram);
  }
  return ReportBest<kFilterThreads>(options, logits, lane.top_logprobs, &p.op.out[row]);
}

// Reads a row's logits, and what its options need (13 bytes an id at most), once to find the
// highest, then for each filter once or twice, and where no list of 2,048 ids holds what they leave
// twice for the draw.
// Grid: R blocks of kFilterThreads; 35.3 KiB of shared memory. Blocks of plain rows exit at once.
__global__ void __launch_bounds__(kFilterThreads)
    AskedKernel(const __grid_constant__ SampleKernelParams p) {
  __shared__ FilterShared shared;
  WaitForDependency();
  LaunchDependents();
  const int32_t row = static_cast<int32_t>(blockIdx.x);
  const int32_t lane_index = p.op.row_lane[row];
  const Lane lane = p.op.lanes.lane[lane_index];
  const Asked asked = AskedOf(lane, p.op.logits.width);
  if (asked.plain()) return;

  if (asked.beam) {
    const int32_t id = SampleBeam(p, row);
    __syncthreads();  // nobody reads the lane any more
    if (threadIdx.x == 0) AdvanceLane(p.op.lanes, lane_index, id);
    return;
  }

  OptionRow options = OptionRowOf(p, row, lane_index, lane, asked.options);
  if ((asked.options & kLaneNgrams) != 0) {
    MarkNgrams<kFilterThreads>(options,
                               p.op.lanes.history + int64_t{lane_index} * p.op.lanes.max_length,
                               lane.length, lane.no_repeat_ngram);
  }
  const uint64_t highest = SettleOptions<kFilterThreads>(options);
  int32_t id = IdOf(highest);
  if (asked.drawn) {
    FilterRow scaled = {options, LogitOf(highest), lane.temperature, -1};
    id = DrawFiltered(scaled, lane, asked.filtered, shared);
  }
  ReportId(&p.op.out[row], id);
  __syncthreads();  // nobody reads the lane any more
  if (threadIdx.x == 0) AdvanceLane(p.op.lanes, lane_index, id);
}

// ---- Launching -----------------------------------------------------------------------------

struct SampleScratchParts {
  SliceBest* slices;
  uint32_t* ngram_bits;
  unsigned char* score;
  size_t bytes;
};

SampleScratchParts PartsOfScratch(const SampleParams& p, void* base) {
  ScratchParts parts(base);
  SampleScratchParts scratch;
  const int64_t rows = p.rows;
  scratch.slices = parts.Take<SliceBest>(rows * SlicesOf(p.logits.width));
  scratch.ngram_bits = parts.Take<uint32_t>(rows * CeilDiv(p.logits.width, 32));
  scratch.score =
      parts.Take<unsigned char>(static_cast<int64_t>(ScoreScratch(p.rows, p.logits.width)));
  scratch.bytes = parts.bytes();
  return scratch;
}

}  // namespace

size_t SampleScratch(const SampleParams& p) { return PartsOfScratch(p, nullptr).bytes; }

cudaError_t LaunchSample(const SampleParams& p, const LaunchContext& context) {
  if (p.rows > kCounters || p.logits.width > kMaxVocab) return cudaErrorNotSupported;
  const SampleScratchParts scratch = PartsOfScratch(p, context.scratch);
  SampleKernelParams kernel = {};
  kernel.op = p;
  kernel.slices = scratch.slices;
  kernel.ngram_bits = scratch.ngram_bits;
  kernel.counters = context.counters;
  kernel.slice_count = SlicesOf(p.logits.width);
  // Eight blocks are about what a multiprocessor holds at once.
  kernel.parts = PartsOf(p.rows, kernel.slice_count, int64_t{context.multiprocessors} * 8);
  kernel.aligned = p.logits.width % 4 == 0 && IsAligned(p.logits.data, 16);
  kernel.options_aligned = kernel.aligned && IsAligned(p.lanes.bias, 16) &&
                           IsAligned(p.lanes.counts, 16) && IsAligned(p.lanes.token_flags, 4);
  const dim3 plain_grid(static_cast<unsigned>(p.rows) * static_cast<unsigned>(kernel.parts));
  cudaError_t error =
      LaunchKernel(PlainKernel, plain_grid, dim3(kSliceThreads), 0, context, kernel);
  if (error != cudaSuccess) return error;
  error = LaunchKernel(AskedKernel, dim3(static_cast<unsigned>(p.rows)), dim3(kFilterThreads), 0,
                       context, kernel);
  if (error != cudaSuccess) return error;
  return LaunchScoreSampled(p, scratch.score, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
