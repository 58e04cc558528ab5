// What a graph of kernels holds on the device and what making it takes the host: one case a
// process, since what the driver frees it keeps for later. Links nothing of Sirocco.
//
//   nvcc -std=c++20 -O2 -arch=sm_90 tests/bench/graph_bench.cu -o graph_bench -lcublasLt
//   graph_bench [name=value ...]        a line of JSON; graph_cases.sh runs the cases
//
// A step of the program is captured node by node, looked at, instantiated, uploaded, and what was
// captured is destroyed (kernels/cuda/cuda_graph.cc); so here, for `graphs` graphs of `nodes`
// kernels in a row:
//
//   params=8|256|512|1024|2048|4096   bytes of parameters of each kernel
//   edge=full|programmatic            how each waits for the one before
//   cluster=1|2|4|8                   blocks a cluster
//   kernels=1...8                     different ones, in turn
//   stack=0|1                         kernels that need local memory
//   library=0|1|2                     products of cuBLASLt in place of kernels: with 2 in two
//                                     parts that a second kernel adds up
//   products=M, of=N                  of each N nodes the last M are the library's, the others kernels
//   small=N, small_nodes=M            the last N graphs have M nodes, all of them kernels
//   first=0|1                         they come last or first
//   last=N, step=M                    not this case but memory alone: `graphs` graphs each of `nodes`
//                                     nodes, of M more, ... of N; a line for each, all are kept
//   flags=N                           of cudaGraphInstantiate: 0; 2 upload; 8 node priorities
//   upload=0|1|2                      cudaGraphUpload: not; after it; of all graphs at the end
//   sync=0|1                          wait for each upload
//   inspect=0|1, meminfo=0|1          what the program asks in between
//   threads=N, share=capture|instantiate   all of the work on N threads, each with a stream of its
//                                     own; or captures on one thread and the rest on N others, at
//                                     most eight graphs behind
//   attribute=0|1                     cudaFuncSetAttribute before each launch
#include <cublasLt.h>
#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

void Must(int error, const char* what, int line) {
  if (error == 0) return;  // success of all three libraries
  std::fprintf(stderr, "graph_bench: line %d: %s returned %d\n", line, what, error);
  std::exit(1);
}
#define MUST(call) Must(static_cast<int>(call), #call, __LINE__)

