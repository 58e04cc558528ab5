#include "graphs/model_executor.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "graphs/layer_params.h"
#include "graphs/stopwatch.h"

namespace sirocco {
namespace {

PrefillOps PrefillOpsOf(const ExecutorOptions& options) {
  if (!options.prefill_as_decode) return PrefillOps::kOwn;
  switch (options.mode) {
    case Mode::kEager:
      return PrefillOps::kEager;
    case Mode::kLayer:
    case Mode::kLayerGraph:
      return PrefillOps::kFusedAnyLayer;
    case Mode::kDecoder:
    case Mode::kDecoderGraph:
      break;
  }
  return PrefillOps::kFused;
}

}  // namespace

ModelExecutor::ModelExecutor(Device& device, const ModelDescriptor& descriptor,
                             const ExecutorOptions& options)
    : device_(device), descriptor_(descriptor), options_(options) {}

ModelExecutor::~ModelExecutor() {
  // Steps in flight use the memory that goes now. A fault has been, or will be, told elsewhere.
  device_.Synchronize().IgnoreError();
}

absl::Status ModelExecutor::Build(const ModelWeights& weights, const Progress& progress) {
  Stopwatch watch;
  if (absl::Status status = Allocate(weights); !status.ok()) return status;
  Compose(weights);
  stats_.pack_seconds = watch.Lap();
  if (progress) progress("pack", 1, 1);

  // Recording runs nothing, so it needs the KV cache's addresses but not its memory: whatever the
  // recordings and the operations' scratch take is known before the cache takes the rest.
  if (absl::Status status = Prepare(); !status.ok()) return status;
  stats_.prepare_seconds = watch.Lap();
  if (progress) progress("prepare", 1, 1);
  if (absl::Status status = Capture(progress); !status.ok()) return status;
  watch.Lap();
  if (absl::Status status = kv_.Map(); !status.ok()) return status;
  stats_.kv_seconds = watch.Lap();
  if (progress) progress("kv", 1, 1);
  // A fault of what was issued until now ends the start-up, not the first step.
  return device_.Synchronize();
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
  if (options_.expert_trace.chosen != nullptr) {
    const int64_t a_layer =
        (int64_t{options_.max_batch_size} + 1) * options_.max_length * descriptor_.experts_a_row;
    for (size_t i = 0; i < layers_.size(); ++i) {
      layers_[i].expert_trace = options_.expert_trace.chosen + static_cast<int64_t>(i) * a_layer;
      layers_[i].impose_experts = options_.expert_trace.impose;
    }
  }
  const size_t table_bytes = layers_.size() * sizeof(LayerParams);
  absl::StatusOr<std::unique_ptr<Buffer>> table =
      device_.Allocate(table_bytes, MemoryUse::kWorkspace);
  if (!table.ok()) return table.status();
  layer_table_ = *std::move(table);
  absl::Status status = device_.CopyToDevice(layer_table_->data(), layers_.data(), table_bytes);
  if (!status.ok()) return status;

  decoder_layers_ = OfferOf(device_, descriptor_, options_.mode, weights, options_.activation_dtype,
                            options_.kv_dtype);
  if (decoder_layers_.rows > 0) {
    absl::StatusOr<std::unique_ptr<Buffer>> exchange =
        device_.Allocate(decoder_layers_.exchange_bytes, MemoryUse::kWorkspace);
    if (!exchange.ok()) return exchange.status();
    exchange_ = *std::move(exchange);
  }

  if (options_.keep_logits) {
    std::vector<int32_t> identity(options_.max_batch_size);
    std::iota(identity.begin(), identity.end(), 0);
    status =
        device_.CopyToDevice(buffers_.identity, identity.data(), identity.size() * sizeof(int32_t));
    if (status.ok()) status = device_.Synchronize();  // before `identity` goes
    if (!status.ok()) return status;
  }
  return AllocateHosts();
}

absl::Status ModelExecutor::AllocateHosts() {
  for (int i = 0; i < StepsInFlight(device_); ++i) {
    absl::StatusOr<StepHost> host = StepHost::Create(device_, descriptor_, options_);
    if (!host.ok()) return host.status();
    hosts_.push_back(*std::move(host));
  }
  last_use_.assign(options_.max_batch_size, 0);
  return absl::OkStatus();
}

void ModelExecutor::Compose(const ModelWeights& weights) {
  ComposeContext context{.descriptor = descriptor_,
                         .weights = weights,
                         .buffers = buffers_,
                         .lanes = lanes_.lanes(),
                         .layers = layers_,
                         .layer_table = layer_table_->as<LayerParams>(),
                         .norms_where_read_rows = device_.norms_where_read_rows(),
                         .paired_rows = device_.paired_rows(),
                         .prefill = PrefillOpsOf(options_),
                         .decoder_layers = decoder_layers_,
                         .exchange = exchange_ == nullptr ? nullptr : exchange_->data(),
                         .keep_logits = options_.keep_logits};
  plan_ = ComposeDecode(options_.mode, context);
  if (decoder_layers_.rows > 0) {
    context.decoder_layers = {};
    long_plan_ = ComposeDecode(options_.mode, context);
    stats_.plan_builds += long_plan_.parts.size();
  }
  inputs_.emplace(device_, buffers_, lanes_, options_);
  prefill_.emplace(context, device_, buffers_, lanes_, *inputs_, options_, stats_);
  stats_.plan_builds += plan_.parts.size() + PrefillPass::kPlans;
}

absl::Status ModelExecutor::Prepare() {
  if (absl::Status status = prefill_->Prepare(); !status.ok()) return status;
  if (absl::Status status = PrepareSizes(device_, plan_, options_.max_batch_size); !status.ok()) {
    return status;
  }
  return PrepareSizes(device_, long_plan_, LongRows());
}

absl::Status ModelExecutor::Capture(const Progress& progress) {
  if (!UsesGraphs(options_.mode)) return absl::OkStatus();
  absl::StatusOr<GraphPool> pool =
      GraphPool::Capture(device_, plan_, options_.max_batch_size, progress);
  if (!pool.ok()) return pool.status();
  pool_ = *std::move(pool);
  if (LongRows() > 0) {
    pool = GraphPool::Capture(device_, long_plan_, LongRows(), progress);
    if (!pool.ok()) return pool.status();
    long_pool_ = *std::move(pool);
  }
  for (const GraphPool* of : {&pool_, &long_pool_}) {
    stats_.graphs_captured += of->graphs();
    stats_.graph_pool_bytes += of->bytes();
    stats_.capture_seconds += of->seconds();
  }
  return prefill_->Capture();
}

absl::Status ModelExecutor::CheckCollected(int32_t lane) const {
  if (lane >= 0 && lane < options_.max_batch_size && last_use_[lane] > collected_) {
    return absl::FailedPreconditionError(
        absl::StrCat("lane ", lane, " is in a step that was not collected yet"));
  }
  return absl::OkStatus();
}

absl::Status ModelExecutor::StartLane(const LaneStart& start) {
  const absl::Status status = CheckCollected(start.lane);
  return status.ok() ? lanes_.Start(device_, start) : status;
}

absl::Status ModelExecutor::ForkLane(const LaneFork& fork) {
  absl::Status status = CheckCollected(fork.lane);
  if (status.ok()) status = CheckCollected(fork.parent);
  return status.ok() ? lanes_.Fork(device_, fork) : status;
}

absl::Status ModelExecutor::Check(const Step& step) {
  if (step.empty()) {
    return absl::InvalidArgumentError("step: it has neither chunks nor lanes");
  }
  inputs_->BeginCheck();
  absl::Status status = prefill_->Check(step.prefill);
  if (status.ok()) status = CheckDecode(step.decode);
  return status;
}

absl::Status ModelExecutor::CheckDecode(const DecodeStep& step) {
  const int64_t rows = static_cast<int64_t>(step.lanes.size());
  if (rows > options_.max_batch_size) {
    return StepRangeError("the number of lanes", rows, 1, options_.max_batch_size);
  }
  if (rows == 0 && !step.block_updates.empty()) {
    return absl::InvalidArgumentError("step: block updates of a decode without lanes");
  }
  if (rows == 0 && !step.block_copies.empty()) {
    return absl::InvalidArgumentError("step: block copies of a decode without lanes");
  }
  for (const int32_t lane : step.lanes) {
    if (absl::Status status = inputs_->CheckLane(lane); !status.ok()) return status;
  }
  if (absl::Status status = kv_.CheckCopies(step.block_copies); !status.ok()) return status;
  return inputs_->CheckUpdates(step.block_updates);
}

absl::Status ModelExecutor::Launch(const Step& step) {
  if (in_flight() > run_ahead()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "steps in flight: ", in_flight(), "; one must be collected before the next is launched"));
  }
  if (absl::Status status = Check(step); !status.ok()) return status;
  if (absl::Status status = Run(step, HostOf(launched_)); !status.ok()) return status;
  ++launched_;
  for (const PrefillChunk& chunk : step.prefill.chunks) last_use_[chunk.lane] = launched_;
  for (const int32_t lane : step.decode.lanes) last_use_[lane] = launched_;
  lanes_.StepLaunched();
  return absl::OkStatus();
}

