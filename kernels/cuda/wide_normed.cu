// The kernel of wide_normed.h.
//
// A cluster of 16 blocks owns 64 rows: eight runs of 144 outputs by two halves of the inputs. All
// that a block multiplies finds room at once: its weights are asked for before WaitForDependency,
// the rows after it, a stage of 64 inputs by each of the eight blocks of a half for all of them.
// Then blocks of the same outputs exchange their sums, so that each ends 72 outputs; a block
// multiplies those that it gives away first, and they travel while it multiplies the others. What a
// row's norms need of the other blocks are sums of squares, two numbers a row. So no block waits
// for another cluster, and none need be there at once; delta is never written.
//
// Bytes: weights once a cluster, from the L2 cache but for the first; in, hidden, sum and normed
// once each. Grid: a cluster for 64 rows. 160 threads. Shared memory: 218 KiB.
#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/path.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/cuda/wide_normed.h"
#include "kernels/cuda/wide_ptx.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

constexpr int kHalves = 2;                      // of the inputs
constexpr int kRuns = kNormedBlocks / kHalves;  // of outputs
constexpr int kStages = kNormedInputs / kMapColumns / kHalves;
static_assert(kStages == kRuns);            // each stage's rows are one block's to copy
constexpr int kRowBytes = 2 * kMapColumns;  // of a stage
constexpr int kInBytes = kNormedRows * kRowBytes;
constexpr int kStageBytes = kInBytes + kNormedOutputs * kRowBytes;
constexpr int kSharedBytes = 1024 + kStages * kStageBytes;
constexpr int kBoxRows = 32;                      // of a copy
constexpr int kThreads = kWarpgroup + kWarp;      // that multiply, and that copy
constexpr int kEnded = kNormedOutputs / kHalves;  // outputs that a block ends
constexpr int kEights = kEnded / 8;
constexpr int kSums = kEnded / 2;  // a thread's
constexpr int kNorms = 2;          // of delta, of the sum
// Where the sums of an eight go: to the weights of outputs that are multiplied no more.
constexpr int kEightBytes = kWarpgroup * 4 * sizeof(float);
constexpr int kStageEights = kEnded * kRowBytes / kEightBytes;
static_assert(kEights <= kStages * kStageEights);

struct NormedArgs {
  CUtensorMap in, weight;
  const float* bias;
  const float* hidden;
  const float* post;
  const float* next;
  float* sum;
  void* normed;
  float epsilon;
  float of_one;  // 1 / outputs
  int32_t rows;
  int32_t outputs;
};

struct NormedShared {
  // What the blocks send each other, by block and the rows of four threads: row and row + 8.
  float2 squares[kNorms][kNormedBlocks][kNormedRows / 2];
  // Of the outputs that this block ends; beyond the last zeros.
  float bias[kEnded], post[kEnded], next[kEnded];
  uint64_t full[kStages];
  uint64_t squares_arrived[kNorms];
  uint64_t sums_arrived;
  uint64_t peer_has_room;  // for the sums that it gets
};

struct NormedPlace {
  int half, run, rank, cluster;
  __device__ NormedPlace()
      : half(static_cast<int>(blockIdx.x) % kNormedBlocks / kRuns),
        run(static_cast<int>(blockIdx.x) % kRuns),
        rank(static_cast<int>(blockIdx.x) % kNormedBlocks),
        cluster(static_cast<int>(blockIdx.x) / kNormedBlocks) {}
  __device__ __forceinline__ int FirstRow() const { return cluster * kNormedRows; }
  // Those that exist, up to whole copies.
  __device__ __forceinline__ int CopiedRows(int rows) const {
    return min((rows - FirstRow() + kBoxRows - 1) / kBoxRows * kBoxRows, kNormedRows);
  }
  // Of the block's outputs those that it ends are its half's, those that it gives away the other's.
  __device__ __forceinline__ int FirstEnded() const { return run * kNormedOutputs + half * kEnded; }
  __device__ __forceinline__ int FirstColumn() const { return half * kStages * kMapColumns; }
  __device__ __forceinline__ int Peer() const { return (1 - half) * kRuns + run; }
};

// ---- Copies, by one thread ----------------------------------------------------------------------

// The block's weights, to its own memory; zeros beyond the last input.
__device__ __forceinline__ void CopyWeights(const NormedArgs& p, const NormedPlace& place,
                                            unsigned char* ring, uint64_t* full) {
  const uint64_t policy = EvictNormalPolicy();
  const uint32_t bytes = (place.CopiedRows(p.rows) + kNormedOutputs) * kRowBytes;
#pragma unroll 1
  for (int i = 0; i < kStages; ++i) {
    ArriveExpecting(&full[i], bytes);
    CopyBox(ring + i * kStageBytes + kInBytes, p.weight, place.FirstColumn() + i * kMapColumns,
            place.run * kNormedOutputs, &full[i], policy);
  }
}

