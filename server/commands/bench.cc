// sirocco bench: how fast a server answers under load, and with --engine how fast a model runs
// here, by execution mode and batch size.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/bench/bench_report.h"
#include "server/bench/engine_bench.h"
#include "server/bench/load_bench.h"
#include "server/bench/tune.h"
#include "server/bench/write_model.h"
#include "server/commands/client.h"
#include "server/commands/commands.h"
#include "server/commands/config_flags.h"
#include "server/commands/report.h"
#include "server/log/log.h"
#include "server/model/memory.h"

namespace sirocco {
namespace {

constexpr char kHelp[] =
    "Measure a running server: as many requests as a batch size are always under way (prompts of\n"
    "random tokens, greedy), over several connections; generated tokens are counted as they come.\n"
    "Or, with --engine, measure a model on this machine without a server: prompts are prefilled "
    "in\n"
    "chunks, then all sequences decode together; a row is a mode and a batch size, its figures\n"
    "medians.\n\n"
    "  sirocco bench --address 127.0.0.1:50051 --batch 1,64\n"
    "  sirocco bench --engine --model MODEL.gguf --modes decoder,decoder_graph --batch 1,16\n"
    "  sirocco bench --engine --model tests/bench/models/llama3.1-8b --random-weights --stages\n"
    "  sirocco bench --write-model FOLDER --config tests/bench/models/gemma3-1b/config.json\n\n"
    "With --random-weights a folder with only a config.json is enough; --write-model makes files "
    "of\n"
    "such a model, which a server can load. share: the bytes that a step must read (each weight\n"
    "once, keys and values once) over its time, as part of what the device reads in a plain "
    "stream,\n"
    "which is measured first.";

// The keys of the configuration that an engine without a server has.
const std::vector<std::string> kKeys = {
    "model",           "backend",         "dtype",      "kv_cache_dtype",
    "kv_cache_memory", "memory_fraction", "block_size", "prefill_chunk_size",
    "threads",         "log_level",       "log_format"};

struct Flags {
  bool engine = false;
  BenchOptions bench;
  LoadOptions load;
  std::string write_model;  // a folder
  std::vector<std::string> modes;
  std::string json;
  std::string tune;  // the kernel table's file
};

std::vector<std::string> ModeNames() {
  std::vector<std::string> names;
  for (const Mode mode : kAllModes) names.emplace_back(NameOf(mode));
  return names;
}

std::vector<Mode> ModesOf(const Flags& flags, const Config& config) {
  if (flags.modes.empty()) return {config.mode};
  std::vector<Mode> modes;
  for (const std::string& name : flags.modes) {
    for (const Mode mode : kAllModes) {
      if (NameOf(mode) == name) modes.push_back(mode);
    }
  }
  return modes;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// Asked first: a file that cannot be written must not show after minutes of measuring. What is
// there stays as it is.
absl::Status CheckWritable(const std::string& path) {
  std::error_code error;
  const bool existed = std::filesystem::exists(path, error);
  if (!std::ofstream(path, std::ios::binary | std::ios::app)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be written"));
  }
  if (!existed) std::filesystem::remove(path, error);
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  return out ? absl::OkStatus() : absl::UnavailableError(absl::StrCat(path, ": writing failed"));
}

int WriteTable(const Flags& flags, const std::string& table, const BenchReport& report) {
  absl::Status written = WriteFile(flags.tune, MergeKernelTable(table, report.kernel_table));
  if (!written.ok()) return Fail(written);
  std::printf("%zu entries of %s written to %s; they count once it is compiled in\n",
              report.kernel_table.size(), report.device.c_str(), flags.tune.c_str());
  return 0;
}

// `path`: empty for none.
int WriteFigures(const std::string& path, const nlohmann::ordered_json& figures) {
  if (path.empty()) return 0;
  const absl::Status written = WriteFile(path, figures.dump(2) + "\n");
  return written.ok() ? 0 : Fail(written);
}

int WriteModel(const Flags& flags, const ConfigFlags& config_flags) {
  if (config_flags.file().empty()) {
    return Fail(absl::InvalidArgumentError(
        "bench: --write-model needs --config FILE, the config.json of the model to write"));
  }
  WriteModelOptions options;
  options.config = config_flags.file();
  options.directory = flags.write_model;
  options.seed = flags.bench.measure.seed;
  absl::StatusOr<WrittenModel> written = absl::InternalError("not run");
  {
    ProgressBar bar;
    written = WriteRandomModel(
        options, [&](uint64_t done, uint64_t total) { bar.Update("weights", done, total); });
  }
  if (!written.ok()) return Fail(written.status());
  std::printf("%s: %.3fe9 parameters, %s in %d files of weights\n", flags.write_model.c_str(),
              static_cast<double>(written->parameters) * 1e-9,
              BytesForPeople(written->weight_bytes).c_str(), written->shards);
  return 0;
}

int BenchServer(Flags& flags, const ConfigFlags& config_flags) {
  std::vector<std::string> given = config_flags.Given();
  if (!config_flags.file().empty()) given.push_back("--config");
  if (!given.empty()) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat("bench: ", given.front(),
                     " goes with --engine; a running server (--address) has its own")));
  }
  LoadOptions& load = flags.load;
  load.concurrency = flags.bench.batches;
  load.prompt_length = flags.bench.measure.prompt_length;
  load.output_length = flags.bench.measure.output_length;
  load.seed = flags.bench.measure.seed;
  if (!flags.json.empty()) {
    if (absl::Status status = CheckWritable(flags.json); !status.ok()) return Fail(status);
  }
  absl::StatusOr<LoadReport> report = absl::InternalError("not run");
  {
    ProgressBar bar;
    report = BenchLoad(load, [&](std::string_view phase, uint64_t done, uint64_t total) {
      bar.Update(phase, done, total);
    });
  }
  if (!report.ok()) return Fail(report.status());
  std::fputs(LoadTable(*report).c_str(), stdout);
  return WriteFigures(flags.json, LoadJson(*report));
}