absl::Status ModelExecutor::Run(const Step& step, StepHost& host) {
  absl::StatusOr<DeviceMark> mark = device_.Mark();
  if (!mark.ok()) return mark.status();
  host.begin = host.prefilled = *mark;
  host.scored_count = host.prefill_sampled_count = 0;
  if (!step.prefill.chunks.empty()) {
    if (absl::Status status = prefill_->Launch(step.prefill, host); !status.ok()) return status;
    if (mark = device_.Mark(); !mark.ok()) return mark.status();
    host.prefilled = *mark;
  }
  host.end = host.prefilled;
  host.decode_rows = static_cast<int32_t>(step.decode.lanes.size());
  if (host.decode_rows == 0) return absl::OkStatus();
  if (absl::Status status = RunDecode(step.decode, host); !status.ok()) return status;
  if (mark = device_.Mark(); !mark.ok()) return mark.status();
  host.end = *mark;
  return absl::OkStatus();
}

absl::Status ModelExecutor::RunDecode(const DecodeStep& step, StepHost& host) {
  const uint64_t allocations = device_.counters().allocations.load();
  const absl::Status status = IssueDecode(step, host);
  stats_.decode_allocations += device_.counters().allocations.load() - allocations;
  if (!status.ok()) return status;
  for (const int32_t lane : step.lanes) lanes_.Advance(lane);
  return absl::OkStatus();
}

