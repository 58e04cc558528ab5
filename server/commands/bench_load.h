// `sirocco bench` against a running server: its flags, and the run from them to the reports.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "server/bench/load/lengths.h"
#include "server/security/client_channel.h"

namespace sirocco {

struct LoadFlags {
  ClientOptions server;
  int32_t connections = 4;
  int32_t requests = 0;
  std::vector<double> rates;
  std::string goal, duration, warm_up, timeout;

  // Beside --engine, --batch, --json and --html, which `command` has already.
  void AddTo(CLI::App& command);
};

// What a load has in common with --engine.
struct SharedFlags {
  std::vector<int32_t> batches;
  Lengths prompts, outputs;
  uint64_t seed = 1;
  std::string json, html;
};

// The exit status.
int BenchServer(const LoadFlags& flags, const SharedFlags& shared);

}  // namespace sirocco
