#include "server/bench/measure.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "graphs/stopwatch.h"
#include "server/bench/floor.h"

namespace sirocco {
namespace {

// Prompts are run again as long as they have not taken longer in all.
constexpr double kPromptSeconds = 2;

// Drives an executor through some steps; collects as the engine does, and looks at every id.
class Steps {
 public:
  Steps(Executor& executor, int32_t vocab_size) : executor_(executor), vocab_size_(vocab_size) {}

  absl::Status Run(const Step& step) {
    const Stopwatch watch;
    const absl::Status status = executor_.Launch(step);
    time_.launch += watch.Seconds();
    return status.ok() ? CollectTo(executor_.run_ahead()) : status;
  }

  // Of all steps since it was made, once they are done.
  absl::StatusOr<StepsTime> End() {
    if (absl::Status status = CollectTo(0); !status.ok()) return status;
    time_.wall = watch_.Seconds();
    return time_;
  }

 private:
  // Collects steps as long as more than `most` are in flight.
  absl::Status CollectTo(int most) {
    while (executor_.in_flight() > most) {
      absl::StatusOr<StepResult> result = executor_.Collect();
      if (!result.ok()) return result.status();
      time_.device += result->prefill_seconds + result->decode_seconds;
      for (const auto& scores : {result->prefill.sampled, result->decode.sampled}) {
        for (const TokenScore& score : scores) {
          if (score.token_id < 0 || score.token_id >= vocab_size_) {
            return absl::InternalError(absl::StrCat("a step answered the id ", score.token_id));
          }
        }
      }
    }
    return absl::OkStatus();
  }

  Executor& executor_;
  const int32_t vocab_size_;
  const Stopwatch watch_;
  StepsTime time_;
};

struct Run {
  StepsTime prefill, decode;
};

absl::StatusOr<Run> RunOnce(Executor& executor, const Workload& workload, bool with_prompts,
                            int32_t steps) {
  absl::Status started = workload.Start(executor, /*after_prompt=*/!with_prompts);
  if (!started.ok()) return started;
  Run run;
  if (with_prompts) {
    absl::StatusOr<StepsTime> prefill = RunPrompts(executor, workload);
    if (!prefill.ok()) return prefill.status();
    run.prefill = *prefill;
  }

  Steps running(executor, workload.vocab_size());
  Step step;
  step.decode.lanes = workload.lanes();
  for (int32_t i = 0; i < steps; ++i) {
    if (absl::Status status = running.Run(step); !status.ok()) return status;
  }
  absl::StatusOr<StepsTime> decode = running.End();
  if (!decode.ok()) return decode.status();
  run.decode = *decode;
  return run;
}

// The median of each figure.
StepsTime Medians(const std::vector<StepsTime>& times) {
  const auto median = [&](double StepsTime::*figure) {
    std::vector<double> values;
    for (const StepsTime& time : times) values.push_back(time.*figure);
    return Median(std::move(values));
  };
  return {median(&StepsTime::wall), median(&StepsTime::device), median(&StepsTime::launch)};
}

}  // namespace

absl::StatusOr<StepsTime> RunPrompts(Executor& executor, const Workload& workload) {
  Steps running(executor, workload.vocab_size());
  const Workload::Prompts& prompts = workload.prompts();
  for (size_t i = 0; i < prompts.steps.size(); ++i) {
    Step step;
    step.prefill.chunks = prompts.steps[i];
    step.prefill.block_updates = prompts.updates[i];
    if (absl::Status status = running.Run(step); !status.ok()) return status;
  }
  return running.End();
}

absl::StatusOr<Measurement> Measure(Executor& executor, const ModelDescriptor& descriptor,
                                    const ModelWeights& weights, int32_t batch,
                                    const MeasureOptions& options, ExpertCounter& experts) {
  const int32_t steps = options.output_length - 1;
  const Workload workload(descriptor, executor.options(), batch, options.prompt_length,
                          options.output_length, options.seed);
  // Pages that nobody has touched and clocks that are not up yet.
  const int32_t warming = std::min(steps, 8);
  absl::StatusOr<Run> warm = RunOnce(executor, workload, true, warming);
  if (!warm.ok()) return warm.status();
  double prompt_seconds = warm->prefill.wall;
  std::vector<StepsTime> prefill_runs, decode_runs;
  for (int i = 0; i < options.repeat; ++i) {
    const bool with_prompts = i == 0 || prompt_seconds < kPromptSeconds;
    absl::StatusOr<Run> run = RunOnce(executor, workload, with_prompts, steps);
    if (!run.ok()) return run.status();
    if (with_prompts) prefill_runs.push_back(run->prefill);
    prompt_seconds += run->prefill.wall;
    decode_runs.push_back(run->decode);
  }
  Measurement m;
  m.batch = batch;
  m.prompt_length = options.prompt_length;
  m.decode_steps = steps;
  m.prefill_steps = static_cast<int32_t>(workload.prompts().steps.size());
  const StepsTime prefill = Medians(prefill_runs);
  m.prefill_seconds = prefill.wall;
  m.device_prefill_seconds = prefill.device;
  m.launch_prefill_seconds = prefill.launch;
  const StepsTime decode = Medians(decode_runs);
  m.decode_seconds = decode.wall;
  m.device_decode_seconds = decode.device;
  m.launch_decode_seconds = decode.launch;
  // Step i's rows have prompt_length + 1 + i tokens.
  uint64_t kv = 0;
  for (int32_t i = 0; i < steps; ++i) {
    kv += FloorKvBytes(descriptor, int64_t{options.prompt_length} + 1 + i,
                       executor.options().kv_dtype);
  }
  if (absl::Status status = experts.Read(); !status.ok()) return status;
  double share = 0;
  for (int32_t i = 0; i < steps; ++i) {
    share += experts.ShareOfLanes(batch, options.prompt_length + i);
  }
  m.share_of_experts = share / steps;
  m.floor_bytes = FloorWeightBytes(weights, m.share_of_experts) + batch * (kv / steps);
  return m;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + middle, values.end());
  if (values.size() % 2 == 1) return values[middle];
  return (values[middle] + *std::max_element(values.begin(), values.begin() + middle)) / 2;
}

}  // namespace sirocco
