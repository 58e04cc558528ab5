// Pairs of wide products without norms between them (kernels/cuda/wide_pair.h), bfloat16: whether
// they are right, and what a layer takes with them, beside cuBLASLt's products, our wide gate and
// up, and norms of their own. Needs no Bazel, from the repository's root, where -I. finds its
// headers:
//
//   nvcc -std=c++20 -O3 --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a
//     -DSIROCCO_HOPPER=1 -I. tests/bench/wide_pair_bench.cu
//     kernels/cuda/{wide_product,gate_up_end,fused_norm}.cu kernels/cuda/kernel_attributes.cc
//     -o wide_pair_bench -lcublasLt -lcuda
//   wide_pair_bench check | products MODEL [ROWS ...] | layers MODEL [ROWS ...]
//
// check: against plain sums, with norms in double precision. products: each alone, one layer's
// after the other's, and the library's kernels. layers: some layers one after the other,
// attention's place taken by a kernel that waits for so many cycles; all by turns.
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
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wide_pair.h"
#include "tests/bench/library.cuh"
#include "tests/bench/wide_data.cuh"

namespace sirocco {
namespace {

using cuda::LaunchContext;
using cuda::WideChoice;
using cuda::WideProductParams;

struct Model {
  const char* name;
  int hidden, qkv, intermediate, layers;
  int cycles;  // in attention's place
};
constexpr Model kModels[] = {{"llama3.1-8b", 4096, 6144, 14336, 8, 14000},
                             {"llama3.2-1b", 2048, 3072, 8192, 16, 8000},
                             {"qwen3-4b", 2560, 6144, 9728, 12, 14000},
                             {"llama3.2-3b", 3072, 5120, 8192, 16, 10000},
                             {"qwen2.5-7b", 3584, 4608, 18944, 8, 10000}};
constexpr int kRows = 256;

struct SpinParams {
  int cycles;
};
__global__ void SpinKernel(const __grid_constant__ SpinParams p) {
  cuda::SIROCCO_CUDA_PATH::WaitForDependency();
  cuda::SIROCCO_CUDA_PATH::LaunchDependents();
  const int64_t from = clock64();
  while (clock64() - from < p.cycles) {
  }
}

__global__ void PlainKernel(const Element* in, const Element* weight, float* out, int rows,
                            int outputs, int inputs) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= int64_t{rows} * outputs) return;
  const Element* const x = in + i / outputs * inputs;
  const Element* const y = weight + i % outputs * inputs;
  float sum = 0;
  for (int k = 0; k < inputs; ++k) sum = fmaf(__bfloat162float(x[k]), __bfloat162float(y[k]), sum);
  out[i] = sum;
}

// How each product of a layer is made.
enum class How { kLibrary, kWide };
struct Way {
  How qkv = How::kLibrary, output = How::kLibrary, gate_up = How::kLibrary, down = How::kLibrary;
  const char* name = "";
  cudaGraphExec_t exec = nullptr;
  std::vector<float> us = {};
  // Without the norms between them.
  bool output_pair() const { return output == How::kWide; }
  bool down_pair() const { return down == How::kWide; }
  float Median() {
    std::sort(us.begin(), us.end());
    return us[us.size() / 2];
  }
};

class Layers {
 public:
  Layers(const Model& model, const LaunchContext& context)
      : model_(model), context_(context), library_(int64_t{kRows} * model.intermediate * 4) {
    const int64_t h = model.hidden;
    each_ = h * model.qkv + h * h + 3 * h * model.intermediate;
    weights_ = static_cast<Element*>(Allocate(each_ * model.layers * 2));
    FillKernel<<<2048, 256>>>(weights_, each_ * model.layers, 2.0f / std::sqrt(float(h)), 1);
    hidden_ = static_cast<float*>(Allocate(kRows * h * 4));
    normed_ = static_cast<Element*>(Allocate(kRows * h * 2));
    left_ = static_cast<Element*>(Allocate(kRows * h * 2));
    squares_ = static_cast<float*>(Allocate(kRows * (h / 16) * 4));
    qkv_ = static_cast<float*>(Allocate(int64_t{kRows} * model.qkv * 4));
    attention_ = static_cast<Element*>(Allocate(kRows * h * 2));
    activated_ = static_cast<Element*>(Allocate(int64_t{kRows} * model.intermediate * 2));
    norm_ = static_cast<float*>(Allocate(h * 4));
    FillKernel<<<64, 256>>>(norm_, h, 1.0f, 6);
    LayerParams layer;
    layer.mlp_norm = norm_;
    layer.attention_norm = norm_;
    layer.norm_epsilon = 1e-5f;
    table_ = static_cast<LayerParams*>(Allocate(sizeof(layer)));
    MUST(cudaMemcpy(table_, &layer, sizeof(layer), cudaMemcpyHostToDevice));
    Fill();
  }
  void Fill() const {
    FillKernel<<<512, 256>>>(hidden_, int64_t{kRows} * model_.hidden, 1.0f, 5);
    FillKernel<<<512, 256>>>(normed_, int64_t{kRows} * model_.hidden, 1.0f, 7);
    FillKernel<<<512, 256>>>(attention_, int64_t{kRows} * model_.hidden, 0.3f, 8);
    FillKernel<<<512, 256>>>(activated_, int64_t{kRows} * model_.intermediate, 0.1f, 9);
    MUST(cudaMemset(left_, 0xff, int64_t{kRows} * model_.hidden * 2));
    MUST(cudaMemset(squares_, 0xff, int64_t{kRows} * (model_.hidden / 16) * 4));
    MUST(cudaMemset(qkv_, 0xff, int64_t{kRows} * model_.qkv * 4));
    MUST(cudaDeviceSynchronize());
  }