int BenchModel(Flags& flags, const ConfigFlags& config_flags) {
  absl::StatusOr<Config> config = config_flags.Load();
  if (!config.ok()) return Fail(config.status());
  ConfigureLog(config->log_level, config->log_format);
  std::string table;
  flags.bench.tune = !flags.tune.empty();
  if (!flags.bench.tune) {
    flags.bench.modes = ModesOf(flags, *config);
  } else {
    absl::StatusOr<std::string> read = ReadFile(flags.tune);
    if (!read.ok()) return Fail(read.status());
    table = *std::move(read);
  }
  for (const std::string& path : {flags.json, flags.tune}) {
    if (path.empty()) continue;
    if (absl::Status status = CheckWritable(path); !status.ok()) return Fail(status);
  }
  absl::StatusOr<BenchReport> report = absl::InternalError("not run");
  {
    ProgressBar bar;
    report = BenchEngine(*config, flags.bench,
                         [&](std::string_view phase, uint64_t done, uint64_t total) {
                           bar.Update(phase, done, total);
                         });
  }
  if (!report.ok()) return Fail(report.status());
  if (flags.bench.tune) return WriteTable(flags, table, *report);
  std::fputs(BenchTables(*report).c_str(), stdout);
  return WriteFigures(flags.json, BenchJson(*report));
}

int Bench(Flags& flags, const ConfigFlags& config_flags) {
  if (!flags.write_model.empty()) return WriteModel(flags, config_flags);
  return flags.engine ? BenchModel(flags, config_flags) : BenchServer(flags, config_flags);
}

void AddEngineFlags(CLI::App& command, Flags& flags) {
  BenchOptions& bench = flags.bench;
  CLI::Option* engine =
      command.add_flag("--engine", flags.engine, "the engine alone, without a server");
  command
      .add_flag("--random-weights", bench.random_weights,
                "make the weights up; of the model only its configuration is read")
      ->needs(engine);
  CLI::Option* modes =
      command
          .add_option("--modes", flags.modes,
                      "execution modes, with commas; default: that of EOLE_TORCH_COMPILE and "
                      "EOLE_COMPILE_MODE")
          ->delimiter(',')
          ->check(CLI::IsMember(ModeNames()))
          ->needs(engine);
  CLI::Option* repeat =
      command.add_option("--repeat", bench.measure.repeat, "runs that medians are of [5]")
          ->check(CLI::Range(1, 1000))
          ->needs(engine);
  CLI::Option* stages =
      command
          .add_flag("--stages", bench.stages,
                    "also time a step operation by operation, and sum them up by kind")
          ->needs(engine);
  CLI::Option* tune =
      command
          .add_option("--tune", flags.tune,
                      "instead choose the fastest kernels for the model's products, here, and "
                      "write\nthem into this kernel table (kernels/cuda/kernel_table.inc)")
          ->needs(engine);
  // It measures nothing that these could ask for.
  for (CLI::Option* option : {modes, repeat, stages, command.get_option("--json")}) {
    tune->excludes(option);
  }
  command
      .add_option(
          "--write-model", flags.write_model,
          "instead write a model of random weights to this new folder; --config is then its\n"
          "config.json")
      ->excludes(engine);
}

void AddLoadFlags(CLI::App& command, Flags& flags) {
  CLI::Option* engine = command.get_option("--engine");
  AddClientFlags(command, flags.load.server);
  command.get_option("--address")->excludes(engine);
  command
      .add_option("--connections", flags.load.connections,
                  "to the server; requests take them in turn [4]")
      ->check(CLI::Range(1, 1024))
      ->excludes(engine);
  command
      .add_option("--requests", flags.load.requests,
                  "requests of each batch size; default: four times as many")
      ->check(CLI::Range(1, 1 << 24))
      ->excludes(engine);
}

}  // namespace

void AddBench(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<Flags>();
  BenchOptions& bench = flags->bench;
  bench.batches = {1, 4, 16, 64};
  CLI::App* command = app.add_subcommand("bench", kHelp);
  command->add_option("--json", flags->json, "also write the figures to this file");
  AddEngineFlags(*command, *flags);
  AddLoadFlags(*command, *flags);
  command
      ->add_option("--batch", bench.batches,
                   "batch sizes, or requests under way, with commas [1,4,16,64]")
      ->delimiter(',')
      ->check(CLI::Range(1, kMaxBatchSize));
  command->add_option("--prompt-length", bench.measure.prompt_length, "tokens of a prompt [128]")
      ->check(CLI::Range(1, 1 << 20));
  command
      ->add_option("--output-length", bench.measure.output_length,
                   "tokens of an output, the first of them the prefill's [128]")
      ->check(CLI::Range(2, 1 << 20));
  command->add_option("--seed", bench.measure.seed, "of prompts and random weights [1]");
  auto config = ConfigFlags::AddTo(*command, kKeys);
  command->callback([flags, config, &exit_status] { exit_status = Bench(*flags, *config); });
}

}  // namespace sirocco
