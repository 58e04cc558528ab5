#include "graphs/prefill.h"

#include <algorithm>
#include <utility>

#include "graphs/graph_pool.h"

namespace sirocco {
namespace {

Plan ComposePrefillSample(const ComposeContext& context) {
  Plan plan;
  AddSample(context, context.buffers.head_rows.lane, plan);
  return plan;
}

}  // namespace

PrefillPass::PrefillPass(const ComposeContext& context, Device& device, const StepBuffers& buffers,
                         LaneStore& lanes, StepInputs& inputs, const ExecutorOptions& options,
                         ExecutorStats& stats)
    : device_(device),
      buffers_(buffers),
      lanes_(lanes),
      inputs_(inputs),
      options_(options),
      stats_(stats),
      sizes_(options),
      pass_(ComposePrefill(context)),
      end_(ComposePrefillEnd(context)),
      head_(ComposePrefillHead(context)),
      sampled_(ComposePrefillSampled(context)),
      sample_(ComposePrefillSample(context)) {}

absl::Status PrefillPass::Prepare() {
  absl::Status status = sirocco::Prepare(device_, pass_, options_.prefill_chunk_size);
  if (status.ok()) status = sirocco::Prepare(device_, end_, options_.prefill_chunk_size);
  const int32_t head_rows = std::max(options_.max_batch_size, kScoreRows);
  if (status.ok()) status = sirocco::Prepare(device_, head_, head_rows);
  if (status.ok()) status = sirocco::Prepare(device_, sampled_, options_.max_batch_size);
  if (status.ok()) status = sirocco::Prepare(device_, sample_, options_.max_batch_size);
  if (!status.ok()) return status;
  Plan score;
  score.Add("epilogue", ScoreParams(kMaxTopLogprobs));
  return sirocco::Prepare(device_, score, kScoreRows);
}

absl::Status PrefillPass::Capture() {
  absl::StatusOr<PrefillGraphs> graphs = PrefillGraphs::Capture(device_, pass_, sizes_.all());
  if (!graphs.ok()) return graphs.status();
  graphs_ = *std::move(graphs);
  stats_.prefill_graphs += graphs_.graphs();
  stats_.prefill_graph_bytes += graphs_.bytes();
  stats_.capture_seconds += graphs_.seconds();
  return absl::OkStatus();
}

ScoreTokensParams PrefillPass::ScoreParams(int32_t top) const {
  return {.map = buffers_.head_rows,
          .lanes = lanes_.lanes(),
          .top = top,
          .logits = buffers_.logits,
          .out = buffers_.scores};
}

absl::Status PrefillPass::CheckChunk(const PrefillChunk& chunk) const {
  const int32_t length = lanes_.length(chunk.lane);
  if (chunk.first_position < 0 || chunk.first_position >= length) {
    return StepRangeError("a chunk's first position", chunk.first_position, 0, length - 1);
  }
  const int32_t rest = length - chunk.first_position;
  if (chunk.count < 1 || chunk.count > rest) {
    return StepRangeError("a chunk's count", chunk.count, 1, rest);
  }
  if (chunk.sample && chunk.count != rest) {
    return StepRangeError("the count of a chunk that samples", chunk.count, rest, rest);
  }
  // The token after a scored position must be known.
  const int32_t most = std::min(chunk.count, rest - 1);
  if (chunk.score_count < 0 || chunk.score_count > most) {
    return StepRangeError("a chunk's score_count", chunk.score_count, 0, most);
  }
  if (chunk.score_top < 0 || chunk.score_top > kMaxTopLogprobs) {
    return StepRangeError("a chunk's score_top", chunk.score_top, 0, kMaxTopLogprobs);
  }
  return absl::OkStatus();
}

absl::Status PrefillPass::Check(const PrefillStep& step) {
  if (step.chunks.empty() && !step.block_updates.empty()) {
    return absl::InvalidArgumentError("step: block updates of a prefill without chunks");
  }
  int64_t rows = 0;
  for (const PrefillChunk& chunk : step.chunks) {
    if (absl::Status status = inputs_.CheckLane(chunk.lane); !status.ok()) return status;
    if (absl::Status status = CheckChunk(chunk); !status.ok()) return status;
    rows += chunk.count;
  }
  if (rows > options_.prefill_chunk_size) {
    return StepRangeError("the sum of the chunks' counts", rows, 1, options_.prefill_chunk_size);
  }
  return inputs_.CheckUpdates(step.block_updates);
}

void PrefillPass::AddSegment(const PrefillChunk& chunk, StepHost& host) const {
  host.segments.items[(*host.segments.count)++] = {.lane = chunk.lane,
                                                   .first_row = host.rows,
                                                   .first_position = chunk.first_position,
                                                   .count = chunk.count};
  for (int32_t i = 0; i < chunk.count; ++i, ++host.rows) {
    host.row_lane[host.rows] = chunk.lane;
    host.row_position[host.rows] = chunk.first_position + i;
  }
}

absl::Status PrefillPass::Upload(const PrefillStep& step, StepHost& host) {
  host.rows = *host.segments.count = 0;
  for (const PrefillChunk& chunk : step.chunks) AddSegment(chunk, host);
  if (const int32_t filling = sizes_.Of(host.rows) - host.rows; filling > 0) {
    AddSegment({.lane = options_.max_batch_size, .count = filling}, host);
    stats_.prefill_filling_rows.fetch_add(filling, std::memory_order_relaxed);
  }
  const StepBuffers& b = buffers_;
  const size_t row_bytes = host.rows * sizeof(int32_t);
  inputs_.RowsOverwritten();
  absl::Status status = device_.CopyToDevice(b.rows.lane, host.row_lane, row_bytes);
  if (status.ok()) status = device_.CopyToDevice(b.rows.position, host.row_position, row_bytes);
  if (status.ok()) status = sirocco::Upload(device_, host.segments, b.segments);
  return status.ok() ? inputs_.UploadUpdates(step.block_updates, host.prefill_updates) : status;
}

void PrefillPass::SetHead(int32_t head, int32_t row, StepHost& host) {
  host.head_index[head] = row;
  host.head_lane[head] = host.row_lane[row];
  host.head_position[head] = host.row_position[row];
}

absl::Status PrefillPass::RunHead(const Plan& plan, int32_t first, int32_t count,
                                  const StepHost& host) {
  const size_t bytes = count * sizeof(int32_t);
  absl::Status status = device_.CopyToDevice(buffers_.head_index, host.head_index + first, bytes);
  if (status.ok()) {
    status = device_.CopyToDevice(buffers_.head_rows.lane, host.head_lane + first, bytes);
  }
  if (status.ok()) {
    status = device_.CopyToDevice(buffers_.head_rows.position, host.head_position + first, bytes);
  }
  return status.ok() ? plan.Run(device_.ops(), count) : status;
}

absl::Status PrefillPass::ScoreSlice(int32_t top, int32_t first_row, int32_t count,
                                     StepHost& host) {
  const int32_t first = host.scored_count;
  for (int32_t i = 0; i < count; ++i) SetHead(first + i, first_row + i, host);
  absl::Status status = RunHead(head_, first, count, host);
  if (status.ok()) {
    ScoreTokensParams score = ScoreParams(top);
    score.rows = count;
    status = device_.ops().Run(score);
  }
  if (status.ok()) {
    status = device_.CopyToHost(host.scored + first, buffers_.scores, count * sizeof(TokenScore));
  }
  host.scored_count += count;
  return status;
}

absl::Status PrefillPass::Score(const PrefillStep& step, StepHost& host) {
  host.scored_count = 0;
  int32_t first_row = 0;
  for (const PrefillChunk& chunk : step.chunks) {
    for (int32_t done = 0; done < chunk.score_count; done += kScoreRows) {
      const int32_t count = std::min(kScoreRows, chunk.score_count - done);
      absl::Status status = ScoreSlice(chunk.score_top, first_row + done, count, host);
      if (!status.ok()) return status;
    }
    first_row += chunk.count;
  }
  return absl::OkStatus();
}

absl::Status PrefillPass::Sample(const PrefillStep& step, bool scores, StepHost& host) {
  int32_t count = 0;
  int32_t end_row = 0;
  for (const PrefillChunk& chunk : step.chunks) {
    end_row += chunk.count;
    if (chunk.sample) SetHead(host.scored_count + count++, end_row - 1, host);
  }
  host.prefill_sampled_count = count;
  if (count == 0) return absl::OkStatus();
  absl::Status status = RunHead(scores ? head_ : sampled_, host.scored_count, count, host);
  if (status.ok()) status = sample_.Run(device_.ops(), count);
  if (status.ok()) {
    status = device_.CopyToHost(host.prefill_sampled, buffers_.scores, count * sizeof(TokenScore));
  }
  if (status.ok() && options_.keep_logits) {
    const Rows& kept = buffers_.kept_logits;
    status =
        device_.CopyToHost(host.logits, kept.data, int64_t{count} * kept.width * sizeof(float));
  }
  if (!status.ok()) return status;
  for (int32_t i = 0; i < count; ++i) lanes_.Advance(host.head_lane[host.scored_count + i]);
  return absl::OkStatus();
}

absl::Status PrefillPass::RunPass(const StepHost& host) {
  if (const Recording* const recording = graphs_.Find(host.rows); recording != nullptr) {
    stats_.prefill_replays.fetch_add(1, std::memory_order_relaxed);
    return device_.Launch(*recording);
  }
  stats_.prefill_launches.fetch_add(1, std::memory_order_relaxed);
  return pass_.Run(device_.ops(), host.rows);
}

absl::Status PrefillPass::Launch(const PrefillStep& step, StepHost& host) {
  const bool scores = std::ranges::any_of(
      step.chunks, [](const PrefillChunk& chunk) { return chunk.score_count > 0; });
  absl::Status status = Upload(step, host);
  if (status.ok()) status = RunPass(host);
  if (status.ok() && scores) status = end_.Run(device_.ops(), host.rows);
  if (status.ok()) status = Score(step, host);
  return status.ok() ? Sample(step, scores, host) : status;
}

}  // namespace sirocco