// One stage's rows, to all blocks that multiply them.
__device__ __forceinline__ void CopyRows(const NormedArgs& p, const NormedPlace& place,
                                         unsigned char* ring, uint64_t* full) {
  const int own = place.run;
  const uint16_t mask = static_cast<uint16_t>(((1u << kRuns) - 1) << (place.half * kRuns));
#pragma unroll 1
  for (int row = 0; row < place.CopiedRows(p.rows); row += kBoxRows) {
    CopyBoxToBlocks(ring + own * kStageBytes + row * kRowBytes, p.in,
                    place.FirstColumn() + own * kMapColumns, place.FirstRow() + row, &full[own],
                    mask, EvictNormalPolicy());
  }
}

// ---- Sums, by a warpgroup -----------------------------------------------------------------------

// Products of stage i with the half of the weights that begins at row `first`.
template <typename T>
__device__ __forceinline__ void MultiplyStage(const unsigned char* ring, int i, int first,
                                              float (&sums)[kSums]) {
  const uint64_t a = Operand(ring) + i * (kStageBytes / 16);
  const uint64_t b = Operand(ring + kInBytes + first * kRowBytes) + i * (kStageBytes / 16);
  BeginProducts();
#pragma unroll
  for (int k = 0; k < kMapColumns / 16; ++k) {
    MultiplyWide<T, kEnded>(sums, a + 2 * k, b + 2 * k, i > 0 || k > 0);
  }
  CommitProducts();
}

// Where this thread's sums of eight j stand in the memory of a block of that half.
__device__ __forceinline__ float* ReceivedAt(unsigned char* ring, int half, int j) {
  return reinterpret_cast<float*>(ring + j / kStageEights * kStageBytes + kInBytes +
                                  (1 - half) * kEnded * kRowBytes +
                                  j % kStageEights * kEightBytes) +
         4 * threadIdx.x;
}

// delta = the thread's rows and outputs, of all inputs. Both blocks add the halves alike.
template <typename T>
__device__ __forceinline__ void Multiply(const NormedPlace& place, unsigned char* ring,
                                         NormedShared& shared, float (&delta)[kSums]) {
  const int peer = place.Peer();
  float given[kSums] = {};
#pragma unroll
  for (int i = 0; i < kStages; ++i) {
    WaitBarrier(&shared.full[i], 0);
    MultiplyStage<T>(ring, i, (1 - place.half) * kEnded, given);
  }
  WaitForProducts<0>();
  Settle(given);
  if (threadIdx.x % kWarp == 0) ArriveAtBlock(&shared.peer_has_room, peer);
#pragma unroll
  for (int i = 0; i < kStages; ++i) {
    MultiplyStage<T>(ring, i, place.half * kEnded, delta);
    if (i == 0) WaitBarrier(&shared.peer_has_room, 0);
#pragma unroll
    for (int j = 2 * i; j < 2 * i + 2; ++j) {
      if (j >= kEights) break;
      const float four[4] = {given[4 * j], given[4 * j + 1], given[4 * j + 2], given[4 * j + 3]};
      StoreToBlock(four, ReceivedAt(ring, 1 - place.half, j), &shared.sums_arrived, peer);
    }
  }
  WaitForProducts<0>();
  Settle(delta);
  WaitBarrierOfCluster(&shared.sums_arrived, 0);
#pragma unroll
  for (int j = 0; j < kEights; ++j) {
    const float4 other = *reinterpret_cast<const float4*>(ReceivedAt(ring, place.half, j));
    float* const own = delta + 4 * j;
    own[0] += other.x, own[1] += other.y, own[2] += other.z, own[3] += other.w;
  }
}

// ---- Norms, by the same -------------------------------------------------------------------------

// Sums of squares of two rows, `own` being this thread's part: to all blocks, what this block has
// of them; then their sum over all blocks, always in the same order.
__device__ __forceinline__ void SendSquares(float2 own, int rank, NormedShared& shared, int norm) {
#pragma unroll
  for (int far = 1; far < 4; far *= 2) {
    own.x += __shfl_xor_sync(kAllLanes, own.x, far);
    own.y += __shfl_xor_sync(kAllLanes, own.y, far);
  }
  // Each of the four threads that have it now tells some of the blocks.
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < kNormedBlocks / 4; ++i) {
    StoreTwoToBlock(own, &shared.squares[norm][rank][thread / 4], &shared.squares_arrived[norm],
                    thread % 4 + i * 4);
  }
}
__device__ __forceinline__ float2 ReceiveSquares(NormedShared& shared, int norm) {
  WaitBarrierOfCluster(&shared.squares_arrived[norm], 0);
  float2 sum = {0, 0};
#pragma unroll
  for (int i = 0; i < kNormedBlocks; ++i) {
    const float2 part = shared.squares[norm][i][threadIdx.x / 4];
    sum.x += part.x;
    sum.y += part.y;
  }
  return sum;
}

