// The products of many rows (kernels/cuda/wide_product.cuh) at the shapes of three models,
// bfloat16: whether each kernel is right, then its time beside cuBLASLt's best algorithm, which the
// activation's kernel follows where gate and up are multiplied. Weights are read from memory: there
// are several copies, taken in turn. Needs no Bazel, from the repository's root:
//
//   nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -DSIROCCO_HOPPER=1 -I.
//     tests/bench/wide_bench.cu kernels/cuda/gate_up_end.cu kernels/cuda/fused_norm.cu
//     kernels/cuda/kernel_attributes.cc -o wide_bench -lcublasLt
//   wide_bench check | rows MODEL [ROWS ...] | stream MODEL [ROWS ...] | chain [ROWS ...]
//
// check: against plain sums. rows: each product alone. stream: output and down with the norms
// behind them, which add up the parts where they come in parts, the library's too. chain: the four
// products of all layers of llama3.1-8b one after the other, for 150 ms a turn, the library's and
// ours: what a GPU that is held to its power gives; with few rows also beside reads of a KV cache.
// All by turns.
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/wide_product.cuh"

namespace sirocco {
namespace {

using cuda::LaunchContext;
using cuda::WideChoice;
using cuda::WideProductParams;
using cuda::hopper::LaunchWide;
using cuda::hopper::WideEnd;
using cuda::hopper::WideShape;
using Element = __nv_bfloat16;

#define MUST(call)                                                                         \
  do {                                                                                     \
    const auto error_ = (call);                                                            \
    if (static_cast<int>(error_) != 0) {                                                   \
      std::printf("%s:%d: %s: %d\n", __FILE__, __LINE__, #call, static_cast<int>(error_)); \
      std::exit(1);                                                                        \
    }                                                                                      \
  } while (false)

// ---- The kernels that are measured
// ----------------------------------------------------------------

using Launcher = cudaError_t (*)(const WideProductParams&, const WideChoice&, const LaunchContext&);

template <typename Shape>
cudaError_t LaunchShape(const WideProductParams& p, const WideChoice& choice,
                        const LaunchContext& context) {
  if (p.up.data != nullptr) return LaunchWide<Shape, Element, WideEnd::kGateUp>(p, choice, context);
  if (p.add) return LaunchWide<Shape, Element, WideEnd::kAdd>(p, choice, context);
  return LaunchWide<Shape, Element, WideEnd::kStore>(p, choice, context);
}

struct Variant {
  const char* name;  // rows x outputs of a block, row tiles x output tiles of a cluster
  Launcher launch;
  int rows;  // of a cluster
};
const Variant kVariants[] = {
    {"128x256,2x1", LaunchShape<WideShape<2, 256, 2, 1>>, 256},
    {"128x224,2x1", LaunchShape<WideShape<2, 224, 2, 1>>, 256},
    {"128x192,2x1", LaunchShape<WideShape<2, 192, 2, 1>>, 256},
    {"128x128,2x1", LaunchShape<WideShape<2, 128, 2, 1>>, 256},
    {"128x256,1x2", LaunchShape<WideShape<2, 256, 1, 2>>, 128},
    {"128x224,1x2", LaunchShape<WideShape<2, 224, 1, 2>>, 128},
    {"128x128,1x2", LaunchShape<WideShape<2, 128, 1, 2>>, 128},
    {"128x256,2x2", LaunchShape<WideShape<2, 256, 2, 2>>, 256},
    {"128x224,2x2", LaunchShape<WideShape<2, 224, 2, 2>>, 256},
    {"128x256,1x1", LaunchShape<WideShape<2, 256, 1, 1>>, 128},
    {"192x192,2x1", LaunchShape<WideShape<3, 192, 2, 1>>, 384},
    {"192x192,1x2", LaunchShape<WideShape<3, 192, 1, 2>>, 192},
    {"192x128,1x2", LaunchShape<WideShape<3, 128, 1, 2>>, 192},
    {"192x128,1x1", LaunchShape<WideShape<3, 128, 1, 1>>, 192},
};

// ---- Data
// -----------------------------------------------------------------------------------------

__device__ float Noise(uint64_t i, uint32_t seed) {
  uint64_t x = i * 0x9e3779b97f4a7c15u + seed * 0xd1b54a32d192ed03u + 1;
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  x ^= x >> 31;
  return (static_cast<float>(x & 0xffff) + static_cast<float>(x >> 16 & 0xffff) +
          static_cast<float>(x >> 32 & 0xffff)) /
             65536.0f -
         1.5f;
}
__global__ void FillKernel(Element* to, int64_t count, float scale, uint32_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    to[i] = __float2bfloat16_rn(Noise(i, seed) * scale);
  }
}
__global__ void FillFloatsKernel(float* to, int64_t count, uint32_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    to[i] = Noise(i, seed);
  }
}
void* Allocate(int64_t bytes) {
  void* p = nullptr;
  MUST(cudaMalloc(&p, bytes));
  return p;
}

struct Product {
  const char* name;
  int outputs, inputs;  // of gate alone, where both are multiplied
  bool both, add;
  Activation activation;
  bool post = false;  // what is to be added is normed first, so it is stored
};
struct Model {
  const char* name;
  Product products[5];
};
Model ModelOf(const char* name, int hidden, int qkv, int q, int intermediate, int vocab,
              Activation activation) {
  return {name,
          {{"qkv", qkv, hidden, false, false, activation},
           {"output", hidden, q, false, true, activation},
           {"gate_up", intermediate, hidden, true, false, activation},
           {"down", hidden, intermediate, false, true, activation},
           {"head", vocab, hidden, false, false, activation}}};
}
std::vector<Model> Models() {
  return {ModelOf("llama3.1-8b", 4096, 6144, 4096, 14336, 128256, Activation::kSilu),
          ModelOf("llama3.2-1b", 2048, 3072, 2048, 8192, 128256, Activation::kSilu),
          ModelOf("gemma3-1b", 1152, 1536, 1024, 6912, 262144, Activation::kGeluTanh)};
}

constexpr int kMostParts = 4;

// A product with weights that do not fit the L2 cache, and room for all it needs.
class Work {
 public:
  Work(const Product& product, int most_rows, int copies) : product_(product) {
    const int64_t rows = int64_t{product.outputs} * (product.both ? 2 : 1);
    weight_bytes_ = rows * product.inputs * 2;
    copies_ = copies > 0
                  ? copies
                  : static_cast<int>(std::clamp<int64_t>((400 << 20) / weight_bytes_ + 1, 2, 64));
    weights_ = static_cast<char*>(Allocate(weight_bytes_ * copies_));
    in_ = Allocate(int64_t{most_rows} * product.inputs * 2);
    const int64_t out = int64_t{most_rows} * product.outputs * 4;
    out_bytes_ = std::max<int64_t>(out, std::min(most_rows, 512) * int64_t{product.outputs} * 4 *
                                            (product.add ? kMostParts : 1));
    out_ = Allocate(out_bytes_);
    if (product.both) scratch_ = Allocate(int64_t{most_rows} * rows * 2);
    bias_ = static_cast<float*>(Allocate(product.outputs * 4));
    up_bias_ = static_cast<float*>(Allocate(product.outputs * 4));
    FillKernel<<<1024, 256>>>(reinterpret_cast<Element*>(weights_), weight_bytes_ / 2 * copies_,
                              2.0f / std::sqrt(static_cast<float>(product.inputs)), 1);
    FillKernel<<<1024, 256>>>(static_cast<Element*>(in_), int64_t{most_rows} * product.inputs, 2.0f,
                              2);
    FillFloatsKernel<<<64, 256>>>(bias_, product.outputs, 3);
    FillFloatsKernel<<<64, 256>>>(up_bias_, product.outputs, 4);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
  }
  ~Work() {
    for (void* p : {static_cast<void*>(weights_), in_, out_, scratch_, static_cast<void*>(bias_),
                    static_cast<void*>(up_bias_)}) {
      cudaFree(p);
    }
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  WideProductParams Params(int rows, int copy, int parts = 1, bool biases = false) const {
    const int outputs = product_.outputs, inputs = product_.inputs;
    char* const weights = weights_ + copy % copies_ * weight_bytes_;
    WideProductParams p;
    p.rows = rows;
    p.in = {in_, DType::kBFloat16, inputs};
    p.weight = {weights, DType::kBFloat16, outputs, inputs};
    p.out = {out_, product_.both ? DType::kBFloat16 : DType::kFloat32, outputs};
    p.add = product_.add && !product_.post && parts == 1;
    if (product_.both) {
      p.up = {weights + weight_bytes_ / 2, DType::kBFloat16, outputs, inputs};
    }
    if (biases) {
      p.bias = bias_;
      p.up_bias = product_.both ? up_bias_ : nullptr;
    }
    p.activation = product_.activation;
    p.parts = parts;
    return p;
  }
  const Product& product() const { return product_; }
  int copies() const { return copies_; }
  void* out() const { return out_; }
  int64_t out_bytes() const { return out_bytes_; }
  void* scratch() const { return scratch_; }
  double Flop(int rows) const { return double(weight_bytes_) * rows; }
  double weight_bytes() const { return double(weight_bytes_); }

 private:
  const Product product_;
  int64_t weight_bytes_ = 0, out_bytes_ = 0;
  int copies_ = 0;
  char* weights_ = nullptr;
  void *in_ = nullptr, *out_ = nullptr, *scratch_ = nullptr;
  float *bias_ = nullptr, *up_bias_ = nullptr;
};

// ---- Whether they are right
// -----------------------------------------------------------------------

struct CheckParams {
  WideProductParams p;
  const float* before;  // what out held, where sums are added
  const int* sample;    // rows
  int samples;
  unsigned* worst;    // the largest difference; float bits, which order as integers do
  unsigned* largest;  // the largest value
};

__device__ float PlainSum(const Rows& in, const Matrix& w, int row, int output) {
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

Verdict Check(const Work& work, const WideProductParams& p, const Variant& variant, int group,
              const LaunchContext& context) {
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
    if (p.add) FillFloatsKernel<<<512, 256>>>(static_cast<float*>(work.out()), elements, 5);
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

// ---- The library
// ----------------------------------------------------------------------------------

// Plain arrays: vectors of the library's types crash nvcc 13.0.
struct Answers {
  static constexpr int kMost = 8;
  cublasLtMatmulAlgo_t at[kMost];
  int count = 0;
};

class Library {
 public:
  Library() {
    MUST(cublasLtCreate(&handle_));
    MUST(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    MUST(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                        sizeof(transposed)));
    workspace_ = Allocate(kWorkspace);
  }
  Answers AnswersOf(const Work& work, int rows, int parts = 1) {
    Layouts l(work, rows, parts);
    cublasLtMatmulPreference_t preference;
    MUST(cublasLtMatmulPreferenceCreate(&preference));
    const uint64_t bytes = kWorkspace;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    MUST(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &bytes, sizeof(bytes)));
    MUST(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof(reductions)));
    cublasLtMatmulHeuristicResult_t results[Answers::kMost];
    int found = 0;
    MUST(cublasLtMatmulAlgoGetHeuristic(handle_, product_, l.a, l.b, l.d, l.d, preference,
                                        Answers::kMost, results, &found));
    Answers answers;
    for (int i = 0; i < found; ++i) answers.at[answers.count++] = results[i].algo;
    MUST(cublasLtMatmulPreferenceDestroy(preference));
    return answers;
  }
  // With the activation that the program has behind it.
  void Run(const Work& work, int rows, int copy, const cublasLtMatmulAlgo_t& algorithm,
           const LaunchContext& context, int parts = 1) {
    const WideProductParams p = work.Params(rows, copy, parts);
    Layouts l(work, rows, parts);
    const float one = 1, beta = p.add ? 1 : 0;
    void* const out = work.product().both ? work.scratch() : p.out.data;
    MUST(cublasLtMatmul(handle_, product_, &one, p.weight.data, l.a, p.in.data, l.b, &beta, out,
                        l.d, out, l.d, &algorithm, workspace_, kWorkspace, context.stream));
    if (!work.product().both) return;
    cuda::GateUpEndParams end;
    end.rows = rows;
    end.gate = {out, 2 * p.weight.rows};
    end.up = {static_cast<Element*>(out) + p.weight.rows, 2 * p.weight.rows};
    end.activation = p.activation;
    end.out = p.out;
    MUST(cuda::hopper::LaunchGateUpEnd(end, context));
  }

 private:
  static constexpr size_t kWorkspace = size_t{32} << 20;
  struct Layouts {
    cublasLtMatrixLayout_t a, b, d;
    Layouts(const Work& work, int rows, int parts) {
      const Product& p = work.product();
      const int outputs = p.outputs * (p.both ? 2 : 1);
      const int inputs = p.inputs / parts;
      MUST(cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, inputs, outputs, p.inputs));
      MUST(cublasLtMatrixLayoutCreate(&b, CUDA_R_16BF, inputs, rows, p.inputs));
      MUST(cublasLtMatrixLayoutCreate(&d, p.both ? CUDA_R_16BF : CUDA_R_32F, outputs, rows,
                                      outputs));
      if (parts == 1) return;
      InParts(a, parts, inputs);
      InParts(b, parts, inputs);
      InParts(d, parts, int64_t{rows} * outputs);
    }
    static void InParts(cublasLtMatrixLayout_t layout, int32_t parts, int64_t between) {
      MUST(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &parts,
                                            sizeof(parts)));
      MUST(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                            &between, sizeof(between)));
    }
    ~Layouts() {
      cublasLtMatrixLayoutDestroy(a);
      cublasLtMatrixLayoutDestroy(b);
      cublasLtMatrixLayoutDestroy(d);
    }
  };
  cublasLtHandle_t handle_;
  cublasLtMatmulDesc_t product_;
  void* workspace_;
};

