// Where a step's time goes: its operations, one by one, summed up by what they are.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "server/bench/measure.h"
#include "server/bench/stage_timer.h"

namespace sirocco {

struct Stage {
  std::string name;  // StageName
  int operations = 0;
  double seconds = 0;  // of all; each operation's is the median of the repeats
  uint64_t bytes = 0;  // OperationBytes of all
};

struct StepStages {
  std::vector<Stage> prefill;  // of one step: a chunk of prompts
  std::vector<Stage> decode;   // of one step, in the middle of the output
  int32_t prefill_rows = 0;
};

// `executor` runs on `timer`, and records no graphs. `experts`: of its options.
absl::StatusOr<StepStages> MeasureStages(StageTimer& timer, Executor& executor,
                                         const ModelDescriptor& descriptor,
                                         const ModelWeights& weights, int32_t batch,
                                         const MeasureOptions& options, ExpertCounter& experts);

// Launches and collects one step; its operations, timed.
absl::StatusOr<std::vector<StageTimer::Timed>> TimeStep(StageTimer& timer, Executor& executor,
                                                        const Step& step);

}  // namespace sirocco
