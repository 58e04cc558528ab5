// Output with the norms behind it as one kernel (kernels/cuda/wide_normed.cu), bfloat16: whether it
// is right, then its time beside cuBLASLt's best algorithm with the norms' kernel. Weights are read
// from memory: there are several copies, taken in turn. Needs no Bazel, from the repository's root:
//
//   nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -DSIROCCO_HOPPER=1 -I.
//     tests/bench/normed_bench.cu kernels/cuda/{wide_normed,fused_norm,gate_up_end}.cu
//     kernels/cuda/kernel_attributes.cc -o normed_bench -lcublasLt
//   normed_bench check | time [ROWS ...]
//
// check: against float64. time: in a graph, alone (each behind the one before) and behind kernels
// that read as attention does, on all multiprocessors, and write the rows: what is added to these.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/fused_norm.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wide_normed.h"
#include "tests/bench/library.cuh"
#include "tests/bench/wide_data.cuh"

namespace sirocco {
namespace {

using cuda::LaunchContext;
using cuda::WideNormedParams;

template <typename T>
T* Filled(int64_t count, float scale, uint32_t seed) {
  T* const p = static_cast<T*>(Allocate(count * int64_t{sizeof(T)}));
  FillKernel<<<512, 256>>>(p, count, scale, seed);
  MUST(cudaGetLastError());
  return p;
}

// ---- Data ---------------------------------------------------------------------------------------

constexpr int kGuard = 4096;  // bytes behind what is written
constexpr int kCopies = 48;

struct Work {
  int outputs, inputs, most;
  bool post, bias;
  Element *weights, *in;
  float *hidden, *sum, *delta, *biases, *posts, *nexts;
  Element* normed;