double Now() {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// ---- The kernels ----------------------------------------------------------------------------

template <int kBytes>
struct Params {
  char bytes[kBytes];
};

template <int kBytes, int kNumber, bool kStack>
__global__ void Kernel(const __grid_constant__ Params<kBytes> p) {
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  if (threadIdx.x == 1024 + kNumber) printf("%d", p.bytes[0]);  // never
  if constexpr (kStack) {
    volatile int local[256];
    for (int i = 0; i < 256; ++i) local[i] = i;
    if (local[threadIdx.x] < 0) printf("%d", local[p.bytes[0]]);  // never
  }
}

using Launch = cudaError_t (*)(const cudaLaunchConfig_t&);
struct Entry {
  const void* function;
  Launch launch;
};

template <int kBytes, int kNumber, bool kStack>
Entry EntryOf() {
  return {reinterpret_cast<const void*>(Kernel<kBytes, kNumber, kStack>),
          [](const cudaLaunchConfig_t& config) {
            Params<kBytes> params = {};
            return cudaLaunchKernelEx(&config, Kernel<kBytes, kNumber, kStack>, params);
          }};
}

template <int kBytes, bool kStack>
std::vector<Entry> Numbered() {
  return {EntryOf<kBytes, 0, kStack>(), EntryOf<kBytes, 1, kStack>(), EntryOf<kBytes, 2, kStack>(),
          EntryOf<kBytes, 3, kStack>(), EntryOf<kBytes, 4, kStack>(), EntryOf<kBytes, 5, kStack>(),
          EntryOf<kBytes, 6, kStack>(), EntryOf<kBytes, 7, kStack>()};
}

std::vector<Entry> EntriesOf(int bytes, bool stack) {
  if (stack) return Numbered<8, true>();
  switch (bytes) {
    case 8:
      return Numbered<8, false>();
    case 256:
      return Numbered<256, false>();
    case 512:
      return Numbered<512, false>();
    case 1024:
      return Numbered<1024, false>();
    case 2048:
      return Numbered<2048, false>();
    case 4096:
      return Numbered<4096, false>();
    default:
      std::fprintf(stderr, "graph_bench: params=%d; 8, 256, 512, 1024, 2048, 4096\n", bytes);
      std::exit(2);
  }
}

// ---- The case -------------------------------------------------------------------------------

struct Case {
  int nodes = 200, graphs = 64, params = 8, cluster = 1, kernels = 1, stack = 0, library = 0;
  int products = 1, of = 1, small = 0, small_nodes = 1, first = 0, last = 0, step = 1;
  int flags = 0, upload = 1, sync = 0, inspect = 1, meminfo = 1, threads = 1, attribute = 0;
  bool programmatic = true, captures_shared = true;
  std::string text;
};

Case Parse(int count, char** arguments) {
  Case c;
  const std::map<std::string, int*> numbers = {
      {"nodes", &c.nodes},        {"graphs", &c.graphs},   {"params", &c.params},
      {"cluster", &c.cluster},    {"kernels", &c.kernels}, {"stack", &c.stack},
      {"library", &c.library},    {"flags", &c.flags},     {"upload", &c.upload},
      {"products", &c.products},  {"of", &c.of},           {"small", &c.small},
      {"small_nodes", &c.small_nodes},                     {"sync", &c.sync},
      {"first", &c.first},        {"last", &c.last},       {"step", &c.step},
      {"inspect", &c.inspect},    {"meminfo", &c.meminfo}, {"threads", &c.threads},
      {"attribute", &c.attribute}};
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    c.text += (i > 1 ? " " : "") + argument;
    if (const auto found = numbers.find(name); found != numbers.end() && !value.empty()) {
      *found->second = std::atoi(value.c_str());
    } else if (name == "edge" && (value == "full" || value == "programmatic")) {
      c.programmatic = value == "programmatic";
    } else if (name == "share" && (value == "capture" || value == "instantiate")) {
      c.captures_shared = value == "capture";
    } else {
      std::fprintf(stderr, "graph_bench: %s\n", argument.c_str());
      std::exit(2);
    }
  }
  c.kernels = std::clamp(c.kernels, 1, 8);
  c.threads = std::max(c.threads, 1);
  return c;
}

// A product of 128 rows by an algorithm of the library's first answer: bfloat16 to float32, as the
// program's with many rows.
class Library {
 public:
  void Create(int parts) {
    MUST(cublasLtCreate(&handle_));
    MUST(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    MUST(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                        sizeof(transposed)));
    MUST(cublasLtMatrixLayoutCreate(&a_, CUDA_R_16BF, kInputs, kOutputs, kInputs));
    MUST(cublasLtMatrixLayoutCreate(&b_, CUDA_R_16BF, kInputs, kRows, kInputs));
    MUST(cublasLtMatrixLayoutCreate(&d_, CUDA_R_32F, kOutputs, kRows, kOutputs));
    cublasLtMatmulPreference_t preference;
    MUST(cublasLtMatmulPreferenceCreate(&preference));
    const uint64_t workspace = kWorkspace;
    MUST(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &workspace, sizeof(workspace)));
    cublasLtMatmulHeuristicResult_t result = {};
    int found = 0;
    MUST(cublasLtMatmulAlgoGetHeuristic(handle_, product_, a_, b_, d_, d_, preference, 1, &result,
                                        &found));
    algorithm_ = result.algo;
    const int32_t split = parts;
    const uint32_t scheme = parts > 1 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : 0;
    MUST(cublasLtMatmulAlgoConfigSetAttribute(&algorithm_, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split,
                                              sizeof(split)));
    MUST(cublasLtMatmulAlgoConfigSetAttribute(&algorithm_, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                              &scheme, sizeof(scheme)));
    const size_t bytes = 2 * kInputs * (kOutputs + kRows) + 4 * kOutputs * kRows + kWorkspace;
    MUST(cudaMalloc(&memory_, bytes));
    MUST(cudaMemset(memory_, 0, bytes));
  }
  void Run(cudaStream_t stream) {
    const float one = 1, zero = 0;
    char* const a = memory_;
    char* const b = a + 2 * kInputs * kOutputs;
    char* const d = b + 2 * kInputs * kRows;
    char* const workspace = d + 4 * kOutputs * kRows;
    MUST(cublasLtMatmul(handle_, product_, &one, a, a_, b, b_, &zero, d, d_, d, d_, &algorithm_,
                        workspace, kWorkspace, stream));
  }

 private:
  static constexpr size_t kRows = 128, kOutputs = 1536, kInputs = 1152;
  static constexpr size_t kWorkspace = size_t{32} << 20;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, d_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_ = {};
  char* memory_ = nullptr;
};

