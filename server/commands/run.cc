// sirocco run: answers JSON lines of GenerateRequest without a server, many at once, in their
// order.
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "server/commands/answers_file.h"
#include "server/commands/commands.h"
#include "server/commands/config_flags.h"
#include "server/commands/interrupt.h"
#include "server/commands/json_lines.h"
#include "server/commands/line_run.h"
#include "server/commands/offline.h"
#include "server/commands/report.h"

namespace sirocco {
namespace {

struct Options {
  std::string input, output;
  bool resume = false;
};

// Bytes of a regular file; 0: of what else there may be nobody knows.
uint64_t SizeOf(int fd) {
  struct stat info = {};
  const bool known = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  return known ? static_cast<uint64_t>(info.st_size) : 0;
}

// What has been done since its construction.
class Throughput {
 public:
  Throughput(const WorkCounts& counts, uint64_t lines_before, int32_t max_batch_size)
      : counts_(counts), lines_before_(lines_before), max_batch_size_(max_batch_size) {}

  std::string Note(const LineRunProgress& progress) const {
    return absl::StrFormat("%d lines, %.0f tokens/s", progress.lines,
                           static_cast<double>(counts_.generated_tokens()) / Seconds());
  }

  // For people, when all is done.
  void Report(const LineRunProgress& progress) const {
    const double seconds = Seconds();
    const auto lines = static_cast<int64_t>(progress.lines - lines_before_);
    std::string text =
        absl::StrFormat("answered %d lines in %.1f s (%.1f/s)", lines, seconds, lines / seconds);
    if (lines_before_ > 0) text += absl::StrFormat(", after %d before", lines_before_);
    if (progress.failed > 0) text += absl::StrFormat(", %d failed", progress.failed);
    text += absl::StrFormat("; %d prompt tokens (%.0f/s), %d generated (%.0f/s)",
                            counts_.prompt_tokens(), counts_.prompt_tokens() / seconds,
                            counts_.generated_tokens(), counts_.generated_tokens() / seconds);
    text += absl::StrFormat("; batches of %.1f, at most %d", counts_.mean_batch(), max_batch_size_);
    std::fprintf(stderr, "sirocco: %s\n", text.c_str());
  }

 private:
  double Seconds() const {
    return std::max(1e-3, std::chrono::duration<double>(Clock::now() - begin_).count());
  }

  const WorkCounts& counts_;
  const uint64_t lines_before_;
  const int32_t max_batch_size_;
  const Clock::time_point begin_ = Clock::now();
};

int RunLines(const ConfigFlags& flags, const Options& options) {
  absl::StatusOr<Config> config = flags.Load();
  if (!config.ok()) return Fail(config.status());
  const absl::StatusOr<OwnedFd> input = OpenInput(options.input);
  if (!input.ok()) return Fail(input.status());
  absl::StatusOr<AnswersFile> answers = AnswersFile::Open(options.output, options.resume);
  if (!answers.ok()) return Fail(answers.status());
  // Outlives the model: its engine tells it of every event.
  WorkCounts counts;
  absl::StatusOr<std::unique_ptr<ServedModel>> model = OpenOffline(*config, &counts);
  if (!model.ok()) return Fail(model.status());

  const Interrupt interrupt;
  if (!interrupt.status().ok()) return Fail(interrupt.status());
  const ModelFacts& facts = (*model)->facts;
  LineRun run(*(*model)->engine, facts, input->get(), *answers,
              {.stop_fd = interrupt.fd(), .drain_timeout = config->drain_timeout});
  const Throughput throughput(counts, answers->lines(), facts.max_batch_size);
  absl::Status status;
  {
    ProgressBar bar;
    const uint64_t total = SizeOf(input->get());
    status = run.Run([&](const LineRunProgress& progress) {
      bar.Update("answers", progress.consumed_bytes, total, throughput.Note(progress));
    });
  }
  throughput.Report(run.progress());
  if (!status.ok()) return Fail(status);
  // As a shell says of a program that a signal ended: not all was done.
  if (!run.finished()) return 128 + interrupt.signal();
  return run.progress().failed > 0 ? 1 : 0;
}

}  // namespace

void AddRun(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "run",
      "Answer requests without a server: JSON lines of GenerateRequest (proto3 JSON) become lines\n"
      "of GenerateResponse, in their order, e.g. {\"prompt\": \"Hello\", \"maxNewTokens\": 8}.\n"
      "A line that fails becomes {\"error\": ...}, the rest goes on, and the exit status is 1.\n"
      "The first SIGINT or SIGTERM lets end what was begun (drain_timeout); the status is 128 and\n"
      "the signal. Then, or after a crash, the same command with --resume does the rest.\n\n"
      "  sirocco run --model MODEL.gguf <requests.jsonl\n"
      "  sirocco run --model MODEL.gguf requests.jsonl --output answers.jsonl --resume");
  command->add_option("INPUT", options->input, "a file of JSON lines; default: standard input");
  CLI::Option* output = command->add_option("--output", options->output,
                                            "the file for the answers; default: standard output");
  command
      ->add_flag("--resume", options->resume,
                 "go on behind the answers that the output holds: so many lines are skipped")
      ->needs(output);
  auto flags = ConfigFlags::AddTo(*command);
  command->callback([options, flags, &exit_status] { exit_status = RunLines(*flags, *options); });
}

}  // namespace sirocco