// ---- Time
// -----------------------------------------------------------------------------------------

// How often the first multiprocessor counts in a microsecond. A GPU that is held to its power runs
// at two thirds of its rate, so what takes longer has not always more to do.
__global__ void CountKernel(float* megahertz) {
  const auto nanoseconds = [] {
    uint64_t time;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
    return time;
  };
  const uint64_t from = nanoseconds();
  const int64_t first = clock64();
  uint64_t to = from;
  while (to - from < 20000) to = nanoseconds();
  *megahertz = static_cast<float>(clock64() - first) * 1e3f / static_cast<float>(to - from);
}

// One way to do something: what it enqueues for each of `count` copies, as one graph.
struct Way {
  std::string name;
  bool library = false;
  int count = 1;
  std::function<void(int)> enqueue;
  cudaGraphExec_t exec = nullptr;
  int times = 1;  // launches of the graph that make a measurement
  std::vector<double> found, megahertz;

  double us() const { return Median(found); }
  double rate() const { return Median(megahertz); }
  static double Median(std::vector<double> all) {
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
  }
};

// Measures all ways by turns, back and forth, so that each meets the GPU as hot as the others do:
// one after the other the first have up to 20% for themselves. `least`: milliseconds of each turn.
void Measure(std::vector<Way>& ways, int rounds, double least, cudaStream_t stream) {
  cudaEvent_t from, to;
  MUST(cudaEventCreate(&from));
  MUST(cudaEventCreate(&to));
  float* const megahertz = static_cast<float*>(Allocate(4));
  const auto run = [&](Way& way, int times) {
    MUST(cudaEventRecord(from, stream));
    for (int k = 0; k < times; ++k) MUST(cudaGraphLaunch(way.exec, stream));
    MUST(cudaEventRecord(to, stream));
    CountKernel<<<1, 1, 0, stream>>>(megahertz);
    MUST(cudaStreamSynchronize(stream));
    float ms = 0, rate = 0;
    MUST(cudaEventElapsedTime(&ms, from, to));
    MUST(cudaMemcpy(&rate, megahertz, 4, cudaMemcpyDeviceToHost));
    way.megahertz.push_back(rate);
    way.found.push_back(double(ms) * 1e3 / times / way.count);
  };
  for (Way& way : ways) {
    cudaGraph_t graph;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < way.count; ++i) way.enqueue(i);
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&way.exec, graph, 0));
    MUST(cudaGraphDestroy(graph));
    run(way, 1);
    run(way, 1);
    way.times = std::max(1, static_cast<int>(least * 1e3 / (way.found.back() * way.count)));
    way.found.clear();
    way.megahertz.clear();
  }
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < ways.size(); ++i) {
      Way& way = ways[round % 2 == 0 ? i : ways.size() - 1 - i];
      run(way, way.times);
    }
  }
  for (Way& way : ways) MUST(cudaGraphExecDestroy(way.exec));
  MUST(cudaEventDestroy(from));
  MUST(cudaEventDestroy(to));
  MUST(cudaFree(megahertz));
}

