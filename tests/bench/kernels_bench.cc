// The CPU backend's operations at the sizes of a small model (SmolLM2-135M), as Google Benchmark
// reports them: time, GB/s of weights and KV read, GFLOP/s. Build with -c opt.
//
//   bazel run -c opt //tests/bench:kernels_bench -- --benchmark_filter=Decode
#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/cpu_device.h"
#include "kernels/ops.h"
#include "tests/kernels/fused_world.h"

namespace sirocco {
namespace {

constexpr int kThreads = 2;
constexpr LayerShape kLayer = {.hidden = 576,
                               .heads = 9,
                               .kv_heads = 3,
                               .head_dim = 64,
                               .rotary_dim = 64,
                               .intermediate = 1536,
                               .biases = false};
constexpr int32_t kVocab = 49152;

void MustBeOk(const absl::Status& status) {
  if (!status.ok()) std::abort();
}

struct Bench {
  explicit Bench(int32_t rows) : device(CreateCpuDevice(kThreads).value()), memory(*device) {
    w = std::make_unique<LayerWorld>(memory, kLayer, rows, DType::kFloat32, DType::kBFloat16);
    hidden = Empty(kLayer.hidden);
    normed = Empty(kLayer.hidden);
    qkv = Empty(w->ref.q_rows + 2 * w->ref.kv_rows);
    q = Empty(w->ref.q_rows);
    mlp = Empty(kLayer.intermediate);
  }
  Rows Empty(int32_t width) { return memory.Empty(w->rows, DType::kFloat32, width); }

  std::unique_ptr<Device> device;
  Memory memory;
  std::unique_ptr<LayerWorld> w;
  Rows hidden, normed, qkv, q, mlp;
};

double LayerWeights() {
  const double attention = 576.0 * (2 * 576 + 2 * 192);
  return attention + 3.0 * 576 * 1536;
}

void Report(benchmark::State& state, double weights, double rows, DType dtype = DType::kBFloat16) {
  const double runs = static_cast<double>(state.iterations());
  const double bytes = static_cast<double>(BytesOf(dtype, static_cast<uint64_t>(weights)));
  state.counters["GB/s"] = benchmark::Counter(1e-9 * bytes * runs, benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * weights * rows * runs, benchmark::Counter::kIsRate);
}

// One product. Few rows with the vocabulary's matrix, larger than the caches: the stream of
// weights. Many rows: a prompt's products.
void BM_MatMul(benchmark::State& state, DType dtype) {
  const int32_t rows = static_cast<int32_t>(state.range(0));
  const int32_t outputs = static_cast<int32_t>(state.range(1));
  const int32_t inputs = static_cast<int32_t>(state.range(2));
  const std::unique_ptr<Device> device = CreateCpuDevice(kThreads).value();
  Memory memory(*device);
  const Matrix weight =
      memory.Weights(std::vector<float>(int64_t{outputs} * inputs, 0.5f), dtype, outputs, inputs);
  // Memory that was never written is one page of zeros at all addresses, which caches do not like.
  const Rows in =
      memory.Activations(Values(5).Floats(int64_t{rows} * inputs), DType::kFloat32, inputs);
  const MatMulParams p{rows, in, weight, nullptr, memory.Empty(rows, DType::kFloat32, outputs)};
  for (auto _ : state) MustBeOk(device->ops().Run(p));
  Report(state, 1.0 * inputs * outputs, rows, dtype);
}

void ProductArguments(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "outputs", "inputs"})->UseRealTime();
  for (const int64_t rows : {1, 4, 16, 64}) bench->Args({rows, kVocab, 576});
  for (const auto& [outputs, inputs] :
       {std::pair(1536, 576), std::pair(576, 1536), std::pair(576, 576), std::pair(kVocab, 576)}) {
    bench->Args({512, outputs, inputs});
  }
}

