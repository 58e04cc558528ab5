// A server's load as people and programs read it.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/bench/load_bench.h"

namespace sirocco {
namespace {

using nlohmann::ordered_json;

ordered_json Json(const Percentiles& p) { return {{"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}}; }

std::string Milliseconds(const Percentiles& p) {
  return absl::StrFormat("%.2f / %.2f", p.p50 * 1e3, p.p99 * 1e3);
}

}  // namespace

std::string LoadTable(const LoadReport& r) {
  const LoadOptions& o = r.options;
  std::string out;
  absl::StrAppendFormat(&out, "server   %s: %s, mode %s, %s\n", r.address, r.model, r.mode,
                        r.dtype);
  absl::StrAppendFormat(&out, "device   %s, %s\n", r.backend, r.device);
  absl::StrAppendFormat(&out,
                        "load     prompts of %d tokens, outputs of %d, %d connections, closed "
                        "loop; times are p50 / p99\n\n",
                        o.prompt_length, o.output_length, o.connections);
  absl::StrAppendFormat(&out, "%11s %8s %9s %9s %10s %12s %20s %18s %18s\n", "concurrency",
                        "requests", "tokens", "seconds", "tok/s", "decode tok/s", "first token, ms",
                        "per token, ms", "token to token, ms");
  for (const LoadLevel& level : r.levels) {
    absl::StrAppendFormat(&out, "%11d %8d %9d %9.2f %10.1f %12.1f %20s %18s %18s\n",
                          level.concurrency, level.requests, level.tokens, level.seconds,
                          level.TokensPerSecond(), level.DecodeTokensPerSecond(),
                          Milliseconds(level.first_token), Milliseconds(level.per_token),
                          Milliseconds(level.between_tokens));
  }
  return out;
}

ordered_json LoadJson(const LoadReport& r) {
  ordered_json levels = ordered_json::array();
  for (const LoadLevel& level : r.levels) {
    levels.push_back({{"concurrency", level.concurrency},
                      {"requests", level.requests},
                      {"events", level.events},
                      {"tokens", level.tokens},
                      {"seconds", level.seconds},
                      {"tokens_per_second", level.TokensPerSecond()},
                      {"decode_tokens_per_second", level.DecodeTokensPerSecond()},
                      {"first_token_seconds", Json(level.first_token)},
                      {"seconds_per_token", Json(level.per_token)},
                      {"seconds_between_tokens", Json(level.between_tokens)}});
  }
  return {{"address", r.address},
          {"model", r.model},
          {"backend", r.backend},
          {"device", r.device},
          {"mode", r.mode},
          {"dtype", r.dtype},
          {"prompt_length", r.options.prompt_length},
          {"output_length", r.options.output_length},
          {"connections", r.options.connections},
          {"seed", r.options.seed},
          {"levels", std::move(levels)}};
}

}  // namespace sirocco