bool Suits(const Variant& variant, int rows) {
  // Not where most of a cluster's rows would be missing.
  return rows > variant.rows / 2 && !(rows > 1024 && variant.rows < 256);
}

struct Choice {
  int variant = 0, parts = 1;
  WideChoice wide;
};

std::string NameOf(const Choice& c) {
  std::string name = kVariants[c.variant].name;
  if (c.parts > 1) name += " p" + std::to_string(c.parts);
  name += " g" + std::to_string(c.wide.group);
  return name;
}

Way Librarys(Library& library, const Work& work, int rows, const cublasLtMatmulAlgo_t& algorithm,
             const LaunchContext& context) {
  Way way;
  way.name = "library";
  way.library = true;
  way.count = work.copies();
  way.enqueue = [&library, &work, rows, algorithm, context](int i) {
    library.Run(work, rows, i, algorithm, context);
  };
  return way;
}

Way Ours(const Work& work, int rows, const Choice& choice, const LaunchContext& context) {
  Way way;
  way.name = NameOf(choice);
  way.count = work.copies();
  way.enqueue = [&work, rows, choice, context](int i) {
    MUST(
        kVariants[choice.variant].launch(work.Params(rows, i, choice.parts), choice.wide, context));
  };
  return way;
}

std::vector<Choice> ChoicesOf(const Work& work, int rows) {
  std::vector<Choice> choices;
  for (int v = 0; v < static_cast<int>(std::size(kVariants)); ++v) {
    if (!Suits(kVariants[v], rows)) continue;
    for (const int parts : {1, 2, 4}) {
      if (parts > 1 && (!work.product().add || rows > 512)) continue;
      for (const int group : {4, 8}) {
        if (group > 4 && group / 2 * kVariants[v].rows >= rows) continue;  // the same
        choices.push_back({v, parts, {.group = group}});
      }
    }
  }
  return choices;
}

