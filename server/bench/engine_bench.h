// `sirocco bench --engine`: one model on one device, measured in modes and batch sizes, without a
// server around it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "graphs/mode.h"
#include "server/bench/measure.h"
#include "server/bench/stages.h"
#include "server/config/config.h"
#include "server/model/load.h"

namespace sirocco {

struct BenchOptions {
  bool random_weights = false;  // of the model only its configuration is read
  std::vector<int32_t> batches;
  std::vector<Mode> modes;
  bool stages = false;
  bool tune = false;  // only that: no mode is measured, and there is none
  MeasureOptions measure;
};

struct BatchStages {
  int32_t batch = 0;
  StepStages stages;
};

struct ModeReport {
  Mode mode = Mode::kEager;
  double pack_seconds = 0;
  double prepare_seconds = 0;  // kernels chosen and loaded
  double capture_seconds = 0;
  double kv_seconds = 0;
  uint64_t graphs = 0;
  // What the device's free memory fell by while they were captured: less than they hold where the
  // driver had some left of an earlier mode's.
  uint64_t graph_bytes = 0;
  // The same of prefill steps.
  uint64_t prefill_graphs = 0;
  uint64_t prefill_graph_bytes = 0;
  // Steps of prompts, of all batches.
  uint64_t prefill_replays = 0, prefill_launches = 0, prefill_filling_rows = 0;
  std::vector<Measurement> batches;
  std::vector<BatchStages> stages;
};

struct BenchReport {
  std::string model;
  std::string architecture;
  std::string backend, device, why_device;
  ModelDTypes dtypes;
  uint64_t parameters = 0;
  uint64_t weight_bytes = 0;
  double load_seconds = 0;
  MeasureOptions measure;
  double measured_stream = 0;  // bytes a second, in this run
  double stream = 0;           // what shares are of (StreamBandwidth)
  std::vector<ModeReport> modes;
  std::vector<std::string> kernel_table;  // entries, where tuning was asked for
};

// The configuration's max_batch_size and max_length do not count: the batches and lengths asked for
// do. Errors as of OpenServedModel and StartServedModel.
absl::StatusOr<BenchReport> BenchEngine(const Config& config, const BenchOptions& options,
                                        const StartProgress& progress);

}  // namespace sirocco