absl::Status ModelExecutor::IssueDecode(const DecodeStep& step, StepHost& host) {
  const int32_t rows = host.decode_rows;
  absl::Status status = inputs_->UploadLanes(step.lanes, host.lanes);
  if (status.ok()) status = inputs_->UploadUpdates(step.block_updates, host.decode_updates);
  if (status.ok()) status = kv_.Copy(device_, step.block_copies);
  if (!status.ok()) return status;
  const bool is_long = IsLong(step);
  if (UsesGraphs(options_.mode)) {
    status = (is_long ? long_pool_ : pool_).Replay(device_, rows);
    if (status.ok()) stats_.replays[rows].fetch_add(1, std::memory_order_relaxed);
  } else {
    status = (is_long ? long_plan_ : plan_).Run(device_.ops(), rows);
  }
  if (status.ok()) {
    status = device_.CopyToHost(host.decode_sampled, buffers_.scores, rows * sizeof(TokenScore));
  }
  if (status.ok() && options_.keep_logits) {
    const Rows& kept = buffers_.kept_logits;
    status = device_.CopyToHost(host.logits + int64_t{host.prefill_sampled_count} * kept.width,
                                kept.data, int64_t{rows} * kept.width * sizeof(float));
  }
  return status;
}

int32_t ModelExecutor::LongRows() const {
  return std::min(decoder_layers_.rows, options_.max_batch_size);
}

bool ModelExecutor::IsLong(const DecodeStep& step) const {
  if (static_cast<int64_t>(step.lanes.size()) > LongRows()) return false;
  return std::ranges::any_of(
      step.lanes, [&](int32_t lane) { return lanes_.length(lane) > decoder_layers_.longest; });
}

absl::StatusOr<StepResult> ModelExecutor::Collect() {
  if (in_flight() == 0) return absl::FailedPreconditionError("no step is in flight");
  const StepHost& host = HostOf(collected_);
  if (absl::Status status = device_.Wait(host.end); !status.ok()) return status;
  ++collected_;
  const auto scores = [](const TokenScore* first, int32_t count) {
    return std::span<const TokenScore>(first, static_cast<size_t>(count));
  };
  StepResult result;
  result.prefill.sampled = scores(host.prefill_sampled, host.prefill_sampled_count);
  result.prefill.scored = scores(host.scored, host.scored_count);
  result.decode.sampled = scores(host.decode_sampled, host.decode_rows);
  absl::StatusOr<double> seconds = device_.Seconds(host.begin, host.prefilled);
  if (!seconds.ok()) return seconds.status();
  result.prefill_seconds = *seconds;
  seconds = device_.Seconds(host.prefilled, host.end);
  if (!seconds.ok()) return seconds.status();
  result.decode_seconds = *seconds;
  return result;
}

absl::StatusOr<std::span<const float>> ModelExecutor::KeptLogits(int row) {
  if (!options_.keep_logits) {
    return absl::FailedPreconditionError("logits are kept only with keep_logits");
  }
  if (row < 0 || row >= options_.max_batch_size) {
    return StepRangeError("a row", row, 0, options_.max_batch_size - 1);
  }
  const size_t width = descriptor_.vocab_size;
  const StepHost& host = HostOf(collected_ == 0 ? 0 : collected_ - 1);
  return std::span<const float>(host.logits + row * width, width);
}

}  // namespace sirocco
