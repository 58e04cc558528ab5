// The table, and the figures for programs.
#include "server/bench/load/load_report.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sirocco {
namespace {

using nlohmann::ordered_json;

ordered_json Json(const Histogram& samples) {
  return {{"samples", samples.count()},         {"mean", samples.mean()},
          {"p50", samples.Percentile(0.5)},     {"p90", samples.Percentile(0.9)},
          {"p95", samples.Percentile(0.95)},    {"p99", samples.Percentile(0.99)},
          {"p99.9", samples.Percentile(0.999)}, {"max", samples.max()}};
}

ordered_json Json(const Timeline& timeline) {
  ordered_json out = {{"bin_seconds", timeline.bin_seconds()}};
  for (const auto& [name, series] :
       {std::pair{"arrivals", Timeline::kArrivals}, std::pair{"tokens", Timeline::kTokens},
        std::pair{"ends", Timeline::kEnds},
        std::pair{"worst_first_token_seconds", Timeline::kWorstFirstToken}}) {
    ordered_json values = ordered_json::array();
    for (size_t bin = 0; bin < timeline.bins(); ++bin) values.push_back(timeline.At(series, bin));
    out[name] = std::move(values);
  }
  return out;
}

ordered_json Json(const Lengths& lengths) {
  if (const auto fixed = lengths.fixed()) return *fixed;
  return lengths.text();
}

ordered_json Json(const std::optional<double>& value) {
  return value ? ordered_json(*value) : ordered_json();
}

ordered_json LevelJson(const LoadLevel& level, const std::vector<Goal>& goals) {
  ordered_json out;
  if (level.load.open()) {
    out["rate"] = level.load.rate;
  } else {
    out["concurrency"] = level.load.concurrency;
  }
  out["requests"] = level.requests;
  out["failed"] = ordered_json(level.failed);
  if (!level.first_failure.ok()) {
    out["first_failure"] = std::string(level.first_failure.message());
  }
  out["events"] = level.events;
  out["tokens"] = level.tokens;
  out["warm_up_seconds"] = level.begin;
  out["seconds"] = level.seconds;
  out["requests_per_second"] = level.RequestsPerSecond();
  out["tokens_per_second"] = level.TokensPerSecond();
  if (!level.load.open()) out["decode_tokens_per_second"] = level.DecodeTokensPerSecond();
  out["most_under_way"] = level.most_under_way;
  out["first_token_seconds"] = Json(level.first_token);
  out["seconds_per_token"] = Json(level.per_token);
  out["seconds_between_tokens"] = Json(level.between_tokens);
  out["total_seconds"] = Json(level.total);
  out["late_seconds"] = Json(level.late);
  if (!goals.empty()) {
    out["keeps_goal"] = std::all_of(goals.begin(), goals.end(),
                                    [&](const Goal& goal) { return level.Keeps(goal); });
  }
  out["timeline"] = Json(level.timeline);
  return out;
}

std::string Times(const Histogram& samples) {
  return absl::StrCat(Milliseconds(samples, 0.5), " / ", Milliseconds(samples, 0.99));
}

std::string Row(const LoadLevel& level) {
  const std::string decode =
      level.load.open() ? "-" : absl::StrFormat("%.1f", level.DecodeTokensPerSecond());
  return absl::StrFormat("%11s %8d %6d %9.2f %9.2f %10.1f %12s %20s %18s %18s %9s\n",
                         LoadName(level.load), level.requests, level.Failed(), level.seconds,
                         level.RequestsPerSecond(), level.TokensPerSecond(), decode,
                         Times(level.first_token), Times(level.per_token),
                         Times(level.between_tokens), Milliseconds(level.late, 0.99));
}

}  // namespace

std::string Milliseconds(double seconds) { return absl::StrFormat("%.2f", seconds * 1e3); }

std::string Milliseconds(const Histogram& samples, double part) {
  return samples.count() == 0 ? "-" : Milliseconds(samples.Percentile(part));
}

std::string SearchResult(const LoadReport& r) {
  if (r.options.goals.empty()) return "";
  if (!r.highest_kept) {
    return absl::StrFormat("no rate down to %.5g/s keeps %s", r.lowest_missed.value_or(0),
                           r.options.goals_text);
  }
  std::string out =
      absl::StrFormat("%.5g requests/s keep %s", *r.highest_kept, r.options.goals_text);
  if (r.lowest_missed) absl::StrAppendFormat(&out, "; %.5g do not", *r.lowest_missed);
  return out;
}

std::string LoadTable(const LoadReport& r) {
  const LoadOptions& o = r.options;
  const bool open = o.loads.front().open();
  std::string out;
  absl::StrAppendFormat(&out, "server   %s: %s, mode %s, %s\n", r.address, r.model, r.mode,
                        r.dtype);
  absl::StrAppendFormat(&out, "device   %s, %s\n", r.backend, r.device);
  absl::StrAppendFormat(&out,
                        "load     prompts of %s tokens, outputs of %s, %d connections, %s loop; "
                        "times are p50 / p99, late is p99\n\n",
                        o.prompts.text(), o.outputs.text(), o.connections,
                        open ? "open" : "closed");
  absl::StrAppendFormat(&out, "%11s %8s %6s %9s %9s %10s %12s %20s %18s %18s %9s\n", "load",
                        "requests", "failed", "seconds", "req/s", "tok/s", "decode tok/s",
                        "first token, ms", "per token, ms", "token to token, ms", "late, ms");
  for (const LoadLevel& level : r.levels) out += Row(level);
  for (const LoadLevel& level : r.levels) {
    if (level.first_failure.ok()) continue;
    absl::StrAppendFormat(&out, "\nthe first that failed at %s: %s\n", LoadName(level.load),
                          std::string(level.first_failure.message()));
    break;
  }
  if (const std::string found = SearchResult(r); !found.empty()) {
    absl::StrAppend(&out, "\n", found, "\n");
  }
  return out;
}

ordered_json LoadJson(const LoadReport& r) {
  const LoadOptions& o = r.options;
  ordered_json levels = ordered_json::array();
  for (const LoadLevel& level : r.levels) levels.push_back(LevelJson(level, o.goals));
  ordered_json out = {{"address", r.address},
                      {"model", r.model},
                      {"backend", r.backend},
                      {"device", r.device},
                      {"mode", r.mode},
                      {"dtype", r.dtype},
                      {"loop", o.loads.front().open() ? "open" : "closed"},
                      {"prompt_length", Json(o.prompts)},
                      {"output_length", Json(o.outputs)},
                      {"connections", o.connections},
                      {"seed", o.seed},
                      {"levels", std::move(levels)}};
  if (!o.goals.empty()) {
    out["goal"] = {{"text", o.goals_text},
                   {"highest_kept_rate", Json(r.highest_kept)},
                   {"lowest_missed_rate", Json(r.lowest_missed)}};
  }
  return out;
}

}  // namespace sirocco
