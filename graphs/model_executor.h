// The executor: one workspace, the lanes, the KV cache, and the plans on them.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "graphs/decode_plan.h"
#include "graphs/executor.h"
#include "graphs/graph_pool.h"
#include "graphs/kv_store.h"
#include "graphs/lane_store.h"
#include "graphs/prefill.h"
#include "graphs/rotary_table.h"
#include "graphs/step_buffers.h"
#include "graphs/step_inputs.h"

namespace sirocco {

class ModelExecutor final : public Executor {
 public:
  ModelExecutor(Device& device, const ModelDescriptor& descriptor, const ExecutorOptions& options);

  // Once, before all else. The arguments have been checked.
  absl::Status Build(const ModelWeights& weights, const Progress& progress);

  absl::Status StartLane(const LaneStart& start) override;
  absl::StatusOr<PrefillResult> Prefill(const PrefillStep& step) override;
  absl::StatusOr<DecodeResult> Decode(const DecodeStep& step) override;
  absl::StatusOr<std::span<const float>> KeptLogits(int row) override;
  const ExecutorOptions& options() const override { return options_; }
  const ExecutorStats& stats() const override { return stats_; }
  std::vector<PlanEntry> DecodePlan() const override { return plan_.Describe(); }

 private:
  absl::Status Allocate(const ModelWeights& weights);
  void Compose(const ModelWeights& weights);
  absl::Status Capture(const Progress& progress);
  absl::Status CheckDecode(const DecodeStep& step);
  absl::Status RunDecode(const DecodeStep& step);

  Device& device_;
  const ModelDescriptor descriptor_;
  const ExecutorOptions options_;
  ExecutorStats stats_;

  std::unique_ptr<Buffer> workspace_;
  StepBuffers buffers_;
  LaneStore lanes_;
  RotaryTables rotaries_;
  KvStore kv_;
  std::vector<LayerParams> layers_;
  std::unique_ptr<Buffer> layer_table_;

  sirocco::DecodePlan plan_;
  GraphPool pool_;  // empty in modes without graphs
  std::optional<StepInputs> inputs_;
  std::optional<PrefillPass> prefill_;

  std::vector<TokenScore> sampled_;  // [max_batch_size]
  std::vector<float> kept_logits_;   // [vocab]
};

}  // namespace sirocco
