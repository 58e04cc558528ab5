// sirocco score: the perplexity of a text, without a server.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/api/prompt.h"
#include "server/commands/commands.h"
#include "server/commands/config_flags.h"
#include "server/commands/interrupt.h"
#include "server/commands/json_lines.h"
#include "server/commands/offline.h"
#include "server/commands/perplexity.h"
#include "server/commands/report.h"

namespace sirocco {
namespace {

// Of a text: its ids take four times as much.
constexpr size_t kMaxTextBytes = 1u << 30;

struct Options {
  std::string input;
  std::optional<uint32_t> context, stride;
  bool no_special_tokens = false;
  bool json = false;
};

struct Windows {
  size_t context, stride;
};

absl::StatusOr<std::string> ReadAll(const std::string& name) {
  const absl::StatusOr<OwnedFd> fd = OpenInput(name);
  if (!fd.ok()) return fd.status();
  std::string text, part(1u << 20, '\0');
  for (;;) {
    const ssize_t got = read(fd->get(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return absl::NotFoundError(absl::StrCat(name, ": cannot be read: ", strerror(errno)));
    }
    if (got == 0) return text;
    text.append(part, 0, got);
    if (text.size() > kMaxTextBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": the text is longer than ", kMaxTextBytes, " bytes"));
    }
  }
}

absl::StatusOr<Windows> ResolveWindows(const Options& options, int32_t max_length) {
  const size_t context = options.context.value_or(max_length);
  if (context < 2 || context > static_cast<size_t>(max_length)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--context: ", context, " is not allowed; allowed: 2 to ", max_length, " (max_length)"));
  }
  const size_t stride = options.stride.value_or(std::max<size_t>(context / 2, 1));
  if (stride < 1 || stride >= context) {
    return absl::InvalidArgumentError(absl::StrCat("--stride: ", stride,
                                                   " is not allowed; allowed: 1 to ", context - 1,
                                                   " (less than the context)"));
  }
  return Windows{context, stride};
}

// Ids that the model reads for it all: windows overlap.
size_t ComputedTokens(size_t tokens, const Windows& windows) {
  size_t computed = 0;
  for (size_t i = 0;; ++i) {
    const auto window = WindowAt(i, tokens, windows.context, windows.stride);
    if (!window) return computed;
    computed += window->end - window->begin;
  }
}

void Print(const Options& options, const Windows& windows, size_t bytes, size_t tokens,
           const Perplexity& result, double seconds) {
  const double bits_per_byte = -result.log_likelihood / std::log(2.0) / static_cast<double>(bytes);
  if (options.json) {
    const nlohmann::ordered_json line = {{"perplexity", result.value()},
                                         {"log_likelihood", result.log_likelihood},
                                         {"bits_per_byte", bits_per_byte},
                                         {"bytes", bytes},
                                         {"tokens", tokens},
                                         {"scored_tokens", result.scored},
                                         {"windows", result.windows},
                                         {"context", windows.context},
                                         {"stride", windows.stride},
                                         {"seconds", seconds}};
    std::printf("%s\n", line.dump().c_str());
    return;
  }
  const std::string text = absl::StrFormat(
      "perplexity %.6g, %.4f bits a byte\n"
      "%d of %d tokens scored, in %d windows of at most %d that begin %d apart; %.1f s (%.0f/s)\n",
      result.value(), bits_per_byte, result.scored, tokens, result.windows, windows.context,
      windows.stride, seconds, static_cast<double>(result.scored) / seconds);
  std::fputs(text.c_str(), stdout);
}

int Score(const ConfigFlags& flags, const Options& options) {
  absl::StatusOr<Config> config = flags.Load();
  if (!config.ok()) return Fail(config.status());
  const absl::StatusOr<std::string> text = ReadAll(options.input);
  if (!text.ok()) return Fail(text.status());
  WorkCounts counts;  // outlives the model
  absl::StatusOr<std::unique_ptr<ServedModel>> model = OpenOffline(*config, &counts);
  if (!model.ok()) return Fail(model.status());
  const ModelFacts& facts = (*model)->facts;
  const absl::StatusOr<Windows> windows = ResolveWindows(options, facts.max_length);
  if (!windows.ok()) return Fail(windows.status());
  const auto ids =
      EncodeText("the text", *text, {.add_special_tokens = !options.no_special_tokens}, facts);
  if (!ids.ok()) return Fail(ids.status());
  if (ids->size() < 2) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat("the text has ", ids->size(), " tokens; allowed: at least 2")));
  }

  const Interrupt interrupt;
  if (!interrupt.status().ok()) return Fail(interrupt.status());
  const Clock::time_point begin = Clock::now();
  absl::StatusOr<Perplexity> result;
  {
    ProgressBar bar;
    const size_t total = ComputedTokens(ids->size(), *windows);
    result = ScoreIds(*(*model)->engine, *ids, windows->context, windows->stride, interrupt.fd(),
                      [&] { bar.Update("scoring", counts.computed_tokens(), total); });
  }
  if (interrupt.signal() != 0) return 128 + interrupt.signal();
  if (!result.ok()) return Fail(result.status());
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  Print(options, *windows, text->size(), ids->size(), *result, std::max(seconds, 1e-9));
  return 0;
}

}  // namespace

void AddScore(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "score",
      "Tell a text's perplexity without a server: exp of the mean negative log-probability of its\n"
      "tokens, each given those before it. A text that is longer than the context is read in\n"
      "windows; each token is scored once, in the first window that has it.\n\n"
      "  sirocco score --model MODEL.gguf --context 2048 --stride 512 text.txt");
  command->add_option("FILE", options->input, "the text, UTF-8; default: standard input");
  command->add_option("--context", options->context, "most tokens of a window [max_length]");
  command->add_option(
      "--stride", options->stride,
      "tokens between the beginnings of two windows, less than the context: the\n"
      "smaller, the more each token is told of what stands before it [context / 2]");
  command->add_flag("--no-special-tokens", options->no_special_tokens,
                    "put nothing in front of the text that the tokenizer would (BOS)");
  command->add_flag("--json", options->json, "print one line of JSON");
  auto flags = ConfigFlags::AddTo(*command);
  command->callback([options, flags, &exit_status] { exit_status = Score(*flags, *options); });
}

}  // namespace sirocco