  Work(int outputs, int inputs, int most, bool post, bool bias)
      : outputs(outputs), inputs(inputs), most(most), post(post), bias(bias) {
    const int64_t rows = int64_t{most} * outputs;
    weights = Filled<Element>(int64_t{outputs} * inputs * kCopies,
                              2.0f / std::sqrt(static_cast<float>(inputs)), 1);
    in = Filled<Element>(int64_t{most} * inputs, 2.0f, 2);
    hidden = Filled<float>(rows, 3.0f, 3);
    delta = Filled<float>(rows + kGuard, 1.0f, 4);
    sum = Filled<float>(rows + kGuard, 1.0f, 5);
    normed = Filled<Element>(rows + kGuard, 1.0f, 6);
    biases = Filled<float>(outputs, 1.0f, 7);
    posts = Filled<float>(outputs, 1.0f, 8);
    nexts = Filled<float>(outputs, 1.0f, 9);
    MUST(cudaDeviceSynchronize());
  }
  ~Work() {
    for (void* p :
         {static_cast<void*>(weights), static_cast<void*>(in), static_cast<void*>(hidden),
          static_cast<void*>(delta), static_cast<void*>(sum), static_cast<void*>(normed),
          static_cast<void*>(biases), static_cast<void*>(posts), static_cast<void*>(nexts)}) {
      cudaFree(p);
    }
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  WideNormedParams Params(int rows, int copy) const {
    WideNormedParams p;
    p.rows = rows;
    p.in = {in, DType::kBFloat16, inputs};
    p.weight = {weights + int64_t{copy % kCopies} * outputs * inputs, DType::kBFloat16, outputs,
                inputs};
    p.bias = bias ? biases : nullptr;
    p.hidden = {hidden, DType::kFloat32, outputs};
    p.post = post ? posts : nullptr;
    p.next = nexts;
    p.epsilon = 1e-6f;
    p.sum = {sum, DType::kFloat32, outputs};
    p.normed = {normed, DType::kBFloat16, outputs};
    return p;
  }
};

// ---- Whether it is right ------------------------------------------------------------------------

__device__ double BlockSumOf(double x) {
  __shared__ double all[256];
  __syncthreads();
  all[threadIdx.x] = x;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < 256; ++i) sum += all[i];
  return sum;
}

struct Reference {
  WideNormedParams p;
  const float* hidden;  // as it was
  double *sum, *normed;
};

// A row a block.
__global__ void ReferenceKernel(Reference r) {
  const WideNormedParams& p = r.p;
  const int row = blockIdx.x, width = p.weight.rows;
  double* const sum = r.sum + int64_t{row} * width;
  const Element* const x = static_cast<const Element*>(p.in.data) + int64_t{row} * p.weight.cols;
  double squares = 0;
  for (int o = threadIdx.x; o < width; o += 256) {
    const Element* const w =
        static_cast<const Element*>(p.weight.data) + int64_t{o} * p.weight.cols;
    double d = p.bias != nullptr ? p.bias[o] : 0;
    for (int k = 0; k < p.weight.cols; ++k) {
      d += double{__bfloat162float(x[k])} * double{__bfloat162float(w[k])};
    }
    sum[o] = d;
    squares += d * d;
  }
  const double inverse = 1 / sqrt(BlockSumOf(squares) / width + double{p.epsilon});
  squares = 0;
  for (int o = threadIdx.x; o < width; o += 256) {
    if (p.post != nullptr) sum[o] *= inverse * double{p.post[o]};
    sum[o] += double{r.hidden[int64_t{row} * width + o]};
    squares += sum[o] * sum[o];
  }
  const double next = 1 / sqrt(BlockSumOf(squares) / width + double{p.epsilon});
  for (int o = threadIdx.x; o < width; o += 256) {
    r.normed[int64_t{row} * width + o] = sum[o] * next * double{p.next[o]};
  }
}

int CheckAll(const LaunchContext& context) {
  int wrong = 0;
  struct Case {
    int outputs, inputs;
    bool post, bias, in_place;
  };
  for (const Case& c : {Case{1152, 1024, true, false, false}, Case{1152, 1024, false, true, true},
                        Case{1152, 1024, false, false, false}, Case{136, 264, true, true, false},
                        Case{1000, 72, true, false, true}, Case{1144, 1016, false, false, true},
                        Case{64, 8, true, true, false}}) {
    const Work w(c.outputs, c.inputs, 300, c.post, c.bias);
    double worst_sum = 0, worst_normed = 0;
    for (const int rows : {1, 64, 65, 71, 80, 127, 128, 129, 160, 192, 193, 255, 256, 300}) {
      const int64_t count = int64_t{rows} * c.outputs;
      WideNormedParams p = w.Params(rows, rows);
      std::vector<float> before(count), sum(count + kGuard), again(count + kGuard);
      std::vector<uint16_t> normed(count + kGuard), normed_again(count + kGuard);
      MUST(cudaMemcpy(before.data(), w.hidden, count * 4, cudaMemcpyDeviceToHost));
      float* const kept = static_cast<float*>(Allocate(count * 4));
      MUST(cudaMemcpy(kept, w.hidden, count * 4, cudaMemcpyDeviceToDevice));
      double* const of_sum = static_cast<double*>(Allocate(count * 8));
      double* const of_normed = static_cast<double*>(Allocate(count * 8));
      ReferenceKernel<<<rows, 256>>>({p, kept, of_sum, of_normed});
      MUST(cudaDeviceSynchronize());
      const auto run = [&](std::vector<float>& sums, std::vector<uint16_t>& norms) {
        MUST(cudaMemset(w.sum, 0xff, (count + kGuard) * 4));
        MUST(cudaMemset(w.normed, 0xff, (count + kGuard) * 2));
        // In place: the stream is where the sum goes.
        if (c.in_place) {
          MUST(cudaMemcpy(w.sum, kept, count * 4, cudaMemcpyDeviceToDevice));
          p.hidden.data = w.sum;
        }
        MUST(cuda::hopper::LaunchWideNormed(p, context));
        MUST(cudaDeviceSynchronize());
        MUST(cudaMemcpy(sums.data(), w.sum, sums.size() * 4, cudaMemcpyDeviceToHost));
        MUST(cudaMemcpy(norms.data(), w.normed, norms.size() * 2, cudaMemcpyDeviceToHost));
      };
      run(sum, normed);
      run(again, normed_again);
      std::vector<double> want_sum(count), want_normed(count);
      MUST(cudaMemcpy(want_sum.data(), of_sum, count * 8, cudaMemcpyDeviceToHost));
      MUST(cudaMemcpy(want_normed.data(), of_normed, count * 8, cudaMemcpyDeviceToHost));
      std::vector<float> after(count);
      MUST(cudaMemcpy(after.data(), w.hidden, count * 4, cudaMemcpyDeviceToHost));
      int bad = 0, beyond = 0;
      double of_sums = 0, of_norms = 0;
      for (int64_t i = 0; i < count; ++i) {
        uint32_t bits = uint32_t{normed[i]} << 16;
        float got;
        std::memcpy(&got, &bits, 4);
        const double sum_error = std::abs(double{sum[i]} - want_sum[i]);
        const double norm_error = std::abs(double{got} - want_normed[i]);
        // Half a unit of bfloat16, and float32's.
        if (!(sum_error < 2e-5) || !(norm_error < std::abs(want_normed[i]) / 256 + 1e-5)) ++bad;
        of_sums = std::max(of_sums, sum_error);
        of_norms = std::max(of_norms, norm_error / (std::abs(want_normed[i]) + 1e-2));
      }
      for (int i = 0; i < kGuard; ++i) {
        uint32_t bits;
        std::memcpy(&bits, &sum[count + i], 4);
        if (bits != 0xffffffffu || normed[count + i] != 0xffff) ++beyond;
      }
      const bool repeats = std::memcmp(sum.data(), again.data(), count * 4) == 0 &&
                           std::memcmp(normed.data(), normed_again.data(), count * 2) == 0;
      if (bad > 0 || beyond > 0 || !repeats || before != after) {
        ++wrong;
        std::printf("WRONG %dx%d rows %d: %d bad (sum %.1e, normed %.1e), %d beyond%s%s\n",
                    c.outputs, c.inputs, rows, bad, of_sums, of_norms, beyond,
                    repeats ? "" : ", other bits the second time",
                    before == after ? "" : ", hidden was written");
      }
      worst_sum = std::max(worst_sum, of_sums);
      worst_normed = std::max(worst_normed, of_norms);
      for (void* d :
           {static_cast<void*>(kept), static_cast<void*>(of_sum), static_cast<void*>(of_normed)}) {
        MUST(cudaFree(d));
      }
    }
    std::printf("%4d outputs of %4d%s%s%s: sum %.1e, normed %.1e\n", c.outputs, c.inputs,
                c.post ? ", post" : "", c.bias ? ", bias" : "", c.in_place ? ", in place" : "",
                worst_sum, worst_normed);
    std::fflush(stdout);
  }
  std::printf(wrong == 0 ? "all are right\n" : "%d WRONG\n", wrong);
  return wrong == 0 ? 0 : 1;
}

// ---- Time ---------------------------------------------------------------------------------------

// The product by cuBLASLt, and the norms' kernel.
class InTwo {
 public:
  InTwo(Library& library, const Work& w, int rows, int parts)
      : library_(library), w_(w), rows_(rows), parts_(parts) {
    out_ = static_cast<float*>(Allocate(int64_t{parts} * rows * w.outputs * 4));
    LayerParams layer;
    layer.mlp_post_norm = w.posts;
    layer.norm_epsilon = 1e-6f;
    layer_ = static_cast<LayerParams*>(Allocate(sizeof(layer)));
    MUST(cudaMemcpy(layer_, &layer, sizeof(layer), cudaMemcpyHostToDevice));
    answers_ = library.AnswersOf(Product(0));
  }
  const Answers& answers() const { return answers_; }
  void Run(int answer, int copy, const LaunchContext& context) const {
    library_.Run(Product(copy), answers_.at[answer], context);
    cuda::DownEndParams end;
    end.rows = rows_;
    end.hidden = {w_.sum, DType::kFloat32, w_.outputs};
    end.delta = {out_, DType::kFloat32, w_.outputs};
    end.normed = w_.Params(rows_, copy).normed;
    end.layer.table = layer_;
    end.next_norm = w_.nexts;
    if (parts_ > 1) {
      end.sums = out_;
      end.parts = parts_;
    }
    MUST(cuda::hopper::LaunchNorms(end, context));
  }

