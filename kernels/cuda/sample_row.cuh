// What the kernels of sampling and scoring share: reading a row of logits, the order of its ids,
// block-wide maxima.
//
// A row is read in *slices* of kSlice ids, the same whatever the number of rows and of thread
// blocks: what is summed in floating point is summed a slice at a time, then over the slices in
// order.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// Ids fit in 22 bits of a key (sample_filter.cuh).
inline constexpr int kIdBits = 22;
inline constexpr int32_t kMaxVocab = 1 << kIdBits;

// A block of kSliceThreads reads a slice: pack j of thread t begins at id
// (j * kSliceThreads + t) * 4 of the slice.
inline constexpr int kSliceThreads = 256;
inline constexpr int kSlicePacks = 4;
inline constexpr int32_t kSlice = kSliceThreads * kSlicePacks * 4;
inline constexpr int kMaxSlices = kMaxVocab / kSlice;

inline int32_t SlicesOf(int32_t vocab) { return static_cast<int32_t>(CeilDiv(vocab, kSlice)); }

// Thread blocks a row for about `wanted` in all; each reads every parts-th slice of its row.
inline int32_t PartsOf(int32_t rows, int32_t slices, int64_t wanted) {
  const int64_t parts = wanted < rows ? 1 : CeilDiv(wanted, rows);
  return static_cast<int32_t>(parts < slices ? parts : slices);
}

inline constexpr float kLargestFloat = 3.402823466e38f;

__device__ __forceinline__ float Excluded() { return __int_as_float(0xff800000); }  // -inf

// Into the finite range, so that only filters exclude an id; a NaN to its lowest.
__device__ __forceinline__ float Clamped(float x) {
  if (!(x >= -kLargestFloat)) return -kLargestFloat;
  return x <= kLargestFloat ? x : kLargestFloat;
}

// ---- Order ---------------------------------------------------------------------------------

// Unsigned integers in the order of the floats, 0 below them all. -0 and 0 are one.
__device__ __forceinline__ uint32_t OrderOf(float x) {
  const uint32_t bits = x == 0 ? 0 : __float_as_uint(x);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ uint64_t OrderOf(double x) {
  const uint64_t bits = x == 0 ? 0 : static_cast<uint64_t>(__double_as_longlong(x));
  return (bits >> 63) != 0 ? ~bits : bits | (uint64_t{1} << 63);
}

// Higher: chosen first. Of equal logits the lower id. 0 is below all.
__device__ __forceinline__ uint64_t RankOf(float logit, int32_t id) {
  return (uint64_t{OrderOf(logit)} << 32) | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ int32_t IdOf(uint64_t rank) {
  return static_cast<int32_t>(~static_cast<uint32_t>(rank));
}
__device__ __forceinline__ float LogitOf(uint64_t rank) {
  const uint32_t order = static_cast<uint32_t>(rank >> 32);
  return __uint_as_float((order >> 31) != 0 ? order & 0x7fffffffu : ~order);
}

// The highest over the block's kThreads threads, for all of them. Synchronises the block before and
// after it uses its shared memory.
template <int kThreads, typename V>
__device__ __forceinline__ V BlockMaxOf(V x) {
  constexpr int kWarps = kThreads / kWarp;
  __shared__ V highest[kWarps];
  x = WarpMax(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) highest[threadIdx.x / kWarp] = x;
  __syncthreads();
  return WarpMax(highest[threadIdx.x % kWarps]);
}

// ---- Reading -------------------------------------------------------------------------------

// Four values from `first`, a multiple of 4; those from `count` on are `missing`. `aligned`: every
// such address is a multiple of four values.
template <typename T>
__device__ __forceinline__ Pack<T, 4> LoadFour(const T* from, int32_t first, int32_t count,
                                               bool aligned, T missing) {
  if (aligned && first + 4 <= count) return LoadPack<T, 4>(from + first);
  Pack<T, 4> pack;
#pragma unroll
  for (int e = 0; e < 4; ++e) pack.at[e] = first + e < count ? from[first + e] : missing;
  return pack;
}

__device__ __forceinline__ int32_t PackId(int32_t slice, int pack) {
  return slice * kSlice + (pack * kSliceThreads + static_cast<int32_t>(threadIdx.x)) * 4;
}

// This thread's clamped logits of a slice; Excluded() where there is no id.
__device__ __forceinline__ void LoadSlice(const float* logits, int32_t slice, int32_t vocab,
                                          bool aligned, float (&x)[kSlicePacks][4]) {
  Pack<float, 4> raw[kSlicePacks];
#pragma unroll
  for (int j = 0; j < kSlicePacks; ++j) {
    raw[j] = LoadFour(logits, PackId(slice, j), vocab, aligned, 0.0f);
  }
#pragma unroll
  for (int j = 0; j < kSlicePacks; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      x[j][e] = PackId(slice, j) + e < vocab ? Clamped(raw[j].at[e]) : Excluded();
    }
  }
}

// ---- Host ----------------------------------------------------------------------------------

// Parts of a scratch: hands out what is aligned to 256 bytes, and counts.
class ScratchParts {
 public:
  explicit ScratchParts(void* base) : base_(static_cast<unsigned char*>(base)) {}
  template <typename T>
  T* Take(int64_t count) {
    T* part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += static_cast<size_t>(CeilDiv(count * static_cast<int64_t>(sizeof(T)), 256) * 256);
    return part;
  }
  size_t bytes() const { return bytes_; }

 private:
  unsigned char* base_;
  size_t bytes_ = 0;
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
