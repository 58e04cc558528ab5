#include "server/model/load.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "graphs/executor.h"
#include "graphs/stopwatch.h"
#include "server/log/log.h"
#include "server/model/dtypes.h"
#include "server/model/huge_page_heap.h"
#include "server/model/memory.h"
#include "server/model/open_device.h"
#include "server/model/plan_executor.h"

namespace sirocco {
namespace {

constexpr int64_t kDefaultMaxLength = 8192;

absl::StatusOr<int32_t> MaxLength(const Config& config, int32_t max_position) {
  if (!config.max_length.has_value()) {
    return static_cast<int32_t>(std::min<int64_t>(max_position, kDefaultMaxLength));
  }
  if (*config.max_length > max_position) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_length: '", *config.max_length,
                     "' is not allowed; allowed for this model: 1 to ", max_position));
  }
  return static_cast<int32_t>(*config.max_length);
}

absl::Status OpenText(const Config& config, ServedModel& model) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(config.model);
  if (!tokenizer.ok()) return tokenizer.status();
  model.tokenizer = *std::move(tokenizer);
  if (model.tokenizer == nullptr) return absl::OkStatus();
  if (model.tokenizer->vocab_size() > model.files.descriptor.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        config.model, ": the tokenizer has ids up to ", model.tokenizer->vocab_size() - 1,
        ", the model only ", model.files.descriptor.vocab_size, " ids"));
  }
  const std::optional<std::string>& source = model.tokenizer->chat_template();
  if (!source.has_value()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat =
      ChatTemplate::Parse(*source, model.tokenizer->bos_token(), model.tokenizer->eos_token());
  if (!chat.ok()) {
    return absl::Status(chat.status().code(),
                        absl::StrCat(config.model, ": chat template: ", chat.status().message()));
  }
  model.chat_template = *std::move(chat);
  return absl::OkStatus();
}