// A function of the driver, which this program is not linked with.
template <typename Function>
Function DriverFunction(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  MUST(cudaGetDriverEntryPointByVersion(name, &found, 12040, cudaEnableDefault, &result));
  MUST(found == nullptr);
  return reinterpret_cast<Function>(found);
}

// Of a kernel node.
size_t ParameterBytes(cudaGraphNode_t node) {
  CUDA_KERNEL_NODE_PARAMS params = {};
  MUST(DriverFunction<decltype(&cuGraphKernelNodeGetParams)>("cuGraphKernelNodeGetParams")(
      node, &params));
  CUfunction function = params.func;
  if (function == nullptr) {
    MUST(DriverFunction<decltype(&cuKernelGetFunction)>("cuKernelGetFunction")(&function,
                                                                               params.kern));
  }
  const auto info = DriverFunction<decltype(&cuFuncGetParamInfo)>("cuFuncGetParamInfo");
  size_t end = 0;
  for (size_t i = 0;; ++i) {
    size_t offset = 0, bytes = 0;
    if (info(function, i, &offset, &bytes) != CUDA_SUCCESS) return end;
    end = offset + bytes;
  }
}

size_t FreeBytes() {
  size_t free = 0, total = 0;
  MUST(cudaMemGetInfo(&free, &total));
  return free;
}

// Microseconds of one graph.
struct Times {
  double capture = 0, inspect = 0, meminfo = 0, instantiate = 0, upload = 0, destroy = 0;
};
void Add(Times& sum, const Times& t) {
  sum.capture += t.capture;
  sum.inspect += t.inspect;
  sum.meminfo += t.meminfo;
  sum.instantiate += t.instantiate;
  sum.upload += t.upload;
  sum.destroy += t.destroy;
}

class Bench {
 public:
  explicit Bench(const Case& c) : c_(c), entries_(EntriesOf(c.params, c.stack != 0)) {
    if (c.library > 0) library_.Create(c.library);
    execs_.resize(c.graphs);
    for (int i = 0; i <= c.threads; ++i) {
      cudaStream_t stream;
      MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      streams_.push_back(stream);
    }
  }

  void Run() {
    // Once outside: kernels are loaded, local memory and the library's state are there.
    for (int i = 0; i < c_.kernels; ++i) Kernel(streams_[0], i);
    if (c_.library > 0) library_.Run(streams_[0]);
    MUST(cudaStreamSynchronize(streams_[0]));
    if (c_.last > 0) return Sweep();
    const size_t before = FreeBytes();
    const double begin = Now();
    if (!c_.captures_shared) {
      Pipelined();
    } else if (c_.threads > 1) {
      Shared();
    } else {
      for (int i = 0; i < c_.graphs; ++i) {
        Rest(streams_[0], i, Capture(streams_[0], i, sums_), sums_);
        if (i == 0) first_ = before - FreeBytes();
      }
    }
    if (c_.upload == 2) {
      for (cudaGraphExec_t exec : execs_) MUST(cudaGraphUpload(exec, streams_[0]));
    }
    for (cudaStream_t stream : streams_) MUST(cudaStreamSynchronize(stream));
    wall_ = Now() - begin;
    const size_t after = FreeBytes();
    Replay();
    const size_t replayed = FreeBytes();
    const double from = Now();
    for (cudaGraphExec_t exec : execs_) MUST(cudaGraphExecDestroy(exec));
    exec_destroy_ = Now() - from;
    Report(before - after, after - replayed, FreeBytes() - replayed);
  }

 private:
  // What is there when the next size begins has room for at most 2 MiB of it.
  void Sweep() {
    for (; nodes_ <= c_.last; nodes_ += std::max(c_.step, 1)) {
      const size_t before = FreeBytes();
      const double begin = Now();
      for (int i = 0; i < c_.graphs; ++i) {
        Rest(streams_[0], i, Capture(streams_[0], i, sums_), sums_);
      }
      MUST(cudaStreamSynchronize(streams_[0]));
      std::printf("{\"case\": \"%s\", \"nodes\": %d, \"bytes_a_graph\": %zu, "
                  "\"wall_us_a_graph\": %.0f}\n",
                  c_.text.c_str(), nodes_, (before - FreeBytes()) / c_.graphs,
                  (Now() - begin) / c_.graphs);
    }
  }

