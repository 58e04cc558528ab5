// Whether products by panels (kernels/cuda/panel_product.h) give a row the same bits among any
// number of rows, and what they take: the shapes of three models, bfloat16, weights read cold.
//
//   bazel build --config=opt --config=cuda //tests/bench:order_bench
//   or nvcc -std=c++20 -O2 --expt-relaxed-constexpr -arch=sm_90a -DSIROCCO_HOPPER=1 -I.
//     -o order_bench tests/bench/order_bench.cu kernels/cuda/panel_product.cu
//     kernels/cuda/panel_maps.cc kernels/cuda/kernel_attributes.cc
//   order_bench [part of a model's name]
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/panel_product.h"

namespace sirocco {
namespace {

using cuda::PanelProductParams;

void Must(cudaError_t error, const char* what, int line) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "order_bench: line %d: %s: %s\n", line, what, cudaGetErrorString(error));
  std::exit(1);
}
#define MUST(call) Must(call, #call, __LINE__)

constexpr int kRows = 520;           // of which parts are taken
constexpr size_t kCold = 256 << 20;  // bytes of weights that are read in turn

struct Shape {
  const char* model;
  const char* name;
  int outputs, inputs, layers;
  bool gate_up, add;
};
constexpr Shape kShapes[] = {
    {"gemma3-1b", "q k v", 1536, 1152, 26, false, false},
    {"gemma3-1b", "output", 1152, 1024, 26, false, true},
    {"gemma3-1b", "gate and up", 6912, 1152, 26, true, false},
    {"gemma3-1b", "down", 1152, 6912, 26, false, true},
    {"gemma3-1b", "LM head", 262144, 1152, 1, false, false},
    {"llama3.2-1b", "q k v", 3072, 2048, 16, false, false},
    {"llama3.2-1b", "output", 2048, 2048, 16, false, true},
    {"llama3.2-1b", "gate and up", 8192, 2048, 16, true, false},
    {"llama3.2-1b", "down", 2048, 8192, 16, false, true},
    {"llama3.2-1b", "LM head", 128256, 2048, 1, false, false},
    {"llama3.1-8b", "q k v", 6144, 4096, 32, false, false},
    {"llama3.1-8b", "output", 4096, 4096, 32, false, true},
    {"llama3.1-8b", "gate and up", 14336, 4096, 32, true, false},
    {"llama3.1-8b", "down", 4096, 14336, 32, false, true},
};

__global__ void Fill(__nv_bfloat16* to, size_t count, uint32_t seed, float scale) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u + seed;
    x = (x ^ x >> 15) * 2246822519u;
    x = (x ^ x >> 13) * 3266489917u;
    x ^= x >> 16;
    to[i] = __float2bfloat16_rn((static_cast<float>(x >> 8) / (1 << 23) - 1) * scale);
  }
}

__nv_bfloat16* Random(size_t count, uint32_t seed, float scale) {
  __nv_bfloat16* data;
  MUST(cudaMalloc(&data, count * 2));
  Fill<<<1024, 256>>>(data, count, seed, scale);
  MUST(cudaGetLastError());
  MUST(cudaDeviceSynchronize());  // other streams do not wait for this one
  return data;
}

class Product {
 public:
  Product(const Shape& shape, cudaStream_t stream, int multiprocessors) : shape_(shape) {
    context_.stream = stream;
    context_.multiprocessors = multiprocessors;
    context_.programmatic = true;
    const size_t matrix = size_t{2} * shape.outputs * shape.inputs * (shape.gate_up ? 2 : 1);
    copies_ = static_cast<int>(std::max<size_t>(1, (kCold + matrix - 1) / matrix));
    weights_ = Random(matrix / 2 * copies_, 1, 0.05f);
    in_ = Random(size_t{kRows} * shape.inputs, 2, 1);
    out_bytes_ = size_t{kRows} * shape.outputs * (shape.gate_up ? 2 : 4);
    MUST(cudaMalloc(&out_, out_bytes_));
  }
  ~Product() {
    cudaFree(weights_);
    cudaFree(in_);
    cudaFree(out_);
  }

  void Launch(int first, int rows, int copy) const {
    PanelProductParams p;
    const size_t one = size_t{static_cast<size_t>(shape_.outputs)} * shape_.inputs;
    __nv_bfloat16* const at = weights_ + one * (shape_.gate_up ? 2 : 1) * copy;
    p.rows = rows;
    p.in = {in_ + size_t{static_cast<size_t>(first)} * shape_.inputs, DType::kBFloat16,
            shape_.inputs};
    p.weight = {at, DType::kBFloat16, shape_.outputs, shape_.inputs};
    if (shape_.gate_up) p.up = {at + one, DType::kBFloat16, shape_.outputs, shape_.inputs};
    p.out = {out_, shape_.gate_up ? DType::kBFloat16 : DType::kFloat32, shape_.outputs};
    p.add = shape_.add;
    MUST(cuda::hopper::LaunchPanelProduct(p, maps_, context_));
  }

