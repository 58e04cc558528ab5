#include "server/bench/engine_bench.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/model_files.h"
#include "engine/model/random_weights.h"
#include "graphs/executor.h"
#include "graphs/stopwatch.h"
#include "server/bench/floor.h"
#include "server/bench/tune.h"
#include "server/log/log.h"
#include "server/model/huge_page_heap.h"
#include "server/model/memory.h"
#include "server/model/open_device.h"
#include "server/model/plan_executor.h"

namespace sirocco {
namespace {

constexpr size_t kCudaStreamBytes = size_t{2} << 30;  // far above any L2 cache
constexpr size_t kCpuStreamBytes = size_t{1} << 30;

// Modes that record graphs are measured so, but their stages are those of the same plan without.
Mode WithoutGraphs(Mode mode) {
  if (mode == Mode::kDecoderGraph) return Mode::kDecoder;
  return mode == Mode::kLayerGraph ? Mode::kLayer : mode;
}

class Bench {
 public:
  Bench(const Config& config, const BenchOptions& options, const StartProgress& progress)
      : config_(config), options_(options), progress_(progress) {}

  absl::StatusOr<BenchReport> Run() {
    absl::Status status = Open();
    if (status.ok() && !options_.tune) status = MeasureStream();
    if (status.ok()) status = Plan();
    if (!status.ok()) return status;
    // As a server's start has.
    const bool graphs = std::ranges::any_of(options_.modes, UsesGraphs);
    const HugePageHeap heap(device_->backend() == "cuda" && graphs ? kGraphHeapBytes : 0);
    status = Load();
    if (status.ok()) status = options_.tune ? Tune() : RunModes();
    if (!status.ok()) return status;
    return std::move(report_);
  }

 private:
  absl::Status Open() {
    if (config_.model.empty()) {
      return absl::InvalidArgumentError(
          "model: not set; give a model's files, or with --random-weights a folder with "
          "config.json");
    }
    DType stored = DType::kBFloat16;
    if (options_.random_weights) {
      absl::StatusOr<ModelDescriptor> descriptor = OpenDescriptor(config_.model);
      if (!descriptor.ok()) return descriptor.status();
      files_.descriptor = *std::move(descriptor);
    } else {
      absl::StatusOr<ModelFiles> files = OpenModel(config_.model);
      if (!files.ok()) return files.status();
      files_ = *std::move(files);
      stored = StoredDType(*files_.tensors);
    }
    absl::StatusOr<OpenedDevice> opened = OpenDevice(config_);
    if (!opened.ok()) return opened.status();
    device_ = std::move(opened->device);
    absl::StatusOr<ModelDTypes> dtypes = ChooseDTypes(config_, *device_, stored);
    if (!dtypes.ok()) return dtypes.status();
    report_.model = config_.model;
    report_.architecture = files_.descriptor.architecture;
    report_.backend = std::string(device_->backend());
    report_.device = device_->name();
    report_.why_device = opened->why;
    report_.dtypes = *dtypes;
    report_.measure = options_.measure;
    return absl::OkStatus();
  }

  absl::Status MeasureStream() {
    const bool cuda = device_->backend() == "cuda";
    const size_t bytes =
        std::min<uint64_t>(cuda ? kCudaStreamBytes : kCpuStreamBytes, device_->FreeBytes() / 2);
    absl::StatusOr<double> stream = device_->MeasureReadBandwidth(bytes);
    if (!stream.ok()) return stream.status();
    report_.measured_stream = *stream;
    report_.stream = StreamBandwidth(report_.device, *stream);
    return absl::OkStatus();
  }

  WeightTypes Types() const { return report_.dtypes.TypesOf(files_.tensors.get()); }

  // Memory for the largest batch, or a refusal before anything is loaded.
  absl::Status Plan() {
    const MeasureOptions& measure = options_.measure;
    ExecutorOptions wanted;
    wanted.max_batch_size = *std::max_element(options_.batches.begin(), options_.batches.end());
    wanted.max_length = measure.prompt_length + measure.output_length;
    // All modes have the same memory: with a reserve for graphs where one of them needs it, else
    // with what modes that compile have beyond eager.
    for (const Mode mode : options_.modes) {
      if (UsesGraphs(mode) || wanted.mode == Mode::kEager) wanted.mode = mode;
    }
    if (wanted.max_length > files_.descriptor.max_position) {
      return absl::InvalidArgumentError(
          absl::StrCat("--prompt-length and --output-length are ", wanted.max_length,
                       " tokens together; this model takes ", files_.descriptor.max_position));
    }
    // Before the rest of the memory is shared out.
    absl::StatusOr<ExpertCounter> counter =
        ExpertCounter::Create(*device_, files_.descriptor, wanted);
    if (!counter.ok()) return counter.status();
    experts_ = *std::move(counter);
    absl::StatusOr<ExecutorOptions> planned = PlanExecutorOptions(
        config_, files_.descriptor, Types(), report_.dtypes, *device_, std::move(wanted));
    if (!planned.ok()) return planned.status();
    executor_options_ = *std::move(planned);
    for (size_t g = 0; g < executor_options_.kv_blocks.size(); ++g) {
      const int64_t needed = BlocksOfWorkload(files_.descriptor.groups[g], executor_options_,
                                              executor_options_.max_batch_size,
                                              measure.prompt_length, measure.output_length);
      const int32_t blocks = executor_options_.kv_blocks[g];
      if (blocks >= needed) continue;
      return absl::ResourceExhaustedError(
          absl::StrCat("a batch of ", executor_options_.max_batch_size, " sequences of ",
                       executor_options_.max_length, " tokens needs ", needed, " KV blocks, and ",
                       blocks, " fit; lower --batch, --prompt-length or --output-length"));
    }
    return absl::OkStatus();
  }