template <typename T>
__device__ __forceinline__ void MultiplyAndNorm(const NormedArgs& p, const NormedPlace& place,
                                                unsigned char* ring, NormedShared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp;
  const int row = place.FirstRow() + thread / kWarp * 16 + lane / 4;
  const int first = place.FirstEnded();
  const int own = lane % 4 * 2;
  if (thread < kEnded) {
    const bool exists = first + thread < p.outputs;
    shared.bias[thread] = exists && p.bias != nullptr ? p.bias[first + thread] : 0;
    shared.post[thread] = exists && p.post != nullptr ? p.post[first + thread] : 0;
    shared.next[thread] = exists ? p.next[first + thread] : 0;
  }
  SyncNamed(1, kWarpgroup);
  WaitForDependency();

  // The thread's elements of eight j: two of row `row`, two of the row 8 further.
  const int eights = (p.outputs - first) / 8;
  const bool rows[2] = {row < p.rows, row + 8 < p.rows};
  const int64_t at = static_cast<int64_t>(row) * p.outputs + first + own;
  const int64_t between = int64_t{8} * p.outputs;
  const auto exists = [&](int j, int h) { return rows[h] && j < eights; };
  // On its way while products are made.
  float2 stream[kEights][2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float* const hidden = p.hidden + at + h * between;
#pragma unroll
    for (int j = 0; j < kEights; ++j) {
      stream[j][h] = exists(j, h) ? *reinterpret_cast<const float2*>(hidden + 8 * j) : float2{0, 0};
    }
  }
  float delta[kSums] = {};
  Multiply<T>(place, ring, shared, delta);

  const auto of_outputs = [&](const float* values, int j) {
    return *reinterpret_cast<const float2*>(values + 8 * j + own);
  };
  const auto inverse = [&](float squares) { return rsqrtf(fmaf(squares, p.of_one, p.epsilon)); };
  const bool post = p.post != nullptr;
  float2 squares = {0, 0};
#pragma unroll
  for (int j = 0; j < kEights; ++j) {
    const float2 bias = of_outputs(shared.bias, j);
    float* const d = delta + 4 * j;
    d[0] += bias.x, d[1] += bias.y, d[2] += bias.x, d[3] += bias.y;
    squares.x = fmaf(d[1], d[1], fmaf(d[0], d[0], squares.x));
    squares.y = fmaf(d[3], d[3], fmaf(d[2], d[2], squares.y));
  }
  float2 scale = {1, 1};
  if (post) {
    SendSquares(squares, place.rank, shared, 0);
    const float2 all = ReceiveSquares(shared, 0);
    scale = {inverse(all.x), inverse(all.y)};
  }
  squares = {0, 0};
#pragma unroll
  for (int j = 0; j < kEights; ++j) {
    const float2 by = post ? of_outputs(shared.post, j) : float2{1, 1};
    const float* const d = delta + 4 * j;
    float2& low = stream[j][0];
    float2& high = stream[j][1];
    low = {fmaf(__fmul_rn(d[0], scale.x), by.x, low.x),
           fmaf(__fmul_rn(d[1], scale.x), by.y, low.y)};
    high = {fmaf(__fmul_rn(d[2], scale.y), by.x, high.x),
            fmaf(__fmul_rn(d[3], scale.y), by.y, high.y)};
    squares.x = fmaf(low.y, low.y, fmaf(low.x, low.x, squares.x));
    squares.y = fmaf(high.y, high.y, fmaf(high.x, high.x, squares.y));
  }
  SendSquares(squares, place.rank, shared, 1);
  __syncwarp();  // nothing is stored before what others wait for is sent
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float* const sum = p.sum + at + h * between;
#pragma unroll
    for (int j = 0; j < kEights; ++j) {
      if (exists(j, h)) *reinterpret_cast<float2*>(sum + 8 * j) = stream[j][h];
    }
  }
  // All that others send to this block has come when this has: it may end.
  const float2 all = ReceiveSquares(shared, 1);
  scale = {inverse(all.x), inverse(all.y)};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    T* const normed = static_cast<T*>(p.normed) + at + h * between;
    const float of_row = h == 0 ? scale.x : scale.y;
#pragma unroll
    for (int j = 0; j < kEights; ++j) {
      const float2 by = of_outputs(shared.next, j);
      const Pack<T, 2> two = {{FromFloat<T>(stream[j][h].x * of_row * by.x),
                               FromFloat<T>(stream[j][h].y * of_row * by.y)}};
      if (exists(j, h)) StorePack(two, normed + 8 * j);
    }
  }
}