  // Elements of all parts that differ from what their rows are among all.
  int64_t Differ() const {
    const auto outputs_of = [&](int first, int rows) {
      MUST(cudaMemsetAsync(out_, 0, out_bytes_, context_.stream));
      Launch(first, rows, 0);
      std::vector<char> all(out_bytes_ / kRows * static_cast<size_t>(rows));
      MUST(cudaMemcpyAsync(all.data(), out_, all.size(), cudaMemcpyDeviceToHost, context_.stream));
      MUST(cudaStreamSynchronize(context_.stream));
      return all;
    };
    const std::vector<char> all = outputs_of(0, kRows);
    const size_t a_row = out_bytes_ / kRows;
    int64_t differ = 0;
    for (const auto& [first, rows] :
         {std::pair(0, 1), std::pair(519, 1), std::pair(100, 1), std::pair(7, 2), std::pair(30, 4),
          std::pair(61, 8), std::pair(3, 9), std::pair(130, 16), std::pair(77, 17),
          std::pair(400, 32), std::pair(5, 33), std::pair(300, 64), std::pair(211, 65),
          std::pair(1, 128), std::pair(2, 129), std::pair(200, 256)}) {
      const std::vector<char> part = outputs_of(first, rows);
      const size_t each = shape_.gate_up ? 2 : 4;
      for (size_t i = 0; i < part.size(); i += each) {
        differ += std::memcmp(&part[i], &all[first * a_row + i], each) != 0 ? 1 : 0;
      }
    }
    return differ;
  }

  // Microseconds of one among many that follow each other.
  double Microseconds(int rows) const {
    const int count = std::max(copies_, 8);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    MUST(cudaStreamBeginCapture(context_.stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < count; ++i) Launch(0, rows, i % copies_);
    MUST(cudaStreamEndCapture(context_.stream, &graph));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    cudaEvent_t from, to;
    MUST(cudaEventCreate(&from));
    MUST(cudaEventCreate(&to));
    std::vector<float> times;
    for (int i = 0; i < 8; ++i) {
      MUST(cudaEventRecord(from, context_.stream));
      MUST(cudaGraphLaunch(exec, context_.stream));
      MUST(cudaEventRecord(to, context_.stream));
      MUST(cudaEventSynchronize(to));
      float ms = 0;
      MUST(cudaEventElapsedTime(&ms, from, to));
      if (i >= 3) times.push_back(ms);
    }
    MUST(cudaEventDestroy(from));
    MUST(cudaEventDestroy(to));
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphDestroy(graph));
    std::ranges::sort(times);
    return times[times.size() / 2] * 1e3 / count;
  }

 private:
  const Shape shape_;
  cuda::LaunchContext context_;
  mutable cuda::PanelMaps maps_;  // only keeps what it has made
  int copies_ = 1;
  __nv_bfloat16* weights_ = nullptr;
  __nv_bfloat16* in_ = nullptr;
  void* out_ = nullptr;
  size_t out_bytes_ = 0;
};

int Run(const std::string& part) {
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  std::printf("%s\n%-12s %-12s %10s |", properties.name, "us a product", "", "differ");
  constexpr int kTimed[] = {1, 4, 16, 64, 128, 256, 512};
  for (const int rows : kTimed) std::printf(" %8d", rows);
  std::printf("\n");
  int64_t differ = 0;
  std::vector<double> sums(std::size(kTimed), 0);
  for (size_t s = 0; s < std::size(kShapes); ++s) {
    const Shape& shape = kShapes[s];
    if (std::string(shape.model).find(part) == std::string::npos) continue;
    const Product product(shape, stream, properties.multiProcessorCount);
    const int64_t here = product.Differ();
    differ += here;
    std::printf("%-12s %-12s %10lld |", shape.model, shape.name, static_cast<long long>(here));
    for (size_t i = 0; i < std::size(kTimed); ++i) {
      const double us = product.Microseconds(kTimed[i]);
      sums[i] += us * shape.layers;
      std::printf(" %8.2f", us);
    }
    std::printf("\n");
    if (s + 1 < std::size(kShapes) && std::strcmp(kShapes[s + 1].model, shape.model) == 0) continue;
    std::printf("%-12s %-12s %10s |", shape.model, "all layers", "");
    for (double& sum : sums) {
      std::printf(" %8.0f", sum);
      sum = 0;
    }
    std::printf("\n");
  }
  std::printf("%s\n", differ == 0 ? "ALL BITS THE SAME" : "BITS DIFFER");
  return differ == 0 ? 0 : 1;
}

}  // namespace
}  // namespace sirocco

int main(int count, char** arguments) { return sirocco::Run(count > 1 ? arguments[1] : ""); }