  absl::Status Load() {
    const Stopwatch watch;
    const auto progress = [&](uint64_t done, uint64_t total) { progress_("weights", done, total); };
    absl::StatusOr<ModelWeights> weights =
        options_.random_weights ? RandomWeights(files_.descriptor, report_.dtypes.weights,
                                                options_.measure.seed, *device_, progress)
                                : LoadWeights(files_, Types(), *device_, progress);
    if (!weights.ok()) return weights.status();
    weights_ = *std::move(weights);
    report_.load_seconds = watch.Seconds();
    report_.parameters = weights_.parameter_count;
    report_.weight_bytes = WeightBytes(files_.descriptor, Types());
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Executor>> MakeExecutor(Mode mode, Device& device) {
    executor_options_.mode = mode;
    return Executor::Create(device, files_.descriptor, weights_, executor_options_);
  }

  absl::Status RunModes() {
    for (const Mode mode : options_.modes) {
      if (absl::Status status = RunMode(mode); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status Tune() {
    StageTimer timer(*device_);
    // The products of separate operations, and those of fused ones where a library makes them.
    for (const Mode mode : {Mode::kEager, Mode::kDecoder}) {
      absl::StatusOr<std::unique_ptr<Executor>> executor = MakeExecutor(mode, timer);
      if (!executor.ok()) return executor.status();
      absl::StatusOr<std::vector<std::string>> entries =
          TuneModel(*device_, timer, **executor, files_.descriptor,
                    executor_options_.max_batch_size, options_.measure);
      if (!entries.ok()) return entries.status();
      report_.kernel_table.insert(report_.kernel_table.end(), entries->begin(), entries->end());
    }
    return absl::OkStatus();
  }

  absl::Status RunMode(Mode mode) {
    ModeReport report;
    report.mode = mode;
    {
      absl::StatusOr<std::unique_ptr<Executor>> executor = MakeExecutor(mode, *device_);
      if (!executor.ok()) return executor.status();
      const ExecutorStats& stats = (*executor)->stats();
      report.pack_seconds = stats.pack_seconds;
      report.prepare_seconds = stats.prepare_seconds;
      report.capture_seconds = stats.capture_seconds;
      report.kv_seconds = stats.kv_seconds;
      report.graphs = stats.graphs_captured;
      report.graph_bytes = stats.graph_pool_bytes;
      report.prefill_graphs = stats.prefill_graphs;
      report.prefill_graph_bytes = stats.prefill_graph_bytes;
      LogInfo("memory taken",
              {{"mode", std::string(NameOf(mode))}, {"by use", MemoryInUse(*device_)}});
      const uint64_t allocations = device_->counters().allocations.load();
      for (const int32_t batch : options_.batches) {
        progress_(NameOf(mode), report.batches.size(), options_.batches.size());
        absl::StatusOr<Measurement> measured =
            Measure(**executor, files_.descriptor, weights_, batch, options_.measure, experts_);
        if (!measured.ok()) return measured.status();
        report.batches.push_back(*measured);
      }
      progress_(NameOf(mode), report.batches.size(), options_.batches.size());
      report.prefill_replays = stats.prefill_replays;
      report.prefill_launches = stats.prefill_launches;
      report.prefill_filling_rows = stats.prefill_filling_rows;
      if (const uint64_t now = device_->counters().allocations.load(); now != allocations) {
        LogWarning("device memory was allocated by steps, which slows them",
                   {{"allocations", absl::StrCat(now - allocations)}});
      }
    }
    if (options_.stages) {
      if (absl::Status status = RunStages(mode, report); !status.ok()) return status;
    }
    report_.modes.push_back(std::move(report));
    return absl::OkStatus();
  }

  absl::Status RunStages(Mode mode, ModeReport& report) {
    for (const ModeReport& known : report_.modes) {
      if (WithoutGraphs(known.mode) != WithoutGraphs(mode)) continue;
      report.stages = known.stages;  // of the same plan
      return absl::OkStatus();
    }
    StageTimer timer(*device_);
    absl::StatusOr<std::unique_ptr<Executor>> executor = MakeExecutor(WithoutGraphs(mode), timer);
    if (!executor.ok()) return executor.status();
    for (const int32_t batch : options_.batches) {
      absl::StatusOr<StepStages> stages = MeasureStages(
          timer, **executor, files_.descriptor, weights_, batch, options_.measure, experts_);
      if (!stages.ok()) return stages.status();
      report.stages.push_back({batch, *std::move(stages)});
    }
    return absl::OkStatus();
  }

  const Config& config_;
  const BenchOptions& options_;
  const StartProgress& progress_;
  BenchReport report_;
  ModelFiles files_;  // with random weights: the descriptor alone
  ExecutorOptions executor_options_;
  std::unique_ptr<Device> device_;
  ModelWeights weights_;
  ExpertCounter experts_;
};

}  // namespace

absl::StatusOr<BenchReport> BenchEngine(const Config& config, const BenchOptions& options,
                                        const StartProgress& progress) {
  return Bench(config, options, progress).Run();
}

}  // namespace sirocco