// BM_MatMul/float32/rows:1/..., and so on: cpu_bench.py reads the type's name.
void RegisterProducts() {
  for (const DType dtype :
       {DType::kFloat32, DType::kBFloat16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    ProductArguments(benchmark::RegisterBenchmark(
        ("BM_MatMul/" + std::string(NameOf(dtype))).c_str(), BM_MatMul, dtype));
  }
}

// 30 recorded layers, each with weights of its own, and one row's short attention.
void BM_DecodeLayers(benchmark::State& state) {
  const int32_t rows = static_cast<int32_t>(state.range(0));
  constexpr int kLayers = 30;
  Bench b(rows);
  std::vector<std::unique_ptr<LayerWorld>> layers;
  for (int i = 0; i < kLayers; ++i) {
    layers.push_back(
        std::make_unique<LayerWorld>(b.memory, kLayer, rows, DType::kFloat32, DType::kBFloat16));
  }
  Ops& ops = b.device->ops();
  MustBeOk(b.device->BeginRecord());
  for (const auto& w : layers) {
    const LayerRef ref = w->Ref();
    MustBeOk(ops.Run(NormQkvParams{rows, ref, b.hidden, b.normed, b.qkv}));
    MustBeOk(ops.Run(QkvAttentionParams{rows, w->map, w->world.lanes(), ref, b.qkv, b.q, b.q}));
    MustBeOk(ops.Run(OutputResidualParams{rows, ref, b.q, b.hidden}));
    MustBeOk(ops.Run(NormGateUpParams{rows, ref, b.hidden, b.normed, b.mlp}));
    MustBeOk(ops.Run(DownResidualParams{rows, ref, b.mlp, b.hidden, nullptr}));
  }
  const std::unique_ptr<Recording> recording = b.device->EndRecord().value();
  for (auto _ : state) MustBeOk(b.device->Launch(*recording));
  Report(state, kLayers * LayerWeights(), rows);
}
BENCHMARK(BM_DecodeLayers)->ArgName("rows")->Arg(1)->Arg(4)->Arg(16)->UseRealTime();

// Attention of a whole prompt to itself, one layer.
void BM_PrefillAttention(benchmark::State& state) {
  const int32_t rows = static_cast<int32_t>(state.range(0));
  const std::unique_ptr<Device> device = CreateCpuDevice(kThreads).value();
  Memory memory(*device);
  World world(memory, {.lanes = 1, .max_length = rows}, 1);
  KvCache cache(memory, world, DType::kBFloat16, kLayer.kv_heads, kLayer.head_dim, 1, 2);
  std::vector<int32_t> position;
  for (int32_t i = 0; i < rows; ++i) position.push_back(i);
  PrefillAttentionParams p;
  p.rows = rows;
  p.map = world.Map(std::vector<int32_t>(rows, 0), position);
  p.lanes = world.lanes();
  p.segments = memory.Upload(std::vector<PrefillSegment>{{0, 0, 0, rows}});
  p.segment_count = memory.Upload(std::vector<int32_t>{1});
  p.q = memory.Activations(Values(3).Floats(rows * 576), DType::kFloat32, 576);
  p.shape = {.heads = kLayer.heads, .scale = 0.125f};
  p.kv = cache.layer();
  p.out = memory.Empty(rows, DType::kFloat32, 576);
  for (auto _ : state) MustBeOk(device->ops().Run(p));
  Report(state, rows * 576.0, rows);  // q k and p v over half the square
}
BENCHMARK(BM_PrefillAttention)->ArgName("rows")->Arg(512)->Arg(2048)->UseRealTime();

// One row's sampling: greedy, drawn from all, and after filters.
void BM_Sample(benchmark::State& state) {
  const std::unique_ptr<Device> device = CreateCpuDevice(kThreads).value();
  Memory memory(*device);
  World world(memory, {.lanes = 1, .max_length = 64, .vocab_size = kVocab}, 1);
  Lane lane = Lane();
  lane.length = 64;  // full: it stays as it is
  lane.repetition_penalty = 1;
  lane.temperature = state.range(0) > 0 ? 1.0f : 0.0f;
  lane.top_p = state.range(0) > 1 ? 0.9f : 1.0f;
  lane.top_k = state.range(0) > 2 ? 50 : 0;
  MustBeOk(device->CopyToDevice(world.lanes().lane, &lane, sizeof(lane)));
  SampleParams p;
  p.rows = 1;
  p.row_lane = memory.Upload(std::vector<int32_t>{0});
  p.lanes = world.lanes();
  p.logits = memory.Activations(Values(4).Floats(kVocab, state.range(1)), DType::kFloat32, kVocab);
  p.out = memory.Upload(std::vector<TokenScore>(1));
  for (auto _ : state) MustBeOk(device->ops().Run(p));
}
// logits: their range. 2: nearly flat; 30: peaked.
BENCHMARK(BM_Sample)
    ->ArgNames({"filters", "logits"})
    ->ArgsProduct({{0, 1, 2, 3}, {2, 30}})
    ->UseRealTime();

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  sirocco::RegisterProducts();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
