#include "server/commands/bench_load.h"

#include <chrono>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/bench/load/load_bench.h"
#include "server/bench/load/load_report.h"
#include "server/bench/load/rate_search.h"
#include "server/commands/client.h"
#include "server/commands/output_files.h"
#include "server/commands/report.h"
#include "server/config/values.h"

namespace sirocco {
namespace {

constexpr double kDefaultSeconds = 30;
constexpr double kDefaultWarmUp = 5;
constexpr double kLeastRate = 0.001;

// `text`: empty for `otherwise`.
absl::Status ReadSeconds(const char* flag, const std::string& text, double otherwise, double& out) {
  out = otherwise;
  if (text.empty()) return absl::OkStatus();
  const auto value = ParseDuration(text);
  if (!value.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": '", text, "' is not ", std::string(value.status().message())));
  }
  out = std::chrono::duration<double>(*value).count();
  return absl::OkStatus();
}

absl::Status ReadLoads(const LoadFlags& flags, const SharedFlags& shared, LoadOptions& load) {
  if (!flags.goal.empty()) {
    absl::StatusOr<std::vector<Goal>> goals = ParseGoals(flags.goal);
    if (!goals.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--goal: ", std::string(goals.status().message())));
    }
    load.goals = *std::move(goals);
    load.goals_text = flags.goal;
    if (flags.rates.size() > 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("--rate: with --goal the search begins at one rate; ", flags.rates.size(),
                       " were given"));
    }
  }
  std::vector<double> rates = flags.rates;
  if (rates.empty() && !load.goals.empty()) rates = {1};
  for (const double rate : rates) {
    load.loads.emplace_back();
    load.loads.back().rate = rate;
  }
  if (!rates.empty()) return absl::OkStatus();
  for (const int32_t batch : shared.batches) {
    load.loads.emplace_back();
    load.loads.back().concurrency = batch;
  }
  return absl::OkStatus();
}

absl::Status ReadOptions(const LoadFlags& flags, const SharedFlags& shared, LoadOptions& load) {
  load.server = flags.server;
  load.connections = flags.connections;
  load.prompts = shared.prompts;
  load.outputs = shared.outputs;
  load.seed = shared.seed;
  load.requests = flags.requests;
  absl::Status status = ReadLoads(flags, shared, load);
  if (!status.ok()) return status;
  const bool open = load.loads.front().open();
  status = ReadSeconds("--duration", flags.duration, open ? kDefaultSeconds : 0, load.seconds);
  if (!status.ok()) return status;
  if (load.seconds == 0 && (open || !flags.duration.empty())) {
    return absl::InvalidArgumentError("--duration: must be above 0");
  }
  status =
      ReadSeconds("--warm-up", flags.warm_up, load.seconds > 0 ? kDefaultWarmUp : 0, load.warm_up);
  if (!status.ok()) return status;
  return ReadSeconds("--timeout", flags.timeout, 0, load.timeout);
}

std::string Detail(const LevelProgress& now) {
  std::string out =
      absl::StrFormat("%s%.1f tok/s, %d under way, %d ended", now.warming ? "warming up, " : "",
                      now.tokens_per_second, now.under_way, now.ended);
  if (now.failed > 0) absl::StrAppendFormat(&out, ", %d failed", now.failed);
  if (now.first_token_p99 > 0) {
    absl::StrAppend(&out, ", first token ", Milliseconds(now.first_token_p50), " / ",
                    Milliseconds(now.first_token_p99), " ms");
  }
  return out;
}

}  // namespace

void LoadFlags::AddTo(CLI::App& command) {
  CLI::Option* engine = command.get_option("--engine");
  AddClientFlags(command, server);
  command.get_option("--address")->excludes(engine);
  command
      .add_option("--connections", connections,
                  "TCP connections to the server; requests take them in turn [4]")
      ->check(CLI::Range(1, 1 << 16))
      ->excludes(engine);
  CLI::Option* requests_option =
      command
          .add_option("--requests", requests,
                      "requests of each batch size; default: four times as many")
          ->check(CLI::Range(1, 1 << 24))
          ->excludes(engine);
  CLI::Option* rate =
      command
          .add_option(
              "--rate", rates,
              "an open loop: requests that begin each second, with commas, at random times\n"
              "(Poisson), however long the answers take")
          ->delimiter(',')
          ->check(CLI::Range(kLeastRate, RateSearch::kMost))
          ->excludes(engine);
  CLI::Option* goal_option =
      command
          .add_option("--goal", goal,
                      "search for the highest rate that keeps it: METRIC_pPERCENT=DURATION, with\n"
                      "commas, of ttft, itl, tpot and e2e, such as ttft_p99=500ms,itl_p50=40ms;\n"
                      "--rate is then where the search begins [1]")
          ->excludes(engine);
  for (CLI::Option* open : {rate, goal_option}) {
    open->excludes(command.get_option("--batch"));
    open->excludes(requests_option);
  }
  command
      .add_option("--duration", duration,
                  "how long a level is measured [30s; without --rate or --goal: by --requests]")
      ->excludes(engine)
      ->excludes(requests_option);
  command
      .add_option("--warm-up", warm_up,
                  "how long the load lasts before that [5s; with --requests: 0s]")
      ->excludes(engine);
  command
      .add_option("--timeout", timeout,
                  "a request's deadline, from the time it was meant to be sent at; default: none")
      ->excludes(engine);
}

int BenchServer(const LoadFlags& flags, const SharedFlags& shared) {
  LoadOptions load;
  absl::Status status = ReadOptions(flags, shared, load);
  for (const std::string& path : {shared.json, shared.html}) {
    if (status.ok()) status = CheckWritable(path);
  }
  if (!status.ok()) return Fail(status);
  absl::StatusOr<LoadReport> report = absl::InternalError("not run");
  {
    ProgressBar bar;
    report = BenchLoad(load, [&](std::string_view level, const LevelProgress& now) {
      constexpr uint64_t kWhole = 1000;
      bar.Update(level, static_cast<uint64_t>(now.done * kWhole), kWhole, Detail(now));
    });
  }
  if (!report.ok()) return Fail(report.status());
  std::fputs(LoadTable(*report).c_str(), stdout);
  status = WriteFile(shared.json, LoadJson(*report).dump(2) + "\n");
  if (status.ok()) status = WriteFile(shared.html, LoadPage(*report));
  return status.ok() ? 0 : Fail(status);
}

}  // namespace sirocco