 private:
  cuda::WideProductParams Product(int copy) const {
    const WideNormedParams normed = w_.Params(rows_, copy);
    cuda::WideProductParams p;
    p.rows = rows_;
    p.in = normed.in;
    p.weight = normed.weight;
    p.out = {out_, DType::kFloat32, w_.outputs};
    p.parts = parts_;
    return p;
  }
  Library& library_;
  const Work& w_;
  const int rows_;
  const int32_t parts_;
  Answers answers_;
  float* out_;
  LayerParams* layer_;
};

struct ReadParams {
  const uint4* from;
  int each;           // of a block
  const uint4* rows;  // that the product multiplies, to be written
  uint4* in;
  int count;
  uint32_t* to;
};
// As attention: all multiprocessors, half of their shared memory, and no matrix units.
__global__ void __launch_bounds__(256) ReadKernel(const __grid_constant__ ReadParams p) {
  cuda::hopper::LaunchDependents();
  cuda::hopper::WaitForDependency();
  uint32_t sum = 0;
  for (int i = threadIdx.x; i < p.each; i += 256) {
    const uint4 x = p.from[int64_t{blockIdx.x} * p.each + i];
    sum += x.x ^ x.y ^ x.z ^ x.w;
  }
  for (int i = blockIdx.x * 256 + threadIdx.x; i < p.count; i += gridDim.x * 256) {
    p.in[i] = p.rows[i];
  }
  if (sum == 0x12345678) *p.to = sum;
}

struct Way {
  std::string name;
  std::function<void(int)> enqueue;
  cudaGraphExec_t exec = nullptr;
  std::vector<double> found;
  double us() const {
    std::vector<double> all = found;
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
  }
};

void Measure(std::vector<Way>& ways, cudaStream_t stream) {
  cudaEvent_t from, to;
  MUST(cudaEventCreate(&from));
  MUST(cudaEventCreate(&to));
  const auto run = [&](Way& way, int times) {
    MUST(cudaEventRecord(from, stream));
    for (int k = 0; k < times; ++k) MUST(cudaGraphLaunch(way.exec, stream));
    MUST(cudaEventRecord(to, stream));
    MUST(cudaStreamSynchronize(stream));
    float ms = 0;
    MUST(cudaEventElapsedTime(&ms, from, to));
    way.found.push_back(double(ms) * 1e3 / times / kCopies);
  };
  for (Way& way : ways) {
    cudaGraph_t graph;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < kCopies; ++i) way.enqueue(i);
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&way.exec, graph, 0));
    MUST(cudaGraphDestroy(graph));
    run(way, 2);
    way.found.clear();
  }
  for (int round = 0; round < 7; ++round) {
    for (size_t i = 0; i < ways.size(); ++i) {
      run(ways[round % 2 == 0 ? i : ways.size() - 1 - i], 4);
    }
  }
  for (Way& way : ways) MUST(cudaGraphExecDestroy(way.exec));
  MUST(cudaEventDestroy(from));
  MUST(cudaEventDestroy(to));
}