  bool IsSmall(int graph) const {
    return c_.first != 0 ? graph < c_.small : graph >= c_.graphs - c_.small;
  }

  void Node(cudaStream_t stream, int graph, int i) {
    if (c_.library > 0 && !IsSmall(graph) && i % c_.of >= c_.of - c_.products) return library_.Run(stream);
    Kernel(stream, i);
  }

  void Kernel(cudaStream_t stream, int i) {
    const Entry& entry = entries_[i % c_.kernels];
    if (c_.attribute != 0) {
      MUST(cudaFuncSetAttribute(entry.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                100 << 10));
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(128);
    config.blockDim = dim3(128);
    config.stream = stream;
    cudaLaunchAttribute attributes[2];
    config.attrs = attributes;
    if (c_.programmatic) {
      cudaLaunchAttribute& a = attributes[config.numAttrs++];
      a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      a.val.programmaticStreamSerializationAllowed = 1;
    }
    if (c_.cluster > 1) {
      cudaLaunchAttribute& a = attributes[config.numAttrs++];
      a.id = cudaLaunchAttributeClusterDimension;
      a.val.clusterDim = {static_cast<unsigned>(c_.cluster), 1, 1};
    }
    MUST(entry.launch(config));
  }

  cudaGraph_t Capture(cudaStream_t stream, int index, Times& times) {
    const double begin = Now();
    const int nodes = IsSmall(index) ? c_.small_nodes : nodes_;
    cudaGraph_t graph;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    for (int i = 0; i < nodes; ++i) Node(stream, index, i);
    MUST(cudaStreamEndCapture(stream, &graph));
    times.capture += Now() - begin;
    return graph;
  }

  void Rest(cudaStream_t stream, int index, cudaGraph_t graph, Times& times) {
    double at = Now();
    const auto lap = [&at] {
      const double begin = at;
      at = Now();
      return at - begin;
    };
    if (c_.inspect != 0) Inspect(graph);
    times.inspect += lap();
    if (c_.meminfo != 0) FreeBytes();
    times.meminfo += lap();
    MUST(cudaGraphInstantiate(&execs_[index], graph, static_cast<unsigned long long>(c_.flags)));
    times.instantiate += lap();
    if (c_.upload == 1) MUST(cudaGraphUpload(execs_[index], stream));
    if (c_.sync != 0) MUST(cudaStreamSynchronize(stream));
    times.upload += lap();
    if (c_.meminfo != 0) FreeBytes();
    times.meminfo += lap();
    MUST(cudaGraphDestroy(graph));
    times.destroy += lap();
  }

  // As the program looks at what it has captured.
  void Inspect(cudaGraph_t graph) {
    size_t count = 0;
    MUST(cudaGraphGetNodes(graph, nullptr, &count));
    std::vector<cudaGraphNode_t> nodes(count);
    MUST(cudaGraphGetNodes(graph, nodes.data(), &count));
    for (cudaGraphNode_t node : nodes) {
      cudaGraphNodeType type;
      MUST(cudaGraphNodeGetType(node, &type));
    }
    size_t edges = 0;
    MUST(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
    std::vector<cudaGraphNode_t> from(edges), to(edges);
    std::vector<cudaGraphEdgeData> data(edges);
    if (edges > 0) MUST(cudaGraphGetEdges(graph, from.data(), to.data(), data.data(), &edges));
    if (asked_.exchange(true)) return;
    kernels_in_graph_ = static_cast<int>(count);
    for (const cudaGraphEdgeData& edge : data) {
      programmatic_ += edge.type == cudaGraphDependencyTypeProgrammatic;
    }
    parameter_bytes_ = ParameterBytes(nodes.back());
  }

  // All of it on each thread.
  void Shared() {
    std::atomic<int> next = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < c_.threads; ++t) {
      threads.emplace_back([this, t, &next] {
        Times times;
        for (int i = next++; i < c_.graphs; i = next++) {
          Rest(streams_[t], i, Capture(streams_[t], i, times), times);
        }
        const std::lock_guard lock(mutex_);
        Add(sums_, times);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  // Captures here, the rest there.
  void Pipelined() {
    std::deque<std::pair<int, cudaGraph_t>> queue;
    std::condition_variable filled, taken;
    bool done = false;
    std::vector<std::thread> threads;
    for (int t = 1; t <= c_.threads; ++t) {
      threads.emplace_back([&, t] {
        Times times;
        while (true) {
          std::unique_lock lock(mutex_);
          filled.wait(lock, [&] { return done || !queue.empty(); });
          if (queue.empty()) break;
          const auto [index, graph] = queue.front();
          queue.pop_front();
          lock.unlock();
          taken.notify_one();
          Rest(streams_[t], index, graph, times);
        }
        const std::lock_guard lock(mutex_);
        Add(sums_, times);
      });
    }
    Times times;
    for (int i = 0; i < c_.graphs; ++i) {
      cudaGraph_t graph = Capture(streams_[0], i, times);
      std::unique_lock lock(mutex_);
      taken.wait(lock, [&] { return queue.size() < kBehind; });
      queue.emplace_back(i, graph);
      filled.notify_one();
    }
    {
      const std::lock_guard lock(mutex_);
      done = true;
      Add(sums_, times);
      filled.notify_all();
    }
    for (std::thread& thread : threads) thread.join();
  }

  // Each once, and the last again and again.
  void Replay() {
    const double begin = Now();
    for (cudaGraphExec_t exec : execs_) MUST(cudaGraphLaunch(exec, streams_[0]));
    first_launch_ = (Now() - begin) / c_.graphs;
    MUST(cudaStreamSynchronize(streams_[0]));
    std::vector<double> host, all;
    for (int round = 0; round < 21; ++round) {
      const double from = Now();
      MUST(cudaGraphLaunch(execs_.back(), streams_[0]));
      host.push_back(Now() - from);
      MUST(cudaStreamSynchronize(streams_[0]));
      all.push_back(Now() - from);
    }
    std::ranges::sort(host);
    std::ranges::sort(all);
    launch_ = host[10];
    replay_ = all[10];
  }

  void Report(size_t bytes, size_t later, size_t given_back) const {
    const double nodes =
        static_cast<double>(c_.graphs - c_.small) * std::max(kernels_in_graph_, c_.nodes) +
        static_cast<double>(c_.small) * c_.small_nodes;
    const auto each = [&](double us) { return us / c_.graphs; };
    std::printf(
        "{\"case\": \"%s\", \"nodes_in_graph\": %d, \"programmatic_edges\": %d, "
        "\"parameter_bytes\": %zu, \"bytes\": %zu, \"first_graph_bytes\": %zu, "
        "\"bytes_at_first_launch\": %zd, \"bytes_given_back\": %zu, \"bytes_a_graph\": %.0f, "
        "\"bytes_a_node\": %.0f, "
        "\"us_a_graph\": {\"capture\": %.0f, \"inspect\": %.0f, \"meminfo\": %.0f, "
        "\"instantiate\": %.0f, \"upload\": %.0f, \"destroy\": %.0f, "
        "\"destroy_executable\": %.0f}, \"wall_us_a_graph\": %.0f, "
        "\"wall_us_a_node\": %.2f, \"first_launch_us\": %.1f, \"launch_us\": %.1f, "
        "\"replay_us\": %.1f}\n",
        c_.text.c_str(), kernels_in_graph_, programmatic_, parameter_bytes_, bytes, first_,
        static_cast<ssize_t>(later), given_back, static_cast<double>(bytes) / c_.graphs,
        static_cast<double>(bytes) / nodes, each(sums_.capture), each(sums_.inspect),
        each(sums_.meminfo), each(sums_.instantiate), each(sums_.upload), each(sums_.destroy),
        each(exec_destroy_), each(wall_), wall_ / nodes, first_launch_, launch_, replay_);
  }

  static constexpr size_t kBehind = 8;

  const Case c_;
  const std::vector<Entry> entries_;
  Library library_;
  std::vector<cudaStream_t> streams_;
  std::vector<cudaGraphExec_t> execs_;
  std::mutex mutex_;
  std::atomic<bool> asked_ = false;
  Times sums_;
  int kernels_in_graph_ = 0, programmatic_ = 0;
  int nodes_ = c_.nodes;
  size_t parameter_bytes_ = 0, first_ = 0;
  double wall_ = 0, exec_destroy_ = 0, first_launch_ = 0, launch_ = 0, replay_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  const Case c = Parse(count, arguments);
  MUST(cudaSetDevice(0));
  Bench(c).Run();
  return 0;
}