// ---- The kernel ---------------------------------------------------------------------------------

template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    WideNormedKernel(const __grid_constant__ NormedArgs p) {
  __shared__ NormedShared shared;
  unsigned char* const dynamic = DynamicShared();
  // The same place in every block of a cluster: what is static and what is not are alike in all.
  unsigned char* const ring = dynamic + (-SharedAddress(dynamic) & 1023);
  const NormedPlace place;
  const bool copies = threadIdx.x == kWarpgroup;
  if (copies) {
    PrefetchMap(p.weight);
    PrefetchMap(p.in);
    for (uint64_t& full : shared.full) InitBarrier(&full, 1);
    PublishBarriers();
  }
  if (threadIdx.x == 0) {
    for (uint64_t& arrived : shared.squares_arrived) InitBarrier(&arrived, 1);
    InitBarrier(&shared.sums_arrived, 1);
    InitBarrier(&shared.peer_has_room, kWarpgroup / kWarp);
    PublishBarriers();
    constexpr uint32_t kSquares = kNormedBlocks * kNormedRows * sizeof(float);
    for (uint64_t& arrived : shared.squares_arrived) ArriveExpecting(&arrived, kSquares);
    ArriveExpecting(&shared.sums_arrived, kWarpgroup * kSums * sizeof(float));
  }
  __syncthreads();
  ArriveClusterRelaxed();
  if (copies) {
    CopyWeights(p, place, ring, shared.full);
    LaunchDependents();
  }
  __syncwarp();
  // Others may copy and store to this block's memory and arrive at its barriers from here on.
  WaitCluster();
  if (threadIdx.x < kWarpgroup) {
    MultiplyAndNorm<T>(p, place, ring, shared);
  } else {
    WaitForDependency();
    if (copies) CopyRows(p, place, ring, shared.full);
  }
}

// Its shared memory, and its blocks a cluster, which are more than any GPU gives.
cudaError_t Allow(void (*kernel)(NormedArgs)) {
  const cudaError_t error = AllowShared(kernel, kSharedBytes);
  if (error != cudaSuccess) return error;
  return RaiseAttribute(reinterpret_cast<const void*>(kernel),
                        cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
}

template <typename T>
cudaError_t Launch(const WideNormedParams& p, const LaunchContext& context) {
  // Found while kernels are loaded, not while a stream is captured.
  static const EncodeTensor encode = FindEncodeTensor();
  if (encode == nullptr) return cudaErrorNotSupported;
  const auto kernel = WideNormedKernel<T>;
  cudaError_t error = Allow(kernel);
  if (error != cudaSuccess) return error;
  NormedArgs args = {};
  args.bias = p.bias;
  args.hidden = static_cast<const float*>(p.hidden.data);
  args.post = p.post;
  args.next = p.next;
  args.sum = static_cast<float*>(p.sum.data);
  args.normed = p.normed.data;
  args.epsilon = p.epsilon;
  args.of_one = 1.0f / static_cast<float>(p.weight.rows);
  args.rows = p.rows;
  args.outputs = p.weight.rows;
  if (!context.load_only) {
    error = DescribeMatrix(encode, p.in.data, p.in.dtype, p.rows, p.in.width, kBoxRows, args.in);
    if (error == cudaSuccess) {
      error = DescribeMatrix(encode, p.weight.data, p.weight.dtype, p.weight.rows, p.weight.cols,
                             kNormedOutputs, args.weight);
    }
    if (error != cudaSuccess) return error;
  }
  const unsigned blocks = static_cast<unsigned>(CeilDiv(p.rows, kNormedRows)) * kNormedBlocks;
  return LaunchClusters(kernel, dim3(blocks), dim3(kThreads), kNormedBlocks, kSharedBytes, context,
                        args);
}

}  // namespace

bool FitsWideNormed() {
  const auto kernel = WideNormedKernel<__nv_bfloat16>;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(kNormedBlocks);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  cudaLaunchAttribute dimension = {};
  dimension.id = cudaLaunchAttributeClusterDimension;
  dimension.val.clusterDim = {kNormedBlocks, 1, 1};
  config.attrs = &dimension;
  config.numAttrs = 1;
  int clusters = 0;
  const bool fits = Allow(kernel) == cudaSuccess &&
                    cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess &&
                    clusters > 0;
  cudaGetLastError();  // no later call finds it
  return fits;
}

cudaError_t LaunchWideNormed(const WideNormedParams& p, const LaunchContext& context) {
  return p.weight.dtype == DType::kBFloat16 ? Launch<__nv_bfloat16>(p, context)
                                            : Launch<__half>(p, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
