// Whether the kernels of wide_world.cuh are right: against sums by one thread each, of sampled
// rows; nothing unwritten, nothing written beyond, and the same bits the second time.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels/cuda/epilogue.cuh"
#include "tests/bench/wide_world.cuh"

namespace sirocco {

struct CheckParams {
  WideProductParams p;
  const float* before;  // what out held, where sums are added
  const int* sample;    // rows
  int samples;
  unsigned* worst;    // the largest difference; float bits, which order as integers do
  unsigned* largest;  // the largest value
};

inline __device__ float PlainSum(const Rows& in, const Matrix& w, int row, int output) {
  const Element* const x = static_cast<const Element*>(in.data) + int64_t{row} * w.cols;
  const Element* const y = static_cast<const Element*>(w.data) + int64_t{output} * w.cols;
  float sum = 0;
  for (int k = 0; k < w.cols; ++k) sum = fmaf(__bfloat162float(x[k]), __bfloat162float(y[k]), sum);
  return sum;
}

// A thread an output of the sampled rows.
__global__ void CheckKernel(CheckParams c) {
  const WideProductParams& p = c.p;
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= int64_t{c.samples} * p.weight.rows) return;
  const int row = c.sample[i / p.weight.rows];
  const int output = static_cast<int>(i % p.weight.rows);
  const int64_t at = int64_t{row} * p.weight.rows + output;
  float want = PlainSum(p.in, p.weight, row, output) + (p.bias != nullptr ? p.bias[output] : 0);
  if (p.up.data != nullptr) {
    const float up =
        PlainSum(p.in, p.up, row, output) + (p.up_bias != nullptr ? p.up_bias[output] : 0);
    want = cuda::hopper::Activate(p.activation, want) * up;
  }
  if (p.add) want += c.before[at];
  float got = 0;
  if (p.out.dtype == DType::kFloat32) {
    for (int k = 0; k < p.parts; ++k) {
      got += static_cast<const float*>(p.out.data)[at + int64_t{k} * p.rows * p.weight.rows];
    }
  } else {
    got = __bfloat162float(static_cast<const Element*>(p.out.data)[at]);
  }
  const float difference = fabsf(got - want);
  atomicMax(c.worst, __float_as_uint(isnan(difference) ? 1e30f : difference));
  atomicMax(c.largest, __float_as_uint(fabsf(want)));
}

// Elements that are as they were before, of what should have been written; and those beyond it that
// are not. Whole elements: half of a float32 is all ones once in 65,536.
template <typename Bits>
__global__ void UnwrittenKernel(const Bits* out, int64_t count, int64_t all, unsigned* kept,
                                unsigned* spoilt) {
  constexpr Bits kBefore = static_cast<Bits>(~Bits{0});
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < all;
       i += int64_t{gridDim.x} * blockDim.x) {
    if (i < count && out[i] == kBefore) atomicAdd(kept, 1);
    if (i >= count && out[i] != kBefore) atomicAdd(spoilt, 1);
  }
}

struct Verdict {
  double error = 0;
  unsigned kept = 0, spoilt = 0;
  bool repeats = true;
  bool right(bool narrow) const {
    return error < (narrow ? 8e-3 : 2e-5) && kept == 0 && spoilt == 0 && repeats;
  }
};

