#include "server/model/load.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/block_budget.h"
#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "server/log/log.h"
#include "server/model/available_cores.h"

namespace sirocco {
namespace {

constexpr int64_t kDefaultMaxLength = 8192;

std::string Mebibytes(int64_t bytes) {
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}

// `word`: a value of the keys dtype or kv_cache_dtype; `automatic` is what auto means.
absl::StatusOr<DType> CpuDType(std::string_view key, std::string_view word, DType automatic) {
  if (word == "auto") return automatic;
  if (word == "float32") return DType::kFloat32;
  if (word == "bfloat16") return DType::kBFloat16;
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(key), ": '", std::string(word),
                   "' needs the cuda backend; allowed on the cpu: auto, float32, bfloat16"));
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const Config& config) {
  if (config.backend == "cuda") {
    return absl::UnavailableError(
        "backend: cuda was asked for, but this build has no CUDA backend; use cpu or auto");
  }
  return CreateCpuDevice(static_cast<int>(config.threads.value_or(AvailableCores())));
}

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

uint64_t WeightBytes(const ModelFiles& files, DType dtype) {
  uint64_t bytes = 0;
  for (const StoredTensor& tensor : files.tensors->tensors()) {
    uint64_t elements = 1;
    for (const int64_t extent : tensor.shape) elements *= static_cast<uint64_t>(extent);
    bytes += elements * (tensor.shape.size() < 2 ? BytesOf(DType::kFloat32) : BytesOf(dtype));
  }
  return bytes;
}

// Bytes for the KV cache: as configured, else what every lane at full length needs, at most a
// quarter of what is free.
int64_t KvMemory(const Config& config, const ModelFacts& facts, const ModelDescriptor& descriptor,
                 DType kv_dtype, int64_t available) {
  if (config.kv_cache_memory.has_value()) return *config.kv_cache_memory;
  const int64_t block_size = config.block_size;
  const int64_t blocks = facts.max_batch_size * ((facts.max_length + block_size - 1) / block_size);
  int64_t bytes = 0;
  for (size_t group = 0; group < descriptor.groups.size(); ++group) {
    bytes += blocks * KvBlockBytes(descriptor, static_cast<int>(group),
                                   static_cast<int32_t>(block_size), kv_dtype);
  }
  return std::min(bytes, available / 4);
}

absl::StatusOr<ExecutorOptions> PlanExecutor(const Config& config, const ServedModel& model,
                                             DType dtype) {
  const ModelFacts& facts = model.facts;
  const ModelDescriptor& descriptor = model.files.descriptor;
  ExecutorOptions options;
  options.mode = config.mode;
  options.max_batch_size = facts.max_batch_size;
  options.max_length = facts.max_length;
  options.prefill_chunk_size = static_cast<int32_t>(config.prefill_chunk_size);
  options.block_size = static_cast<int32_t>(config.block_size);
  absl::StatusOr<DType> kv_dtype = CpuDType("kv_cache_dtype", config.kv_cache_dtype, dtype);
  if (!kv_dtype.ok()) return kv_dtype.status();
  options.kv_dtype = *kv_dtype;

  const int64_t available = static_cast<int64_t>(model.device->FreeBytes());
  absl::StatusOr<std::vector<int32_t>> blocks = PlanKvBlocks(
      descriptor, options.block_size, options.kv_dtype, options.max_batch_size, options.max_length,
      KvMemory(config, facts, descriptor, options.kv_dtype, available));
  if (!blocks.ok()) {
    return absl::Status(
        blocks.status().code(),
        absl::StrCat(blocks.status().message(), "; raise kv_cache_memory or lower max_length"));
  }
  options.kv_blocks = *std::move(blocks);

  const MemoryPlan plan = PlanMemory(descriptor, options);
  const auto of = [&](MemoryUse use) {
    return static_cast<int64_t>(plan.bytes[static_cast<int>(use)]);
  };
  const int64_t weights = static_cast<int64_t>(WeightBytes(model.files, dtype));
  int64_t total = weights;
  for (const uint64_t bytes : plan.bytes) total += static_cast<int64_t>(bytes);
  const std::string figures = absl::StrCat(
      "weights ", Mebibytes(weights), ", KV cache ", Mebibytes(of(MemoryUse::kKv)), ", lanes ",
      Mebibytes(of(MemoryUse::kLanes)), ", workspace ", Mebibytes(of(MemoryUse::kWorkspace)),
      "; in all ", Mebibytes(total), " of ", Mebibytes(available), " free");
  if (total > available) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the model does not fit into memory: ", figures,
        "; lower max_batch_size, max_length or kv_cache_memory, or take a smaller model"));
  }
  LogInfo("memory plan", {{"plan", figures}});
  return options;
}

absl::StatusOr<DType> WeightDType(const Config& config) {
  return CpuDType("dtype", config.dtype, DType::kBFloat16);
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

  absl::StatusOr<DType> dtype = WeightDType(config);
  if (!dtype.ok()) return dtype.status();
  absl::StatusOr<int32_t> max_length = MaxLength(config, descriptor.max_position);
  if (!max_length.ok()) return max_length.status();
  absl::StatusOr<std::unique_ptr<Device>> device = OpenDevice(config);
  if (!device.ok()) return device.status();
  model->device = *std::move(device);

  ModelFacts& facts = model->facts;
  facts.name = config.served_model_name.empty() ? model->files.name : config.served_model_name;
  facts.architecture = descriptor.architecture;
  facts.max_length = *max_length;
  facts.max_batch_size = static_cast<int32_t>(config.max_batch_size);
  facts.vocab_size = descriptor.vocab_size;
  facts.dtype = std::string(NameOf(*dtype));
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
  absl::StatusOr<DType> dtype = WeightDType(config);
  if (!dtype.ok()) return dtype.status();
  absl::StatusOr<ExecutorOptions> options = PlanExecutor(config, model, *dtype);
  if (!options.ok()) return options.status();

  const Clock::time_point begin = Clock::now();
  absl::StatusOr<ModelWeights> weights =
      LoadWeights(model.files, *dtype, *model.device,
                  [&](uint64_t done, uint64_t total) { progress("weights", done, total); });
  if (!weights.ok()) return weights.status();
  model.weights = *std::move(weights);
  model.facts.parameter_count = model.weights.parameter_count;
  model.load_seconds = std::chrono::duration<double>(Clock::now() - begin).count();

  absl::StatusOr<std::unique_ptr<Executor>> executor =
      Executor::Create(*model.device, model.files.descriptor, model.weights, *options,
                       [&](std::string_view phase, int done, int total) {
                         progress(phase, static_cast<uint64_t>(done), static_cast<uint64_t>(total));
                       });
  if (!executor.ok()) return executor.status();

  EngineOptions engine_options;
  engine_options.max_queue_size = static_cast<int32_t>(config.max_queue_size);
  engine_options.max_queue_tokens = config.max_queue_tokens.value_or(0);
  engine_options.prefill_chunk_size = options->prefill_chunk_size;
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