// ---- What is asked for
// ----------------------------------------------------------------------------

int CheckAll(const LaunchContext& context) {
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
        if (!product.add && !product.both) {
          WideProductParams p = work.Params(rows, 0, 1, true);
          p.out.dtype = DType::kBFloat16;
          const Verdict v = Check(work, p, variant, 8, context);
          if (!v.right(true)) {
            ++wrong;
            std::printf("WRONG %s to bfloat16 %s rows %d: error %.2e, unwritten %u, beyond %u\n",
                        product.name, variant.name, rows, v.error, v.kept, v.spoilt);
          }
        }
      }
      std::printf("%-15s %s error %.1e\n", product.name, variant.name, worst);
      std::fflush(stdout);
    }
  }
  std::printf(wrong == 0 ? "all are right\n" : "%d WRONG\n", wrong);
  return wrong == 0 ? 0 : 1;
}

// The ways there are at so many rows, the library's first.
void AllWays(Library& library, const Work& work, int rows, const LaunchContext& context,
             std::vector<Way>& ways) {
  const Answers answers = library.AnswersOf(work, rows);
  for (int a = 0; a < answers.count; ++a) {
    ways.push_back(Librarys(library, work, rows, answers.at[a], context));
  }
  for (const Choice& choice : ChoicesOf(work, rows)) {
    ways.push_back(Ours(work, rows, choice, context));
  }
}

