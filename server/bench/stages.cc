#include "server/bench/stages.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/bench/operation_bytes.h"

namespace sirocco {
namespace {

using Timed = std::vector<StageTimer::Timed>;

// The same operations, timed several times; sums them by stage, in the order of their first.
absl::StatusOr<std::vector<Stage>> Sum(const std::vector<Timed>& runs,
                                       const ModelDescriptor& descriptor, OperationPlace place) {
  std::vector<Stage> stages;
  for (size_t i = 0; i < runs.front().size(); ++i) {
    const Operation& operation = runs.front()[i].operation;
    std::vector<double> seconds;
    for (const Timed& run : runs) {
      if (run.size() != runs.front().size()) {
        return absl::InternalError(
            absl::StrCat("a step has ", run.size(), " operations, then ", runs.front().size()));
      }
      seconds.push_back(run[i].seconds);
    }
    const std::string name = StageName(operation);
    auto stage = std::find_if(stages.begin(), stages.end(),
                              [&](const Stage& known) { return known.name == name; });
    if (stage == stages.end()) stage = stages.insert(stages.end(), Stage{.name = name});
    ++stage->operations;
    stage->seconds += Median(std::move(seconds));
    stage->bytes += OperationBytes(operation, descriptor, place);
    if (IsAttention(operation)) ++place.layer;
  }
  return stages;
}

}  // namespace

absl::StatusOr<std::vector<StageTimer::Timed>> TimeStep(StageTimer& timer, Executor& executor,
                                                        const Step& step) {
  timer.Begin();
  absl::Status status = executor.Launch(step);
  absl::StatusOr<Timed> timed = timer.End();
  if (!status.ok()) return status;
  if (!timed.ok()) return timed.status();
  if (absl::StatusOr<StepResult> result = executor.Collect(); !result.ok()) return result.status();
  return timed;
}

absl::StatusOr<StepStages> MeasureStages(StageTimer& timer, Executor& executor,
                                         const ModelDescriptor& descriptor,
                                         const ModelWeights& weights, int32_t batch,
                                         const MeasureOptions& options, ExpertCounter& experts) {
  const Workload workload(descriptor, executor.options(), batch, options.prompt_length,
                          options.output_length, options.seed);
  if (absl::Status status = workload.Start(executor, false); !status.ok()) return status;
  if (auto prompts = RunPrompts(executor, workload); !prompts.ok()) return prompts.status();

  StepStages stages;
  Step prefill, decode;
  prefill.prefill.chunks = workload.prompts().steps.front();
  decode.decode.lanes = workload.lanes();
  for (const PrefillChunk& chunk : prefill.prefill.chunks) stages.prefill_rows += chunk.count;
  const int32_t middle = std::max(1, options.output_length / 2);
  std::vector<Timed> prefill_runs, decode_runs;
  for (int i = 0; i < options.repeat; ++i) {
    absl::Status status = workload.Start(executor, /*after_prompt=*/false);
    if (!status.ok()) return status;
    absl::StatusOr<Timed> timed = TimeStep(timer, executor, prefill);
    if (!timed.ok()) return timed.status();
    prefill_runs.push_back(*std::move(timed));
  }
  if (absl::Status status = workload.Start(executor, /*after_prompt=*/true); !status.ok()) {
    return status;
  }
  for (int32_t i = 0; i < middle - 1; ++i) {
    if (auto result = executor.Decode(decode.decode); !result.ok()) return result.status();
  }
  for (int i = 0; i < options.repeat && middle + i < options.output_length; ++i) {
    absl::StatusOr<Timed> timed = TimeStep(timer, executor, decode);
    if (!timed.ok()) return timed.status();
    decode_runs.push_back(*std::move(timed));
  }

  if (absl::Status status = experts.Read(); !status.ok()) return status;
  const PrefillChunk& chunk = prefill.prefill.chunks.front();  // others may take more
  OperationPlace place{
      .sequences = static_cast<int32_t>(prefill.prefill.chunks.size()),
      .context = stages.prefill_rows / static_cast<int64_t>(prefill.prefill.chunks.size()),
      .weights = weights.layers.front(),
      .kv = executor.options().kv_dtype,
      .share_of_experts = experts.ShareOfPositions(chunk.lane, chunk.first_position, chunk.count)};
  absl::StatusOr<std::vector<Stage>> sum = Sum(prefill_runs, descriptor, place);
  if (!sum.ok()) return sum.status();
  stages.prefill = *std::move(sum);
  place.sequences = batch;
  place.context = int64_t{options.prompt_length} + middle;
  place.share_of_experts = experts.ShareOfLanes(batch, options.prompt_length + middle - 1);
  sum = Sum(decode_runs, descriptor, place);
  if (!sum.ok()) return sum.status();
  stages.decode = *std::move(sum);
  return stages;
}

}  // namespace sirocco
