// sirocco bench: how fast a server answers under load, and with --engine how fast a model runs
// here, by execution mode and batch size.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/bench/bench_report.h"
#include "server/bench/engine_bench.h"
#include "server/bench/load/lengths.h"
#include "server/bench/tune.h"
#include "server/bench/write_model.h"
#include "server/commands/bench_load.h"
#include "server/commands/commands.h"
#include "server/commands/config_flags.h"
#include "server/commands/output_files.h"
#include "server/commands/report.h"
#include "server/log/log.h"
#include "server/model/memory.h"

namespace sirocco {
namespace {

constexpr char kHelp[] =
    "Measure a running server. A closed loop (--batch) keeps so many requests under way; an\n"
    "open one (--rate) begins so many a second whatever the answers do, as users would, and\n"
    "--goal searches for the highest rate that keeps a latency. Latencies count from the time\n"
    "a request was meant to be sent at. Prompts are random tokens, outputs greedy; generated\n"
    "tokens are counted as they come.\n"
    "Or, with --engine, measure a model on this machine without a server: prompts are\n"
    "prefilled in chunks, then all sequences decode together; a row is a mode and a batch\n"
    "size, its figures medians.\n"
    "\n"
    "  sirocco bench --address 127.0.0.1:50051 --batch 1,64\n"
    "  sirocco bench --rate 2,4,8 --prompt-length lognormal:200:0.8:2000 --html load.html\n"
    "  sirocco bench --goal ttft_p99=500ms,itl_p99=60ms --connections 64\n"
    "  sirocco bench --engine --model MODEL.gguf --modes decoder,decoder_graph --batch 1,16\n"
    "  sirocco bench --engine --model tests/bench/models/llama3.1-8b --random-weights --stages\n"
    "  sirocco bench --write-model FOLDER --config tests/bench/models/gemma3-1b/config.json\n"
    "\n"
    "A length is a number of tokens; without --engine also uniform:LEAST:MOST,\n"
    "lognormal:MEDIAN:SIGMA:MOST (SIGMA: of the logarithm; what is longer than MOST is MOST)\n"
    "or file:PATH (one a line, taken in turn: two files of the same requests stay pairs).\n"
    "With --random-weights a folder with only a config.json is enough; --write-model makes\n"
    "files of such a model, which a server can load. share: the bytes that a step must read\n"
    "(each weight once, keys and values once) over its time, as part of what the device reads\n"
    "in a plain stream, which is measured first.";

// The keys of the configuration that an engine without a server has.
const std::vector<std::string> kKeys = {
    "model",           "backend",         "dtype",      "kv_cache_dtype",
    "kv_cache_memory", "memory_fraction", "block_size", "prefill_chunk_size",
    "threads",         "batch_invariant", "log_level",  "log_format"};

constexpr int32_t kMostConcurrency = 1 << 16;

struct Flags {
  bool engine = false;
  BenchOptions bench;
  LoadFlags load;
  std::string write_model;  // a folder
  std::vector<std::string> modes;
  std::string prompt_length = "128", output_length = "128";
  std::string json, html;
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

int WriteTable(const Flags& flags, const std::string& table, const BenchReport& report) {
  absl::Status written = WriteFile(flags.tune, MergeKernelTable(table, report.kernel_table));
  if (!written.ok()) return Fail(written);
  std::printf("%zu entries of %s written to %s; they count once it is compiled in\n",
              report.kernel_table.size(), report.device.c_str(), flags.tune.c_str());
  return 0;
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

absl::StatusOr<Lengths> ReadLengths(const char* flag, const std::string& text, int32_t least) {
  absl::StatusOr<Lengths> lengths = Lengths::Parse(text, least);
  if (lengths.ok()) return lengths;
  return absl::Status(lengths.status().code(),
                      absl::StrCat(flag, ": ", std::string(lengths.status().message())));
}

// An engine's sequences are all of one length.
absl::Status ReadLength(const char* flag, const std::string& text, int32_t least, int32_t& out) {
  const absl::StatusOr<Lengths> lengths = ReadLengths(flag, text, least);
  if (!lengths.ok()) return lengths.status();
  if (const std::optional<int32_t> fixed = lengths->fixed()) {
    out = *fixed;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": --engine takes one length; '", text, "' is for a running server"));
}

int BenchRunning(const Flags& flags, const ConfigFlags& config_flags) {
  std::vector<std::string> given = config_flags.Given();
  if (!config_flags.file().empty()) given.push_back("--config");
  if (!given.empty()) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat("bench: ", given.front(),
                     " goes with --engine; a running server (--address) has its own")));
  }
  const absl::StatusOr<Lengths> prompts = ReadLengths("--prompt-length", flags.prompt_length, 1);
  if (!prompts.ok()) return Fail(prompts.status());
  const absl::StatusOr<Lengths> outputs = ReadLengths("--output-length", flags.output_length, 1);
  if (!outputs.ok()) return Fail(outputs.status());
  return BenchServer(flags.load, {flags.bench.batches, *prompts, *outputs, flags.bench.measure.seed,
                                  flags.json, flags.html});
}

