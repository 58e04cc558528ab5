// GFLOP/s of oneDNN's float32 matrix product at the shapes given, to compare with. Built by
// cpu_bench.py where Debian's libdnnl-dev is installed; OMP_NUM_THREADS says how many threads.
//
// usage: onednn_bench ROWSxOUTPUTSxINPUTS...     a line each: the shape, GFLOP/s
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

namespace {

using Clock = std::chrono::steady_clock;

// The median of nine runs, each a tenth of a second.
double Measure(int64_t rows, int64_t outputs, int64_t inputs) {
  using tag = dnnl::memory::format_tag;
  const auto f32 = dnnl::memory::data_type::f32;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const dnnl::memory::desc in({rows, inputs}, f32, tag::ab);
  // oneDNN chooses the weights' order, as weights are packed once.
  const dnnl::memory::desc any_weight({inputs, outputs}, f32, tag::any);
  const dnnl::memory::desc out({rows, outputs}, f32, tag::ab);
  const dnnl::matmul::primitive_desc primitive({in, any_weight, out}, engine);
  dnnl::memory in_memory(in, engine), out_memory(out, engine);
  dnnl::memory weight_memory(primitive.weights_desc(), engine);
  for (auto* memory : {&in_memory, &weight_memory}) {
    auto* data = static_cast<float*>(memory->get_data_handle());
    std::fill(data, data + memory->get_desc().get_size() / sizeof(float), 0.5f);
  }
  const dnnl::matmul product(primitive);
  const auto run = [&] {
    product.execute(
        stream,
        {{DNNL_ARG_SRC, in_memory}, {DNNL_ARG_WEIGHTS, weight_memory}, {DNNL_ARG_DST, out_memory}});
    stream.wait();
  };
  run();
  std::vector<double> rates;
  for (int i = 0; i < 9; ++i) {
    int runs = 0;
    const Clock::time_point begin = Clock::now();
    std::chrono::duration<double> taken{};
    while (taken.count() < 0.1) {
      run();
      ++runs;
      taken = Clock::now() - begin;
    }
    rates.push_back(2e-9 * static_cast<double>(rows * outputs * inputs) * runs / taken.count());
  }
  std::sort(rates.begin(), rates.end());
  return rates[4];
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    long rows = 0, outputs = 0, inputs = 0;
    if (std::sscanf(argv[i], "%ldx%ldx%ld", &rows, &outputs, &inputs) != 3) return 2;
    std::printf("%s %.1f\n", argv[i], Measure(rows, outputs, inputs));
  }
}
