// Measuring an executor as the engine drives it: prompts in chunks, then decode steps, each
// launched before the one before is collected where the device runs ahead.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "server/bench/expert_counter.h"
#include "server/bench/workload.h"

namespace sirocco {

struct Measurement {
  int32_t batch = 0;
  int32_t prompt_length = 0;
  int32_t decode_steps = 0;
  int32_t prefill_steps = 0;   // that the prompts take
  double prefill_seconds = 0;  // of all prompts, wall clock; the median of those that were run
  double decode_seconds = 0;   // of all steps, wall clock, ids delivered; the median
  // The device's part of them, from each step's first operation to its last: where launching takes
  // longer than the work, the waits in between are in it.
  double device_prefill_seconds = 0;
  double device_decode_seconds = 0;
  // What the host was in Executor::Launch meanwhile. Of a device that does not run ahead that is
  // all of the work.
  double launch_prefill_seconds = 0;
  double launch_decode_seconds = 0;
  uint64_t floor_bytes = 0;     // of a step, in the mean (floor.h)
  double share_of_experts = 1;  // that a step reads, in the mean

  int64_t PrefillTokens() const { return int64_t{batch} * prompt_length; }
  double StepSeconds() const { return decode_seconds / decode_steps; }
  double DecodeTokensPerSecond() const { return batch * decode_steps / decode_seconds; }
  double PrefillTokensPerSecond() const {
    return static_cast<double>(PrefillTokens()) / prefill_seconds;
  }
  double BytesPerSecond() const { return static_cast<double>(floor_bytes) / StepSeconds(); }
};

struct MeasureOptions {
  int32_t prompt_length = 128;
  int32_t output_length = 128;  // the prompt's own token and output_length - 1 decode steps
  int repeat = 5;
  uint64_t seed = 1;
};

// One warming run, then `repeat` ones; prompts that take long are not run in each. An INTERNAL
// error: the executor's answers are no tokens. `experts`: of the executor's options.
absl::StatusOr<Measurement> Measure(Executor& executor, const ModelDescriptor& descriptor,
                                    const ModelWeights& weights, int32_t batch,
                                    const MeasureOptions& options, ExpertCounter& experts);

// Seconds of a few steps, as Measurement has them.
struct StepsTime {
  double wall = 0;
  double device = 0;
  double launch = 0;
};

// Launches and collects all of them.
absl::StatusOr<StepsTime> RunPrompts(Executor& executor, const Workload& workload);

double Median(std::vector<double> values);

}  // namespace sirocco
