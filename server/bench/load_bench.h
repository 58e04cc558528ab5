// `sirocco bench` without --engine: load on a running server over gRPC, in a closed loop: a number
// of requests is always under way, and each that ends is followed by the next.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/security/client_channel.h"

namespace sirocco {

struct LoadOptions {
  ClientOptions server;
  std::vector<int32_t> concurrency;  // requests under way, a level each
  int32_t connections = 4;           // TCP connections; requests take them in turn
  int32_t requests = 0;              // of a level; 0: four times its concurrency
  int32_t prompt_length = 128;       // random ids
  int32_t output_length = 128;       // every output has exactly as many
  uint64_t seed = 1;                 // of the prompts
};

// Seconds, of all requests of a level.
struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0;
};

struct LoadLevel {
  int32_t concurrency = 0;
  int32_t requests = 0;
  uint64_t events = 0;
  uint64_t tokens = 0;      // generated
  double seconds = 0;       // from the first request's start to the last one's end
  Percentiles first_token;  // from a request's start
  // A token after the first, by the events that brought it: one with k tokens counts as k, each
  // with a k-th of the time since the event before.
  Percentiles between_tokens;
  Percentiles per_token;  // a request's time from its first token to its last, over their number

  double TokensPerSecond() const { return static_cast<double>(tokens) / seconds; }
  // What `concurrency` streams get that are past their first token: as the engine's own rate is
  // measured.
  double DecodeTokensPerSecond() const { return concurrency / per_token.p50; }
};

struct LoadReport {
  std::string address, model, backend, device, mode, dtype;
  LoadOptions options;
  std::vector<LoadLevel> levels;
};

using LoadBenchProgress =
    std::function<void(std::string_view phase, uint64_t done, uint64_t total)>;

// Greedy, without end tokens. INVALID_ARGUMENT: lengths that the model does not take. Any other
// error: the first of a call, or a stream that was shorter than asked.
absl::StatusOr<LoadReport> BenchLoad(const LoadOptions& options, const LoadBenchProgress& progress);

std::string LoadTable(const LoadReport& report);
nlohmann::ordered_json LoadJson(const LoadReport& report);

}  // namespace sirocco
