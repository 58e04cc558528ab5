// Prefill steps: one eager pass over the rows of all chunks, then the LM head for those rows alone
// whose logits are asked for.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/compose.h"
#include "graphs/lane_store.h"
#include "graphs/plan.h"
#include "graphs/step.h"
#include "graphs/step_inputs.h"
#include "kernels/device.h"

namespace sirocco {

class PrefillPass {
 public:
  // Composes its plans. `device`, `buffers`, `lanes`, `inputs` and `options` outlive it.
  PrefillPass(const ComposeContext& context, Device& device, const StepBuffers& buffers,
              LaneStore& lanes, StepInputs& inputs, const ExecutorOptions& options);

  static constexpr int kPlans = 3;

  // Before the first step: has the device set up what the largest one needs.
  absl::Status Prepare();

  absl::StatusOr<PrefillResult> Run(const PrefillStep& step);

 private:
  absl::Status Check(const PrefillStep& step);
  absl::Status CheckChunk(const PrefillChunk& chunk) const;
  // Rows, segments and block updates.
  absl::Status Upload(const PrefillStep& step);
  absl::Status Score(const PrefillStep& step);
  absl::Status ScoreSlice(const PrefillChunk& chunk, int32_t first_row, int32_t count);
  absl::Status Sample(const PrefillStep& step);
  ScoreTokensParams ScoreParams(int32_t top) const;
  // Brings head rows that are set on the host to the device, and computes their logits.
  absl::Status RunHead(int32_t rows);

  Device& device_;
  const StepBuffers& buffers_;
  LaneStore& lanes_;
  StepInputs& inputs_;
  const ExecutorOptions& options_;
  Plan pass_;
  Plan head_;
  Plan sample_;

  // Of the step under way, on the host; all as long as a step can need.
  std::vector<int32_t> row_lane_, row_position_;                 // [rows]
  std::vector<PrefillSegment> segments_;                         // [chunks]
  std::vector<int32_t> head_index_, head_lane_, head_position_;  // [head rows]
  std::vector<TokenScore> sampled_, scored_;
  int32_t rows_ = 0;
  int32_t segment_count_ = 0;
  int32_t sampled_count_ = 0;
  int32_t scored_count_ = 0;
};

}  // namespace sirocco
