#include "graphs/model_executor.h"

#include <chrono>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "graphs/layer_params.h"

namespace sirocco {
namespace {

class Stopwatch {
 public:
  // Seconds since it was made, or since the last call.
  double Lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(start_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

ModelExecutor::ModelExecutor(Device& device, const ModelDescriptor& descriptor,
                             const ExecutorOptions& options)
    : device_(device), descriptor_(descriptor), options_(options) {}

absl::Status ModelExecutor::Build(const ModelWeights& weights, const Progress& progress) {
  Stopwatch watch;
  if (absl::Status status = Allocate(weights); !status.ok()) return status;
  Compose(weights);
  stats_.pack_seconds = watch.Lap();
  if (progress) progress("pack", 1, 1);

  // Recording runs nothing, so it needs the KV cache's addresses but not its memory: whatever the
  // recordings and the operations' scratch take is known before the cache takes the rest.
  if (absl::Status status = Capture(progress); !status.ok()) return status;
  watch.Lap();
  if (absl::Status status = kv_.Map(); !status.ok()) return status;
  stats_.kv_seconds = watch.Lap();
  if (progress) progress("kv", 1, 1);
  return absl::OkStatus();
}

absl::Status ModelExecutor::Allocate(const ModelWeights& weights) {
  absl::StatusOr<std::unique_ptr<Buffer>> workspace = device_.Allocate(
      PlaceStepBuffers(descriptor_, options_, nullptr, buffers_), MemoryUse::kWorkspace);
  if (!workspace.ok()) return workspace.status();
  workspace_ = *std::move(workspace);
  PlaceStepBuffers(descriptor_, options_, workspace_->data(), buffers_);

  absl::StatusOr<LaneStore> lanes = LaneStore::Create(device_, descriptor_, options_);
  if (!lanes.ok()) return lanes.status();
  lanes_ = *std::move(lanes);

  absl::StatusOr<RotaryTables> rotaries =
      RotaryTables::Create(device_, descriptor_, options_.max_length);
  if (!rotaries.ok()) return rotaries.status();
  rotaries_ = *std::move(rotaries);

  absl::StatusOr<KvStore> kv = KvStore::Reserve(device_, descriptor_, options_);
  if (!kv.ok()) return kv.status();
  kv_ = *std::move(kv);

  layers_ = MakeLayerParams(descriptor_, weights, rotaries_.tables(), kv_.layers());
  const size_t table_bytes = layers_.size() * sizeof(LayerParams);
  absl::StatusOr<std::unique_ptr<Buffer>> table =
      device_.Allocate(table_bytes, MemoryUse::kWorkspace);
  if (!table.ok()) return table.status();
  layer_table_ = *std::move(table);
  absl::Status status = device_.CopyToDevice(layer_table_->data(), layers_.data(), table_bytes);
  if (!status.ok()) return status;

  sampled_.resize(options_.max_batch_size);
  if (options_.keep_logits) {
    kept_logits_.resize(descriptor_.vocab_size);
    std::vector<int32_t> identity(options_.max_batch_size);
    std::iota(identity.begin(), identity.end(), 0);
    status =
        device_.CopyToDevice(buffers_.identity, identity.data(), identity.size() * sizeof(int32_t));
    if (!status.ok()) return status;
    return device_.Synchronize();
  }
  return device_.Synchronize();
}

void ModelExecutor::Compose(const ModelWeights& weights) {
  const ComposeContext context{.descriptor = descriptor_,
                               .weights = weights,
                               .buffers = buffers_,
                               .lanes = lanes_.lanes(),
                               .layers = layers_,
                               .layer_table = layer_table_->as<LayerParams>(),
                               .keep_logits = options_.keep_logits};
  plan_ = ComposeDecode(options_.mode, context);
  inputs_.emplace(device_, buffers_, lanes_, options_);
  prefill_.emplace(context, device_, buffers_, lanes_, *inputs_, options_);
  stats_.plan_builds += plan_.parts.size() + PrefillPass::kPlans;
}

absl::Status ModelExecutor::Capture(const Progress& progress) {
  if (absl::Status status = prefill_->Prepare(); !status.ok()) return status;
  if (!UsesGraphs(options_.mode)) {
    return PrepareSizes(device_, plan_, options_.max_batch_size);
  }
  absl::StatusOr<GraphPool> pool =
      GraphPool::Capture(device_, plan_, options_.max_batch_size, progress);
  if (!pool.ok()) return pool.status();
  pool_ = *std::move(pool);
  stats_.graphs_captured += pool_.graphs();
  stats_.graph_pool_bytes += pool_.bytes();
  stats_.capture_seconds = pool_.seconds();
  return absl::OkStatus();
}

absl::Status ModelExecutor::StartLane(const LaneStart& start) {
  return lanes_.Start(device_, start);
}

absl::StatusOr<PrefillResult> ModelExecutor::Prefill(const PrefillStep& step) {
  return prefill_->Run(step);
}

absl::Status ModelExecutor::CheckDecode(const DecodeStep& step) {
  const int64_t rows = static_cast<int64_t>(step.lanes.size());
  if (rows < 1 || rows > options_.max_batch_size) {
    return StepRangeError("the number of lanes", rows, 1, options_.max_batch_size);
  }
  inputs_->BeginCheck();
  for (const int32_t lane : step.lanes) {
    if (absl::Status status = inputs_->CheckLane(lane); !status.ok()) return status;
  }
  return inputs_->CheckUpdates(step.block_updates);
}

absl::Status ModelExecutor::RunDecode(const DecodeStep& step) {
  const int32_t rows = static_cast<int32_t>(step.lanes.size());
  absl::Status status =
      device_.CopyToDevice(buffers_.rows.lane, step.lanes.data(), step.lanes.size_bytes());
  if (status.ok()) status = inputs_->UploadUpdates(step.block_updates);
  if (!status.ok()) return status;
  if (UsesGraphs(options_.mode)) {
    status = pool_.Replay(device_, rows);
    if (status.ok()) stats_.replays[rows].fetch_add(1, std::memory_order_relaxed);
  } else {
    status = plan_.Run(device_.ops(), rows);
  }
  if (status.ok()) {
    status = device_.CopyToHost(sampled_.data(), buffers_.scores, rows * sizeof(TokenScore));
  }
  return status.ok() ? device_.Synchronize() : status;
}

absl::StatusOr<DecodeResult> ModelExecutor::Decode(const DecodeStep& step) {
  if (absl::Status status = CheckDecode(step); !status.ok()) return status;
  const uint64_t allocations = device_.counters().allocations.load();
  const absl::Status status = RunDecode(step);
  stats_.decode_allocations += device_.counters().allocations.load() - allocations;
  if (!status.ok()) return status;
  for (const int32_t lane : step.lanes) lanes_.Advance(lane);
  return DecodeResult{.sampled = {sampled_.data(), step.lanes.size()}};
}

absl::StatusOr<std::span<const float>> ModelExecutor::KeptLogits(int row) {
  if (!options_.keep_logits) {
    return absl::FailedPreconditionError("logits are kept only with keep_logits");
  }
  if (row < 0 || row >= options_.max_batch_size) {
    return StepRangeError("a row", row, 0, options_.max_batch_size - 1);
  }
  const int64_t width = descriptor_.vocab_size;
  absl::Status status = device_.CopyToHost(
      kept_logits_.data(), static_cast<const float*>(buffers_.kept_logits.data) + row * width,
      width * sizeof(float));
  if (status.ok()) status = device_.Synchronize();
  if (!status.ok()) return status;
  return std::span<const float>(kept_logits_);
}

}  // namespace sirocco
