// Prefill steps: one pass over the rows of all chunks, then the end of the last layer and the LM
// head for those rows alone whose logits are asked for (where tokens are scored, the LM head
// alone). In modes with graphs the pass is replayed where there is a recording of its number of
// rows, to which it is filled up (prefill_sizes.h); the rest is issued one by one.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "graphs/compose.h"
#include "graphs/lane_store.h"
#include "graphs/plan.h"
#include "graphs/prefill_graphs.h"
#include "graphs/prefill_sizes.h"
#include "graphs/step.h"
#include "graphs/step_host.h"
#include "graphs/step_inputs.h"
#include "kernels/device.h"

namespace sirocco {

class PrefillPass {
 public:
  // Composes its plans. `device`, `buffers`, `lanes`, `inputs`, `options` and `stats` outlive it.
  PrefillPass(const ComposeContext& context, Device& device, const StepBuffers& buffers,
              LaneStore& lanes, StepInputs& inputs, const ExecutorOptions& options,
              ExecutorStats& stats);

  static constexpr int kPlans = 5;

  // Before the first step: has the device set up what the largest one needs.
  absl::Status Prepare();

  // Modes with graphs, when all is prepared: records the pass.
  absl::Status Capture();

  // Within the checks of a step (StepInputs::BeginCheck): INVALID_ARGUMENT names what is wrong.
  absl::Status Check(const PrefillStep& step);

  // Issues a step that was checked; `host` gets its inputs, and in time its results.
  absl::Status Launch(const PrefillStep& step, StepHost& host);

 private:
  absl::Status CheckChunk(const PrefillChunk& chunk) const;
  void AddSegment(const PrefillChunk& chunk, StepHost& host) const;
  absl::Status RunPass(const StepHost& host);
  // Rows, segments and block updates.
  absl::Status Upload(const PrefillStep& step, StepHost& host);
  // Scores in slices of kScoreRows. They follow each other in the order of work: no slice waits.
  absl::Status Score(const PrefillStep& step, StepHost& host);
  absl::Status ScoreSlice(int32_t top, int32_t first_row, int32_t count, StepHost& host);
  // `scores`: the step has gone through end_.
  absl::Status Sample(const PrefillStep& step, bool scores, StepHost& host);
  ScoreTokensParams ScoreParams(int32_t top) const;
  // The logits of row `row` of the step will be those of head row `head`.
  static void SetHead(int32_t head, int32_t row, StepHost& host);
  // Brings head rows [first, first + count) to the device, and computes their logits by `plan`.
  absl::Status RunHead(const Plan& plan, int32_t first, int32_t count, const StepHost& host);

  Device& device_;
  const StepBuffers& buffers_;
  LaneStore& lanes_;
  StepInputs& inputs_;
  const ExecutorOptions& options_;
  ExecutorStats& stats_;
  const PrefillSizes sizes_;
  PrefillGraphs graphs_;
  Plan pass_;     // of a step's rows
  Plan end_;      // where tokens are scored, of the same, before
  Plan head_;     // this, of head rows; else
  Plan sampled_;  // this, of head rows
  Plan sample_;
};

}  // namespace sirocco