  WideProductParams Qkv(int rows, int layer) const {
    return Product(rows, normed_, Weights(layer), model_.qkv, model_.hidden, qkv_,
                   DType::kFloat32, false);
  }
  WideProductParams Output(int rows, int layer) const {
    return Product(rows, attention_, Weights(layer) + int64_t{model_.qkv} * model_.hidden,
                   model_.hidden, model_.hidden, hidden_, DType::kFloat32, true);
  }
  WideProductParams GateUp(int rows, int layer) const {
    const int64_t gate = int64_t{model_.qkv + model_.hidden} * model_.hidden;
    WideProductParams p = Product(rows, normed_, Weights(layer) + gate, model_.intermediate,
                                  model_.hidden, activated_, DType::kBFloat16, false);
    p.up = p.weight;
    p.up.data = Weights(layer) + gate + int64_t{model_.intermediate} * model_.hidden;
    return p;
  }
  WideProductParams Down(int rows, int layer) const {
    const int64_t at =
        int64_t{model_.qkv + model_.hidden + 2 * model_.intermediate} * model_.hidden;
    return Product(rows, activated_, Weights(layer) + at, model_.hidden, model_.intermediate,
                   hidden_, DType::kFloat32, true);
  }
  WideProductParams Leaves(WideProductParams p) const {
    p.leaves = {norm_, left_, squares_};
    return p;
  }
  WideProductParams Reads(WideProductParams p, const WideProductParams& from) const {
    p.in.data = left_;
    p.unnormed = {squares_, cuda::RunsOf(from, ChoiceOf(from)), 1e-5f};
    return p;
  }
  // As the program chooses.
  bool IsWide(const WideProductParams& p, WideChoice& choice) const {
    return cuda::ChooseWideInPair(p, clusters_, choice);
  }
  WideChoice ChoiceOf(const WideProductParams& p) const {
    WideChoice choice;
    if (!IsWide(p, choice)) {
      std::printf("no tile for %d rows of %d outputs\n", p.rows, p.weight.rows);
      std::exit(1);
    }
    return choice;
  }

  void Make(const WideProductParams& p, How how, const cublasLtMatmulAlgo_t& algorithm) {
    if (how == How::kLibrary) {
      library_.Run(p, algorithm, context_);
    } else {
      MUST(cuda::hopper::LaunchWideProduct(p, ChoiceOf(p), context_));
    }
  }
  void MakeLibrarys(const WideProductParams& p, int which) {
    library_.Run(p, algorithms_[which], context_);
  }
  void NormBehindOutput(int rows) const {
    NormGateUpParams p;
    p.rows = rows;
    p.layer.table = table_;
    p.hidden = {hidden_, DType::kFloat32, model_.hidden};
    p.normed = {normed_, DType::kBFloat16, model_.hidden};
    MUST(cuda::hopper::LaunchNorms(p, context_));
  }
  void NormBehindDown(int rows) const {
    cuda::DownEndParams p;
    p.rows = rows;
    p.layer.table = table_;
    p.hidden = {hidden_, DType::kFloat32, model_.hidden};
    p.normed = {normed_, DType::kBFloat16, model_.hidden};
    p.next_norm = norm_;
    MUST(cuda::hopper::LaunchNorms(p, context_));
  }
  void Attend() const {
    MUST(cuda::SIROCCO_CUDA_PATH::LaunchKernel(SpinKernel, dim3(132), dim3(256), 0, context_,
                                    SpinParams{model_.cycles}));
  }

