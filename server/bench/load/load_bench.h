// `sirocco bench` without --engine: load on a running server over gRPC, level by level.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/bench/load/goal.h"
#include "server/bench/load/lengths.h"
#include "server/bench/load/level_run.h"
#include "server/bench/load/load_level.h"
#include "server/security/client_channel.h"

namespace sirocco {

struct LoadOptions {
  ClientOptions server;
  int32_t connections = 4;
  Lengths prompts = Lengths(128);
  Lengths outputs = Lengths(128);
  uint64_t seed = 1;   // of prompts, lengths and arrivals
  double timeout = 0;  // seconds of a request; 0: none

  // A level each. With `goals` there is one, of an open loop: the first rate of a search for the
  // highest that keeps them.
  std::vector<Load> loads;
  std::vector<Goal> goals;
  std::string goals_text;  // as they were given

  double warm_up = 0;    // seconds before a level's window
  double seconds = 0;    // the window; 0 (closed loops alone): by `requests`
  int32_t requests = 0;  // of a level; 0: four times its concurrency
};

struct LoadReport {
  std::string address, model, backend, device, mode, dtype;
  LoadOptions options;
  std::vector<LoadLevel> levels;  // in the order they were measured in
  // Of a search.
  std::optional<double> highest_kept, lowest_missed;
};

// "batch 4", "12.5/s".
std::string LoadName(const Load& load);

using LoadBenchProgress = std::function<void(std::string_view level, const LevelProgress&)>;

// INVALID_ARGUMENT: lengths that the model does not take. Any other error: of a call (LevelRun);
// also where, but in a search, no request of a level was answered.
absl::StatusOr<LoadReport> BenchLoad(const LoadOptions& options, const LoadBenchProgress& progress);

}  // namespace sirocco
