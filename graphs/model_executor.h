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
#include "graphs/step_host.h"
#include "graphs/step_inputs.h"

namespace sirocco {

class ModelExecutor final : public Executor {
 public:
  ModelExecutor(Device& device, const ModelDescriptor& descriptor, const ExecutorOptions& options);
  // Waits for what is in flight.
  ~ModelExecutor() override;

  // Once, before all else. The arguments have been checked.
  absl::Status Build(const ModelWeights& weights, const Progress& progress);

  absl::Status StartLane(const LaneStart& start) override;
  absl::Status ForkLane(const LaneFork& fork) override;
  int run_ahead() const override { return StepsInFlight(device_) - 1; }
  int in_flight() const override { return static_cast<int>(launched_ - collected_); }
  absl::Status Launch(const Step& step) override;
  absl::StatusOr<StepResult> Collect() override;
  absl::StatusOr<std::span<const float>> KeptLogits(int row) override;
  const ExecutorOptions& options() const override { return options_; }
  const ExecutorStats& stats() const override { return stats_; }
  std::vector<PlanEntry> DecodePlan() const override { return plan_.Describe(); }

 private:
  absl::Status Allocate(const ModelWeights& weights);
  absl::Status AllocateHosts();
  void Compose(const ModelWeights& weights);
  // All shapes of all steps.
  absl::Status Prepare();
  absl::Status Capture(const Progress& progress);
  absl::Status Check(const Step& step);
  absl::Status CheckCollected(int32_t lane) const;
  absl::Status CheckDecode(const DecodeStep& step);
  absl::Status Run(const Step& step, StepHost& host);
  absl::Status RunDecode(const DecodeStep& step, StepHost& host);
  absl::Status IssueDecode(const DecodeStep& step, StepHost& host);
  int32_t LongRows() const;  // up to which a step may be long
  bool IsLong(const DecodeStep& step) const;
  StepHost& HostOf(uint64_t step) { return hosts_[step % hosts_.size()]; }

  Device& device_;
  const ModelDescriptor descriptor_;
  const ExecutorOptions options_;
  ExecutorStats stats_;

  std::unique_ptr<Buffer> workspace_;
  StepBuffers buffers_;
  LaneStore lanes_;
  RotaryTables rotaries_;
  KvStore kv_;
  std::vector<LayerParams> layers_;  // plans point at them
  std::unique_ptr<Buffer> layer_table_;
  DecoderLayersOffer decoder_layers_;
  std::unique_ptr<Buffer> exchange_;  // of decoder_layers_; null: there is none

  sirocco::DecodePlan plan_;
  GraphPool pool_;  // empty in modes without graphs
  // For steps of few rows but longer contexts than decoder_layers_ is for; empty without it.
  sirocco::DecodePlan long_plan_;
  GraphPool long_pool_;
  std::optional<StepInputs> inputs_;
  std::optional<PrefillPass> prefill_;

  // Steps are numbered from 0 in the order of their launch.
  uint64_t launched_ = 0;
  uint64_t collected_ = 0;
  std::vector<StepHost> hosts_;     // one a step that can be in flight
  std::vector<uint64_t> last_use_;  // by lane: steps launched up to the last that named it
};

}  // namespace sirocco