  // The library's best algorithms at so many rows, by time.
  void ChooseLibrarys(int rows) {
    const std::function<WideProductParams(int)> products[] = {
        [&](int l) { return Qkv(rows, l); }, [&](int l) { return Output(rows, l); },
        [&](int l) { return GateUp(rows, l); }, [&](int l) { return Down(rows, l); }};
    for (int i = 0; i < 4; ++i) {
      const Answers answers = library_.AnswersOf(products[i](0));
      float best = 0;
      for (int a = 0; a < answers.count; ++a) {
        const float us = Time([&](int l) { library_.Run(products[i](l), answers.at[a], context_); });
        if (a > 0 && us >= best) continue;
        best = us;
        algorithms_[i] = answers.at[a];
      }
    }
  }
  float Time(const std::function<void(int)>& of_layer) {
    Way way;
    Record(way, of_layer);
    for (int i = 0; i < 4; ++i) Run(way, 4);
    MUST(cudaGraphExecDestroy(way.exec));
    return way.Median();
  }
  void Record(Way& way, const std::function<void(int)>& of_layer) const {
    cudaGraph_t graph;
    MUST(cudaStreamBeginCapture(context_.stream, cudaStreamCaptureModeThreadLocal));
    for (int l = 0; l < model_.layers; ++l) of_layer(l);
    MUST(cudaStreamEndCapture(context_.stream, &graph));
    MUST(cudaGraphInstantiate(&way.exec, graph, 0));
    MUST(cudaGraphDestroy(graph));
  }
  void Run(Way& way, int times) const {
    static cudaEvent_t from = nullptr, to = nullptr;
    if (from == nullptr) {
      MUST(cudaEventCreate(&from));
      MUST(cudaEventCreate(&to));
    }
    MUST(cudaGraphLaunch(way.exec, context_.stream));
    MUST(cudaEventRecord(from, context_.stream));
    for (int i = 0; i < times; ++i) MUST(cudaGraphLaunch(way.exec, context_.stream));
    MUST(cudaEventRecord(to, context_.stream));
    MUST(cudaStreamSynchronize(context_.stream));
    float ms = 0;
    MUST(cudaEventElapsedTime(&ms, from, to));
    way.us.push_back(ms * 1e3f / times / model_.layers);
  }
  void Layer(const Way& way, int rows, int l) {
    WideProductParams qkv = Qkv(rows, l), output = Output(rows, l), gate_up = GateUp(rows, l),
                      down = Down(rows, l);
    if (way.output_pair()) {
      output = Leaves(output);
      gate_up = Reads(gate_up, output);
    }
    if (way.down_pair()) {
      down = Leaves(down);
      qkv = Reads(qkv, down);
    }
    Make(qkv, way.qkv, algorithms_[0]);
    Attend();
    Make(output, way.output, algorithms_[1]);
    if (!way.output_pair()) NormBehindOutput(rows);
    Make(gate_up, way.gate_up, algorithms_[2]);
    Make(down, way.down, algorithms_[3]);
    if (!way.down_pair()) NormBehindDown(rows);
  }