const Way* Best(const std::vector<Way>& ways, bool library) {
  const Way* best = nullptr;
  for (const Way& way : ways) {
    if (way.library == library && (best == nullptr || way.us() < best->us())) best = &way;
  }
  return best;
}

int RowsAll(const std::string& wanted, std::vector<int> all, const LaunchContext& context) {
  Library library;
  if (all.empty()) all = {128, 192, 256, 512, 1024, 2048, 4096};
  const int most = *std::max_element(all.begin(), all.end());
  for (const Model& model : Models()) {
    if (model.name != wanted) continue;
    for (const Product& product : model.products) {
      const bool head = std::strcmp(product.name, "head") == 0;
      const Work work(product, head ? std::min(most, 256) : most, 0);
      for (const int rows : all) {
        if (head && rows > 256) continue;
        std::vector<Way> ways;
        AllWays(library, work, rows, context, ways);
        Measure(ways, 5, rows > 512 ? 6 : 2, context.stream);
        std::printf("%s %s %d rows:", model.name, product.name, rows);
        for (const Way& way : ways) {
          std::printf("  %s %.1f (%.0f)", way.name.c_str(), way.us(), way.rate());
        }
        const Way* const theirs = Best(ways, true);
        const Way* const ours = Best(ways, false);
        const auto rates = [&](const Way& way) {
          std::printf("%s %.1f us, %.0f TFLOP/s, %.0f GB/s, %.0f MHz", way.name.c_str(), way.us(),
                      work.Flop(rows) / way.us() * 1e-6, work.weight_bytes() / way.us() * 1e-3,
                      way.rate());
        };
        std::printf("\n= %s %s %d: ", model.name, product.name, rows);
        rates(*theirs);
        std::printf("; ");
        rates(*ours);
        std::printf("; %.2f of the library's time\n", ours->us() / theirs->us());
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

// The norms behind a product of the stream, as behind down; with post-norms, of what joins it too.
class StreamNorms {
 public:
  StreamNorms(int most_rows, int width, bool post) : post_(post) {
    const int64_t bytes = int64_t{most_rows} * width * 4;
    for (void** rows : {&end_.hidden.data, &end_.delta.data, &end_.normed.data}) {
      *rows = Allocate(bytes);
      MUST(cudaMemset(*rows, 0, bytes));
    }
    end_.hidden = {end_.hidden.data, DType::kFloat32, width};
    end_.delta = {end_.delta.data, DType::kFloat32, width};
    end_.normed = {end_.normed.data, DType::kBFloat16, width};
    weight_ = static_cast<float*>(Allocate(width * 4));
    FillFloatsKernel<<<64, 256>>>(weight_, width, 6);
    LayerParams layer;
    layer.mlp_post_norm = post ? weight_ : nullptr;
    layer.norm_epsilon = 1e-6f;
    layer_ = static_cast<LayerParams*>(Allocate(sizeof(layer)));
    MUST(cudaMemcpy(layer_, &layer, sizeof(layer), cudaMemcpyHostToDevice));
    end_.layer.table = layer_;
    end_.next_norm = weight_;
  }
  ~StreamNorms() {
    for (void* p : {end_.hidden.data, end_.delta.data, end_.normed.data,
                    static_cast<void*>(weight_), static_cast<void*>(layer_)}) {
      cudaFree(p);
    }
  }
  StreamNorms(const StreamNorms&) = delete;
  StreamNorms& operator=(const StreamNorms&) = delete;

  // Of what `p` has left.
  void Run(const WideProductParams& p, const LaunchContext& context) const {
    cuda::DownEndParams end = end_;
    end.rows = p.rows;
    if (p.parts > 1) {
      end.sums = static_cast<const float*>(p.out.data);
      end.parts = p.parts;
    } else {
      (post_ ? end.delta : end.hidden).data = p.out.data;
    }
    MUST(cuda::hopper::LaunchNorms(end, context));
  }

 private:
  const bool post_;
  cuda::DownEndParams end_;
  float* weight_ = nullptr;
  LayerParams* layer_ = nullptr;
};

int StreamAll(const std::string& wanted, std::vector<int> all, const LaunchContext& context) {
  Library library;
  if (all.empty()) all = {65, 80, 96, 128, 160, 192, 224, 256};
  const int most = *std::max_element(all.begin(), all.end());
  for (const Model& model : Models()) {
    if (model.name != wanted) continue;
    const bool post = wanted == "gemma3-1b";
    for (const int at : {1, 3}) {
      Product product = model.products[at];
      product.post = post;
      const Work work(product, most, 0);
      const StreamNorms norms(most, product.outputs, post);
      for (const int rows : all) {
        std::vector<Way> ways;
        for (const int parts : {1, kMostParts}) {
          const Answers answers = library.AnswersOf(work, rows, parts);
          for (int a = 0; a < answers.count; ++a) {
            Way way;
            way.name = parts > 1 ? "library p4" : "library";
            way.library = true;
            way.count = work.copies();
            way.enqueue = [&, rows, parts, algorithm = answers.at[a]](int i) {
              library.Run(work, rows, i, algorithm, context, parts);
              norms.Run(work.Params(rows, i, parts), context);
            };
            ways.push_back(way);
          }
        }
        for (const Choice& choice : ChoicesOf(work, rows)) {
          if (choice.parts == 1 || choice.wide.group > 4) continue;
          Way way;
          way.name = NameOf(choice);
          way.count = work.copies();
          way.enqueue = [&, rows, choice](int i) {
            const WideProductParams p = work.Params(rows, i, choice.parts);
            MUST(kVariants[choice.variant].launch(p, choice.wide, context));
            norms.Run(p, context);
          };
          ways.push_back(way);
        }
        Measure(ways, 5, 2, context.stream);
        std::stable_sort(ways.begin(), ways.end(),
                         [](const Way& a, const Way& b) { return a.us() < b.us(); });
        std::printf("%s %s %d rows:", model.name, product.name, rows);
        for (const Way& way : ways) {
          std::printf("  %s %.1f (%.0f)", way.name.c_str(), way.us(), way.rate());
        }
        std::printf("\n= %s %s %d:", model.name, product.name, rows);
        for (const char* kind : {"library", "library p4", ""}) {
          for (const Way& way : ways) {
            if (*kind != 0 ? way.name != kind : way.library) continue;
            std::printf("  %s %.1f", way.name.c_str(), way.us());
            break;
          }
        }
        std::printf("\n");
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

// Reads as attention does, which leaves the matrix units idle.
__global__ void ReadKernel(const uint4* from, int64_t count, uint32_t* to) {
  uint32_t sum = 0;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const uint4 x = from[i];
    sum += x.x ^ x.y ^ x.z ^ x.w;
  }
  if (sum == 0x12345678) *to = sum;
}

int ChainAll(std::vector<int> all, const LaunchContext& context) {
  Library library;
  if (all.empty()) all = {256, 2048, 4096, 8192};
  const Model model = Models()[0];
  constexpr int kLayers = 32;
  // What attention of 256 rows reads in a layer, 150 tokens each; not for prompts.
  constexpr int64_t kRead = int64_t{160} << 20;
  const uint4* const cache = static_cast<const uint4*>(Allocate(kRead));
  for (const int rows : all) {
    std::vector<Work*> works;
    std::vector<Way> best[2];
    for (int i = 0; i < 4; ++i) {
      works.push_back(new Work(model.products[i], rows, 8));
      std::vector<Way> ways;
      AllWays(library, *works[i], rows, context, ways);
      Measure(ways, 5, rows > 512 ? 10 : 3, context.stream);
      for (const bool ours : {false, true}) {
        best[ours].push_back(*Best(ways, !ours));
        std::printf("chain %d rows: %s %s %.1f us\n", rows, model.products[i].name,
                    best[ours].back().name.c_str(), best[ours].back().us());
      }
    }
    for (const bool reads : {false, true}) {
      if (reads && rows > 512) continue;
      std::vector<Way> chains;
      // Bit i: product i is ours.
      for (const int mask : {0, 4, 12, 14, 15}) {
        Way way;
        for (int i = 0; i < 4; ++i) {
          if ((mask >> i & 1) != 0) way.name += std::string(" ") + model.products[i].name;
        }
        way.count = kLayers;
        way.enqueue = [&, mask](int layer) {
          for (int i = 0; i < 4; ++i) {
            best[mask >> i & 1][i].enqueue(layer);
            if (reads && i == 0) {
              ReadKernel<<<264, 1024, 0, context.stream>>>(cache, kRead / 16,
                                                           static_cast<uint32_t*>(works[0]->out()));
            }
          }
        };
        chains.push_back(way);
      }
      Measure(chains, 4, 150, context.stream);
      for (const Way& way : chains) {
        std::printf("chain %d rows%s, ours:%s: %.3f ms, %.0f MHz\n", rows,
                    reads ? ", with reads" : "", way.name.c_str(), way.us() * kLayers * 1e-3,
                    way.rate());
      }
      std::fflush(stdout);
    }
    for (const Work* work : works) delete work;
  }
  return 0;
}

int Main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  LaunchContext context;
  MUST(cudaStreamCreate(&context.stream));
  context.multiprocessors = properties.multiProcessorCount;
  context.programmatic = true;
  std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  std::vector<int> rows;
  const bool of_model = what == "rows" || what == "stream";
  for (int i = of_model ? 3 : 2; i < argc; ++i) rows.push_back(std::atoi(argv[i]));
  if (what == "check") return CheckAll(context);
  if (what == "rows" && argc > 2) return RowsAll(argv[2], rows, context);
  if (what == "stream" && argc > 2) return StreamAll(argv[2], rows, context);
  if (what == "chain") return ChainAll(rows, context);
  std::printf(
      "wide_bench check | rows MODEL [ROWS ...] | stream MODEL [ROWS ...] | chain [ROWS ...]\n");
  return 2;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) { return sirocco::Main(argc, argv); }