void LogGraphs(const Device& device, const Executor& executor) {
  if (!UsesGraphs(executor.options().mode)) return;
  const ExecutorStats& stats = executor.stats();
  const uint64_t bytes = stats.graph_pool_bytes + stats.prefill_graph_bytes;
  LogInfo("graphs captured", {{"graphs", absl::StrCat(stats.graphs_captured.load())},
                              {"batch_sizes", absl::StrCat(executor.options().max_batch_size)},
                              {"prefill_graphs", absl::StrCat(stats.prefill_graphs.load())},
                              {"seconds", absl::StrFormat("%.3f", stats.capture_seconds)},
                              {"bytes", BytesForPeople(bytes)}});
  const uint64_t reserve = GraphReserve(device.backend(), executor.options());
  if (bytes > reserve && reserve > 0) {
    LogWarning("the graphs hold more memory than was planned for them",
               {{"planned", BytesForPeople(reserve)}});
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServedModel>> OpenServedModel(const Config& config) {
  if (config.model.empty()) {
    return absl::InvalidArgumentError(
        "model: not set; give a GGUF file or a Hugging Face directory with --model, SIROCCO_MODEL "
        "or the configuration file");
  }
  auto model = std::make_unique<ServedModel>();
  absl::StatusOr<ModelFiles> files = OpenModel(config.model);
  if (!files.ok()) return files.status();
  model->files = *std::move(files);
  const ModelDescriptor& descriptor = model->files.descriptor;
  if (absl::Status status = OpenText(config, *model); !status.ok()) return status;

  absl::StatusOr<int32_t> max_length = MaxLength(config, descriptor.max_position);
  if (!max_length.ok()) return max_length.status();

  absl::StatusOr<OpenedDevice> opened = OpenDevice(config);
  if (!opened.ok()) return opened.status();
  model->device = std::move(opened->device);
  model->why_device = std::move(opened->why);
  absl::StatusOr<ModelDTypes> dtypes =
      ChooseDTypes(config, *model->device, StoredDType(*model->files.tensors));
  if (!dtypes.ok()) return dtypes.status();
  model->dtypes = *dtypes;

  ModelFacts& facts = model->facts;
  facts.name = config.served_model_name.empty() ? model->files.name : config.served_model_name;
  facts.architecture = descriptor.architecture;
  facts.max_length = *max_length;
  facts.max_batch_size = static_cast<int32_t>(config.max_batch_size);
  facts.vocab_size = descriptor.vocab_size;
  facts.dtype = std::string(dtypes->weights_name());
  facts.backend = std::string(model->device->backend());
  facts.device = model->device->name();
  facts.mode = config.mode;
  facts.end_token_ids = model->files.end_token_ids;
  if (facts.end_token_ids.empty() && model->tokenizer != nullptr) {
    facts.end_token_ids = model->tokenizer->end_token_ids();
  }
  facts.generation = model->files.generation;
  facts.tokenizer = model->tokenizer.get();
  facts.chat_template = model->chat_template.get();
  return model;
}

absl::Status StartServedModel(const Config& config, EngineObserver* observer,
                              const StartProgress& progress, ServedModel& model) {
  LogInfo(absl::StrCat("backend ", model.facts.backend),
          {{"device", model.facts.device}, {"why", model.why_device}});
  const WeightTypes types = model.dtypes.TypesOf(model.files.tensors.get());
  absl::StatusOr<ExecutorOptions> options =
      PlanExecutorOptions(config, model.files.descriptor, types, model.dtypes, *model.device,
                          {.mode = config.mode,
                           .max_batch_size = model.facts.max_batch_size,
                           .max_length = model.facts.max_length});
  if (!options.ok()) return options.status();

  const bool driver_keeps_graphs = model.facts.backend == "cuda" && UsesGraphs(config.mode);
  const HugePageHeap heap(driver_keeps_graphs ? kGraphHeapBytes : 0);

  const Stopwatch watch;
  absl::StatusOr<ModelWeights> weights =
      LoadWeights(model.files, types, *model.device,
                  [&](uint64_t done, uint64_t total) { progress("weights", done, total); });
  if (!weights.ok()) return weights.status();
  model.weights = *std::move(weights);
  model.facts.parameter_count = model.weights.parameter_count;
  model.load_seconds = watch.Seconds();
  const uint64_t bytes = WeightBytes(model.files.descriptor, types);
  LogInfo("weights loaded",
          {{"bytes", BytesForPeople(bytes)},
           {"seconds", absl::StrFormat("%.3f", model.load_seconds)},
           {"gigabytes_per_second", absl::StrFormat("%.1f", bytes / model.load_seconds * 1e-9)}});

  absl::StatusOr<std::unique_ptr<Executor>> executor =
      Executor::Create(*model.device, model.files.descriptor, model.weights, *options,
                       [&](std::string_view phase, int done, int total) {
                         progress(phase, static_cast<uint64_t>(done), static_cast<uint64_t>(total));
                       });
  if (!executor.ok()) return executor.status();
  LogGraphs(*model.device, **executor);
  LogInfo("memory taken", {{"by use", MemoryInUse(*model.device)},
                           {"free", BytesForPeople(model.device->FreeBytes())}});
  for (const std::string& note : model.device->notes()) LogInfo(note);

  EngineOptions engine_options;
  engine_options.max_queue_size = static_cast<int32_t>(config.max_queue_size);
  engine_options.max_queue_tokens = config.max_queue_tokens.value_or(0);
  engine_options.prefill_chunk_size = options->prefill_chunk_size;
  engine_options.client_weights = config.client_weights;
  engine_options.itl_factor = config.itl_factor;
  engine_options.prefix_cache = config.prefix_cache;
  engine_options.groups = model.files.descriptor.groups;
  engine_options.end_token_ids = model.facts.end_token_ids;
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Start(*std::move(executor), model.tokenizer.get(), observer, engine_options);
  if (!engine.ok()) return engine.status();
  model.engine = *std::move(engine);
  return absl::OkStatus();
}

int ExitStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kFailedPrecondition:
      return 2;
    default:
      return 1;
  }
}

}  // namespace sirocco