  // ---- Whether pairs are right ----
  std::vector<float> Download(const float* from, int64_t count) const {
    std::vector<float> to(count);
    MUST(cudaMemcpy(to.data(), from, count * 4, cudaMemcpyDeviceToHost));
    return to;
  }
  std::vector<float> Plain(const WideProductParams& p, const Matrix& w) const {
    const int64_t count = int64_t{p.rows} * w.rows;
    float* const out = static_cast<float*>(Allocate(count * 4));
    PlainKernel<<<static_cast<unsigned>((count + 127) / 128), 128>>>(
        static_cast<const Element*>(p.in.data), static_cast<const Element*>(w.data), out, p.rows,
        w.rows, w.cols);
    std::vector<float> sums = Download(out, count);
    MUST(cudaFree(out));
    return sums;
  }
  static double ErrorOf(const std::vector<float>& got, const std::vector<float>& want) {
    double worst = 0, largest = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double d = std::fabs(double(got[i]) - want[i]);
      worst = std::max(worst, std::isnan(d) ? 1e30 : d);
      largest = std::max(largest, std::fabs(double(want[i])));
    }
    return worst / largest;
  }
  // Of a pair's stream, and of what the second makes; false where runs differ.
  bool Pair(int rows, bool attention, double (&errors)[2]) {
    Fill();
    const WideProductParams one = Leaves(attention ? Output(rows, 0) : Down(rows, 0));
    const WideProductParams two = Reads(attention ? GateUp(rows, 0) : Qkv(rows, 1), one);
    const int h = model_.hidden;
    const std::vector<float> before = Download(hidden_, int64_t{rows} * h);
    const std::vector<float> next = Download(norm_, h);
    std::vector<float> stream = Plain(one, one.weight);
    std::vector<Element> normed(stream.size());
    for (int row = 0; row < rows; ++row) {
      double squares = 0;
      for (int i = 0; i < h; ++i) {
        const size_t at = size_t(row) * h + i;
        stream[at] += before[at];
        squares += double(stream[at]) * stream[at];
      }
      const double inverse = 1 / std::sqrt(squares / h + 1e-5);
      for (int i = 0; i < h; ++i) {
        const size_t at = size_t(row) * h + i;
        normed[at] = __double2bfloat16(stream[at] * inverse * next[i]);
      }
    }
    MUST(cudaMemcpy(normed_, normed.data(), normed.size() * 2, cudaMemcpyHostToDevice));
    WideProductParams plain = two;
    plain.in.data = normed_;
    std::vector<float> want = Plain(plain, two.weight);
    if (attention) {
      const std::vector<float> up = Plain(plain, two.up);
      for (size_t i = 0; i < want.size(); ++i) {
        want[i] = static_cast<float>(want[i] / (1 + std::exp(-double(want[i]))) * up[i]);
      }
    }
    std::vector<float> got[2], joined[2];
    for (int run = 0; run < 2; ++run) {
      Fill();
      if (attention) MUST(cudaMemset(activated_, 0xff, int64_t{kRows} * model_.intermediate * 2));
      Make(one, How::kWide, {});
      Make(two, How::kWide, {});
      MUST(cudaDeviceSynchronize());
      joined[run] = Download(hidden_, int64_t{rows} * h);
      if (attention) {
        std::vector<Element> halves(want.size());
        MUST(cudaMemcpy(halves.data(), activated_, halves.size() * 2, cudaMemcpyDeviceToHost));
        got[run].resize(want.size());
        for (size_t i = 0; i < want.size(); ++i) got[run][i] = __bfloat162float(halves[i]);
      } else {
        got[run] = Download(qkv_, int64_t(want.size()));
      }
    }
    errors[0] = ErrorOf(joined[0], stream);
    errors[1] = ErrorOf(got[0], want);
    return std::memcmp(got[0].data(), got[1].data(), got[0].size() * 4) == 0 &&
           std::memcmp(joined[0].data(), joined[1].data(), joined[0].size() * 4) == 0;
  }

 private:
  Element* Weights(int layer) const { return weights_ + layer % model_.layers * each_; }
  static WideProductParams Product(int rows, void* in, void* weight, int outputs, int inputs,
                                   void* out, DType dtype, bool add) {
    WideProductParams p;
    p.rows = rows;
    p.in = {in, DType::kBFloat16, inputs};
    p.weight = {weight, DType::kBFloat16, outputs, inputs};
    p.out = {out, dtype, outputs};
    p.add = add;
    p.activation = Activation::kSilu;
    return p;
  }
  const Model model_;
  const LaunchContext context_;
  const int32_t clusters_ = cuda::hopper::RoomOfWidePairs();
  Library library_;
  cublasLtMatmulAlgo_t algorithms_[4] = {};
  int64_t each_ = 0;
  Element *weights_, *normed_, *left_, *attention_, *activated_;
  float *hidden_, *squares_, *qkv_, *norm_;
  LayerParams* table_;
};

int CheckAll(const LaunchContext& context) {
  int wrong = 0;
  for (const Model& model : kModels) {
    Layers layers(model, context);
    for (const int rows : {33, 40, 64, 65, 72, 128, 129, 200, 256}) {
      for (const bool attention : {true, false}) {
        WideChoice choice;
        const WideProductParams first =
            layers.Leaves(attention ? layers.Output(rows, 0) : layers.Down(rows, 0));
        if (!layers.IsWide(first, choice)) continue;
        if (!attention && !layers.IsWide(layers.Qkv(rows, 0), choice)) continue;
        double errors[2];
        const bool same = layers.Pair(rows, attention, errors);
        const bool right = same && errors[0] < 1e-4 && errors[1] < 2e-2;
        std::printf("%s%s rows %d %s: stream %.1e, outputs %.1e%s\n", right ? "" : "WRONG ",
                    model.name, rows, attention ? "output" : "down", errors[0], errors[1],
                    same ? "" : ", other bits");
        wrong += right ? 0 : 1;
      }
      std::fflush(stdout);
    }
  }
  std::printf(wrong == 0 ? "all are right\n" : "%d WRONG\n", wrong);
  return wrong == 0 ? 0 : 1;
}

