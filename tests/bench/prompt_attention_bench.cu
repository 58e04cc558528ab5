// Attention of prompts alone (wgmma_prefill.cuh) at llama3.1-8b's heads, bfloat16: whether it is right, and
// the share of the matrix units' rate that it gets. Needs no Bazel, from the repository's root:
//
//   nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -DSIROCCO_HOPPER=1 --expt-relaxed-constexpr -I.
//     tests/bench/prompt_attention_bench.cu kernels/cuda/prefill_attention.cu kernels/cuda/kernel_attributes.cc
//     -o prompt_attention_bench
//
// Blocks of 16 slots stand in random order, each launch is of another layer. FLOPs are those of the
// slots that rows see.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "tests/bench/graph_time.cuh"
#include "tests/bench/stream_world.cuh"

namespace sirocco {

// Kernels to be compared; others may be linked in.
#ifndef PROMPT_VARIANTS
#define PROMPT_VARIANTS {"", cuda::SIROCCO_CUDA_PATH::LaunchPrefillAttention}
#endif
#ifdef PROMPT_DECLARATIONS
PROMPT_DECLARATIONS
#endif

namespace {

struct Variant {
  const char* name;
  cudaError_t (*launch)(const PrefillAttentionParams&, const LaunchContext&);
};
constexpr Variant kVariants[] = {PROMPT_VARIANTS};

constexpr int kHeads = 32, kKvHeads = 8, kDim = 128, kBlockSize = 16;

struct Prompts {
  const char* name;
  int count, length, first;  // of each the rows first ... length - 1
};
constexpr Prompts kPrompts[] = {
    {"1 of 4,096", 1, 4096, 0}, {"8 of 1,024", 8, 1024, 0}, {"last 2,048 of 4,096", 1, 4096, 2048}};

template <typename T>
T* Upload(const std::vector<T>& from) {
  T* const to = Allocate<T>(from.size());
  MUST(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  return to;
}

std::vector<__nv_bfloat16> Normal(size_t count, std::mt19937& random) {
  std::vector<__nv_bfloat16> x(count);
  // Of few, in another order: the generator is slow.
  std::vector<__nv_bfloat16> few(1 << 20);
  for (auto& y : few) y = __float2bfloat16_rn(std::normal_distribution<float>()(random));
  for (size_t i = 0; i < count; ++i) x[i] = few[(i * 2654435761u >> 7) & (few.size() - 1)];
  return x;
}

class World {
 public:
  explicit World(const Prompts& prompts) : prompts_(prompts) {
    std::mt19937 random(7);
    const int rows = prompts.count * (prompts.length - prompts.first);
    blocks_ = prompts.length / kBlockSize;
    const int blocks = prompts.count * blocks_;
    table_.resize(blocks);
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), random);
    kv_ = Normal(size_t(blocks) * kLayers * kLayerElements, random);
    q_ = Normal(size_t(rows) * kHeads * kDim, random);
    std::vector<PrefillSegment> segments;
    for (int i = 0; i < prompts.count; ++i) {
      const int count = prompts.length - prompts.first;
      segments.push_back({i, i * count, prompts.first, count});
    }
    p_.rows = rows;
    p_.lanes.block_table = Upload(table_);
    p_.lanes.max_lanes = prompts.count;
    p_.lanes.max_length = prompts.length;
    p_.lanes.groups = 1;
    p_.lanes.max_blocks = blocks_;
    p_.segments = Upload(segments);
    p_.segment_count = Upload(std::vector<int32_t>{prompts.count});
    p_.q = {Upload(q_), DType::kBFloat16, kHeads * kDim};
    p_.shape.heads = kHeads;
    p_.shape.scale = 1 / std::sqrt(float{kDim});
    p_.kv.data = Upload(kv_);
    p_.kv.dtype = DType::kBFloat16;
    p_.kv.block_stride = int64_t{kLayers} * kLayerElements;
    p_.kv.value_offset = kLayerElements / 2;
    p_.kv.block_size = kBlockSize;
    p_.kv.kv_heads = kKvHeads;
    p_.kv.head_dim = kDim;
    p_.out = {Allocate<__nv_bfloat16>(q_.size()), DType::kBFloat16, kHeads * kDim};
  }
  ~World() {
    for (const void* data : {static_cast<const void*>(p_.lanes.block_table), static_cast<const void*>(p_.segments),
                             static_cast<const void*>(p_.segment_count), static_cast<const void*>(p_.q.data),
                             static_cast<const void*>(p_.kv.data), static_cast<const void*>(p_.out.data)}) {
      MUST(cudaFree(const_cast<void*>(data)));
    }
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  static constexpr int kLayers = 4;

  double Flop() const {
    double slots = 0;
    for (int position = prompts_.first; position < prompts_.length; ++position) slots += position + 1;
    return 4.0 * prompts_.count * slots * kHeads * kDim;
  }
  void Launch(const Variant& variant, int layer, const LaunchContext& context) const {
    PrefillAttentionParams p = p_;
    p.kv.data = static_cast<__nv_bfloat16*>(p.kv.data) + int64_t{layer} * kLayerElements;
    MUST(variant.launch(p, context));
  }
  // The largest difference from double precision, of the largest value, over some rows; -1: two runs differed,
  // -2: something was not written.
  double Check(const Variant& variant, const LaunchContext& context) const {
    const auto run = [&] {
      std::vector<__nv_bfloat16> out(q_.size());
      MUST(cudaMemset(p_.out.data, 0xff, out.size() * 2));
      Launch(variant, 1, context);
      MUST(cudaDeviceSynchronize());
      MUST(cudaMemcpy(out.data(), p_.out.data, out.size() * 2, cudaMemcpyDeviceToHost));
      return out;
    };
    const std::vector<__nv_bfloat16> out = run(), again = run();
    if (std::memcmp(out.data(), again.data(), out.size() * 2) != 0) return -1;
    for (const __nv_bfloat16& x : out) {
      if (!std::isfinite(__bfloat162float(x))) return -2;
    }
    double worst = 0;
    for (const int row : {0, 1, 63, 64, 127, 128, 200, 777, p_.rows / 2, p_.rows - 1}) {
      for (const int head : {0, 5, kHeads - 1}) {
        const double off = RowError(row, head, out);
        if (!(off <= worst)) worst = off;
      }
    }
    return worst;
  }

 private:
  static constexpr int64_t kLayerElements = int64_t{2} * kKvHeads * kBlockSize * kDim;

  double RowError(int row, int head, const std::vector<__nv_bfloat16>& out) const {
    const int count = prompts_.length - prompts_.first;
    const int lane = row / count, position = prompts_.first + row % count;
    const __nv_bfloat16* const q = &q_[(int64_t{row} * kHeads + head) * kDim];
    std::vector<double> want(kDim);
    double sum = 0;
    for (int slot = 0; slot <= position; ++slot) {
      const int64_t block = table_[lane * blocks_ + slot / kBlockSize];
      const int64_t at = (block * kLayers + 1) * kLayerElements +
                         (int64_t{head / (kHeads / kKvHeads)} * kBlockSize + slot % kBlockSize) * kDim;
      const __nv_bfloat16 *const k = &kv_[at], *const v = &kv_[at + kLayerElements / 2];
      double product = 0;
      for (int d = 0; d < kDim; ++d) product += double{__bfloat162float(q[d])} * __bfloat162float(k[d]);
      const double weight = std::exp(product * p_.shape.scale);
      sum += weight;
      for (int d = 0; d < kDim; ++d) want[d] += weight * __bfloat162float(v[d]);
    }
    double largest = 0, off = 0;
    for (int d = 0; d < kDim; ++d) {
      largest = std::max(largest, std::abs(want[d] / sum));
      off = std::max(off, std::abs(want[d] / sum - __bfloat162float(out[(int64_t{row} * kHeads + head) * kDim + d])));
    }
    return off / largest;
  }

  Prompts prompts_;
  int blocks_;
  std::vector<int32_t> table_;
  std::vector<__nv_bfloat16> kv_, q_;
  PrefillAttentionParams p_;
};

int Main() {
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  LaunchContext context;
  MUST(cudaStreamCreate(&context.stream));
  context.multiprocessors = properties.multiProcessorCount;
  context.counters = Allocate<uint32_t>(cuda::kCounters);
  std::printf("%s, %d multiprocessors\n", properties.name, context.multiprocessors);
  bool right = true;
  for (const Prompts& prompts : kPrompts) {
    const World world(prompts);
    for (const Variant& variant : kVariants) {
      const double off = world.Check(variant, context);
      const bool fits = off >= 0 && off < 2e-2;
      right = right && fits;
      const double us = GraphMicroseconds(context.stream, [&] {
                          for (int i = 0; i < World::kLayers; ++i) world.Launch(variant, i, context);
                        }) /
                        World::kLayers;
      std::printf("%-20s %-24s %7.1f us %4.0f TFLOP/s off %.0e%s\n", prompts.name, variant.name, us,
                  world.Flop() / us / 1e6, off, fits ? "" : " WRONG");
      std::fflush(stdout);
    }
  }
  return right ? 0 : 1;
}

}  // namespace
}  // namespace sirocco

int main() { return sirocco::Main(); }