inline Verdict Check(const Work& work, const WideProductParams& p, const Variant& variant,
                     int group, const LaunchContext& context) {
  std::vector<int> sample;
  for (int r : {0, 7, 8, 63, 64, 65, 127, 128, 191, 192, 255, 256, 383, 384, p.rows / 2, p.rows - 2,
                p.rows - 1}) {
    if (r >= 0 && r < p.rows) sample.push_back(r);
  }
  for (int i = 0; i < 15; ++i) sample.push_back(static_cast<int>((i * 7919ll + 31) % p.rows));
  int* const rows = static_cast<int*>(Allocate(sample.size() * 4));
  MUST(cudaMemcpy(rows, sample.data(), sample.size() * 4, cudaMemcpyHostToDevice));
  unsigned* const found = static_cast<unsigned*>(Allocate(16));
  const int64_t elements = int64_t{p.rows} * p.weight.rows * p.parts;
  const int64_t bytes = elements * BytesOf(p.out.dtype);
  float* const before = static_cast<float*>(Allocate(bytes));
  const auto begin = [&] {
    MUST(cudaMemset(work.out(), 0xff, work.out_bytes()));
    if (p.add) FillKernel<<<512, 256>>>(static_cast<float*>(work.out()), elements, 1.0f, 5);
  };
  begin();
  if (p.add) MUST(cudaMemcpy(before, work.out(), bytes, cudaMemcpyDeviceToDevice));
  MUST(cudaMemset(found, 0, 16));
  MUST(variant.launch(p, {.group = group}, context));
  MUST(cudaDeviceSynchronize());
  const int64_t count = int64_t(sample.size()) * p.weight.rows;
  CheckKernel<<<static_cast<unsigned>((count + 127) / 128), 128>>>(
      {p, before, rows, static_cast<int>(sample.size()), found, found + 1});
  const auto unwritten = [&](auto* out) {
    UnwrittenKernel<<<512, 256>>>(out, elements, work.out_bytes() / int64_t{sizeof(*out)},
                                  found + 2, found + 3);
  };
  if (p.out.dtype == DType::kFloat32) {
    unwritten(static_cast<const uint32_t*>(work.out()));
  } else {
    unwritten(static_cast<const uint16_t*>(work.out()));
  }
  MUST(cudaGetLastError());
  unsigned all[4];
  MUST(cudaMemcpy(all, found, 16, cudaMemcpyDeviceToHost));
  float worst, largest;
  std::memcpy(&worst, &all[0], 4);
  std::memcpy(&largest, &all[1], 4);
  Verdict verdict = {worst / largest, all[2], all[3], true};
  // Again: the same bits.
  std::vector<char> one(std::min<int64_t>(bytes, 8 << 20)), two(one.size());
  MUST(cudaMemcpy(one.data(), static_cast<char*>(work.out()) + bytes - one.size(), one.size(),
                  cudaMemcpyDeviceToHost));
  begin();
  MUST(variant.launch(p, {.group = group}, context));
  MUST(cudaMemcpy(two.data(), static_cast<char*>(work.out()) + bytes - one.size(), one.size(),
                  cudaMemcpyDeviceToHost));
  verdict.repeats = one == two;
  MUST(cudaFree(rows));
  MUST(cudaFree(found));
  MUST(cudaFree(before));
  return verdict;
}

// Each kernel at shapes that are ragged, long and short. Returns the program's status.
inline int CheckAll(const LaunchContext& context) {
  int wrong = 0;
  // Ragged: rows, outputs that are no multiple of a tile, inputs that are none of a stage.
  const Product products[] = {
      {"store", 1000, 1160, false, false, Activation::kSilu},
      {"store, long", 2056, 4096, false, false, Activation::kSilu},
      {"add", 1152, 1024, false, true, Activation::kSilu},
      {"add, long", 4096, 14336, false, true, Activation::kSilu},
      {"gate_up", 1000, 1160, true, false, Activation::kGeluTanh},
      {"gate_up, many", 14336, 512, true, false, Activation::kSilu},
      {"gate_up, short", 6912, 72, true, false, Activation::kGeluTanh},
  };
  for (const Product& product : products) {
    const Work work(product, 1100, 1);
    for (const Variant& variant : kVariants) {
      double worst = 0;
      for (const int rows : {1, 65, 128, 129, 192, 256, 300, 1030, 1100}) {
        for (const int parts : {1, 2, 4}) {
          if (parts > 1 && (!product.add || rows > 512)) continue;
          WideProductParams p = work.Params(rows, 0, parts, parts == 1 && rows % 2 == 0);
          const Verdict v = Check(work, p, variant, rows > 1000 ? 2 : 8, context);
          worst = std::max(worst, v.error);
          if (v.right(product.both)) continue;
          ++wrong;
          std::printf("WRONG %s %s rows %d parts %d: error %.2e, unwritten %u, beyond %u%s\n",
                      product.name, variant.name, rows, parts, v.error, v.kept, v.spoilt,
                      v.repeats ? "" : ", other bits the second time");
        }
      }
      std::printf("%-15s %s error %.1e\n", product.name, variant.name, worst);
      std::fflush(stdout);
    }
  }
  std::printf(wrong == 0 ? "all are right\n" : "%d WRONG\n", wrong);
  return wrong == 0 ? 0 : 1;
}

}  // namespace sirocco