int TimeAll(std::vector<int> all, const LaunchContext& context) {
  if (all.empty()) all = {65, 80, 128, 160, 192, 224, 256};
  const Work w(1152, 1024, 256, true, false);
  const int blocks = 2 * context.multiprocessors;
  // 64 KiB a block, elsewhere each time.
  constexpr int kRead = 4096;
  const uint4* const cache =
      static_cast<const uint4*>(Allocate(int64_t{kCopies} * blocks * kRead * 16));
  const uint4* const twin =
      reinterpret_cast<const uint4*>(Filled<Element>(int64_t{w.most} * w.inputs, 2.0f, 2));
  MUST(cuda::hopper::AllowShared(ReadKernel, 96 * 1024));
  Library library(0);  // of no gate and up
  for (const int rows : all) {
    const InTwo one(library, w, rows, 1), four(library, w, rows, 4);
    const auto read = [&](int i) {
      const ReadParams p = {cache + int64_t{i} * blocks * kRead,
                            kRead,
                            twin,
                            reinterpret_cast<uint4*>(w.in),
                            rows * w.inputs / 8,
                            reinterpret_cast<uint32_t*>(w.delta)};
      MUST(cuda::hopper::LaunchKernel(ReadKernel, dim3(blocks), dim3(256), 96 * 1024, context, p));
    };
    constexpr const char* kKinds[] = {"library", "in four", "normed"};
    double least[2][std::size(kKinds)], base = 0;
    for (const bool reads : {false, true}) {
      std::vector<Way> ways;
      const auto add = [&](const char* name, const std::function<void(int)>& run) {
        ways.push_back({name, [&read, reads, run](int i) {
                          if (reads) read(i);
                          run(i);
                        }});
      };
      for (const InTwo* two : {&one, &four}) {
        for (int a = 0; a < two->answers().count; ++a) {
          add(kKinds[two == &four], [=](int i) { two->Run(a, i, context); });
        }
      }
      add(kKinds[2],
          [&](int i) { MUST(cuda::hopper::LaunchWideNormed(w.Params(rows, i), context)); });
      if (reads) add("reads", [](int) {});
      Measure(ways, context.stream);
      base = reads ? ways.back().us() : 0;
      for (size_t kind = 0; kind < std::size(kKinds); ++kind) {
        double& us = least[reads][kind];
        us = 1e9;
        for (const Way& way : ways) {
          if (way.name == kKinds[kind]) us = std::min(us, way.us() - base);
        }
      }
    }
    std::printf("%3d rows, us: alone", rows);
    for (size_t kind = 0; kind < std::size(kKinds); ++kind) {
      std::printf(" %s %.1f", kKinds[kind], least[0][kind]);
    }
    std::printf("; behind reads of %.1f", base);
    for (size_t kind = 0; kind < std::size(kKinds); ++kind) {
      std::printf(" %s %.1f", kKinds[kind], least[1][kind]);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  return 0;
}

int Main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const LaunchContext context = MakeContext();
  std::vector<int> rows;
  for (int i = 2; i < argc; ++i) rows.push_back(std::atoi(argv[i]));
  if (what == "check") return CheckAll(context);
  if (what == "time") return TimeAll(rows, context);
  std::printf("normed_bench check | time [ROWS ...]\n");
  return 2;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) { return sirocco::Main(argc, argv); }