// The kernels of the library's best, and their grids.
void PrintKernels(Layers& layers, int which, const WideProductParams& p, const LaunchContext& context) {
  cudaGraph_t graph;
  MUST(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
  layers.MakeLibrarys(p, which);
  MUST(cudaStreamEndCapture(context.stream, &graph));
  cudaGraphNode_t nodes[8];
  size_t count = 8;
  MUST(cudaGraphGetNodes(graph, nodes, &count));
  for (size_t i = 0; i < count; ++i) {
    CUDA_KERNEL_NODE_PARAMS params;
    if (cuGraphKernelNodeGetParams(nodes[i], &params) != CUDA_SUCCESS) continue;
    const char* name = "?";
    cuFuncGetName(&name, params.func);
    std::printf("  [%s grid %u %u %u, %u threads, %u KB]", name, params.gridDimX, params.gridDimY,
                params.gridDimZ, params.blockDimX, params.sharedMemBytes >> 10);
  }
  MUST(cudaGraphDestroy(graph));
}

// Each product alone, one layer's after the other's: the library's best, and ours.
int ProductsAll(const std::string& wanted, const std::vector<int>& all,
                const LaunchContext& context) {
  constexpr const char* kNames[] = {"qkv", "output", "gate_up", "down"};
  for (const Model& model : kModels) {
    if (model.name != wanted) continue;
    Layers layers(model, context);
    for (const int rows : all) {
      layers.ChooseLibrarys(rows);
      for (int i = 0; i < 4; ++i) {
        const auto product = [&](int l) {
          return i == 0   ? layers.Qkv(rows, l)
                 : i == 1 ? layers.Leaves(layers.Output(rows, l))
                 : i == 2 ? layers.GateUp(rows, l)
                          : layers.Leaves(layers.Down(rows, l));
        };
        std::printf("%s %d rows %s: library %.1f us", model.name, rows, kNames[i],
                    layers.Time([&](int l) { layers.MakeLibrarys(product(l), i); }));
        PrintKernels(layers, i, product(0), context);
        WideChoice choice;
        if (layers.IsWide(product(0), choice)) {
          std::printf(", ours %.1f",
                      layers.Time([&](int l) { layers.Make(product(l), How::kWide, {}); }));
        }
        std::printf("\n");
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

int LayersAll(const std::string& wanted, const std::vector<int>& all,
              const LaunchContext& context) {
  for (const Model& model : kModels) {
    if (model.name != wanted) continue;
    Layers layers(model, context);
    for (const int rows : all) {
      layers.ChooseLibrarys(rows);
      WideChoice choice;
      constexpr How kLibrary = How::kLibrary, kWide = How::kWide;
      std::vector<Way> ways = {{kLibrary, kLibrary, kLibrary, kLibrary, "the library's"}};
      if (rows >= cuda::kWideRows) {
        ways.push_back({kLibrary, kLibrary, kWide, kLibrary, "gate and up wide"});
      }
      const bool output = layers.IsWide(layers.Leaves(layers.Output(rows, 0)), choice);
      const bool down = layers.IsWide(layers.Leaves(layers.Down(rows, 0)), choice) &&
                        layers.IsWide(layers.Qkv(rows, 0), choice);
      if (output) ways.push_back({kLibrary, kWide, kWide, kLibrary, "output's pair"});
      if (output && down) ways.push_back({kWide, kWide, kWide, kWide, "both pairs"});
      for (Way& way : ways) layers.Record(way, [&](int l) { layers.Layer(way, rows, l); });
      for (int round = 0; round < 8; ++round) {
        for (size_t i = 0; i < ways.size(); ++i) {
          layers.Run(ways[round % 2 == 0 ? i : ways.size() - 1 - i], 8);
        }
      }
      std::printf("%s %d rows, us a layer, %d cycles in attention's place:", model.name, rows,
                  model.cycles);
      for (Way& way : ways) {
        std::printf("  %s %.1f", way.name, way.Median());
        MUST(cudaGraphExecDestroy(way.exec));
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) {
  using namespace sirocco;
  const std::string what = argc > 1 ? argv[1] : "";
  const LaunchContext context = MakeContext();
  if (what == "check") return CheckAll(context);
  if ((what == "layers" || what == "products") && argc > 2) {
    std::vector<int> rows;
    for (int i = 3; i < argc; ++i) rows.push_back(std::atoi(argv[i]));
    if (rows.empty()) rows = {40, 64, 96, 128, 160, 192, 256};
    return (what == "layers" ? LayersAll : ProductsAll)(argv[2], rows, context);
  }
  std::printf("wide_pair_bench check | products MODEL [ROWS ...] | layers MODEL [ROWS ...]\n");
  return 2;
}