int BenchModel(Flags& flags, const ConfigFlags& config_flags) {
  absl::StatusOr<Config> config = config_flags.Load();
  if (!config.ok()) return Fail(config.status());
  ConfigureLog(config->log_level, config->log_format);
  MeasureOptions& measure = flags.bench.measure;
  absl::Status status =
      ReadLength("--prompt-length", flags.prompt_length, 1, measure.prompt_length);
  // The prompt's own token, and at least one step.
  if (status.ok()) {
    status = ReadLength("--output-length", flags.output_length, 2, measure.output_length);
  }
  for (const int32_t batch : flags.bench.batches) {
    if (batch <= kMaxBatchSize || !status.ok()) continue;
    status = absl::InvalidArgumentError(
        absl::StrCat("--batch: an engine runs at most ", kMaxBatchSize, " together, not ", batch));
  }
  std::string table;
  flags.bench.tune = !flags.tune.empty();
  if (!flags.bench.tune) {
    flags.bench.modes = ModesOf(flags, *config);
  } else {
    absl::StatusOr<std::string> read = ReadFile(flags.tune);
    if (!read.ok()) return Fail(read.status());
    table = *std::move(read);
  }
  for (const std::string& path : {flags.json, flags.html, flags.tune}) {
    if (status.ok()) status = CheckWritable(path);
  }
  if (!status.ok()) return Fail(status);
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
  status = WriteFile(flags.json, BenchJson(*report).dump(2) + "\n");
  if (status.ok()) status = WriteFile(flags.html, BenchPage(*report));
  return status.ok() ? 0 : Fail(status);
}

int Bench(Flags& flags, const ConfigFlags& config_flags) {
  if (!flags.write_model.empty()) return WriteModel(flags, config_flags);
  return flags.engine ? BenchModel(flags, config_flags) : BenchRunning(flags, config_flags);
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
  for (CLI::Option* option :
       {modes, repeat, stages, command.get_option("--json"), command.get_option("--html")}) {
    tune->excludes(option);
  }
  command
      .add_option(
          "--write-model", flags.write_model,
          "instead write a model of random weights to this new folder; --config is then its\n"
          "config.json")
      ->excludes(engine);
}

}  // namespace

void AddBench(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<Flags>();
  BenchOptions& bench = flags->bench;
  bench.batches = {1, 4, 16, 64};
  CLI::App* command = app.add_subcommand("bench", kHelp);
  command->add_option("--json", flags->json, "also write the figures to this file");
  command->add_option("--html", flags->html,
                      "also write a page with plots to this file, which needs no other");
  command
      ->add_option("--batch", bench.batches,
                   "batch sizes, or requests under way, with commas [1,4,16,64]")
      ->delimiter(',')
      ->check(CLI::Range(1, kMostConcurrency));
  AddEngineFlags(*command, *flags);
  flags->load.AddTo(*command);
  command->add_option("--prompt-length", flags->prompt_length, "tokens of a prompt [128]");
  command->add_option("--output-length", flags->output_length,
                      "tokens of an output, the first of them the prefill's [128]");
  command->add_option("--seed", bench.measure.seed, "of prompts and random weights [1]");
  auto config = ConfigFlags::AddTo(*command, kKeys);
  command->callback([flags, config, &exit_status] { exit_status = Bench(*flags, *config); });
}

}  // namespace sirocco
