#include "graphs/prefill.h"

#include <algorithm>

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
                         LaneStore& lanes, StepInputs& inputs, const ExecutorOptions& options)
    : device_(device),
      buffers_(buffers),
      lanes_(lanes),
      inputs_(inputs),
      options_(options),
      pass_(ComposePrefill(context)),
      head_(ComposePrefillHead(context)),
      sample_(ComposePrefillSample(context)) {
  const size_t head_rows = std::max(options.max_batch_size, kScoreRows);
  row_lane_.resize(options.prefill_chunk_size);
  row_position_.resize(options.prefill_chunk_size);
  segments_.resize(options.max_batch_size);
  head_index_.resize(head_rows);
  head_lane_.resize(head_rows);
  head_position_.resize(head_rows);
  sampled_.resize(options.max_batch_size);
  scored_.resize(options.prefill_chunk_size);
}

absl::Status PrefillPass::Prepare() {
  absl::Status status = sirocco::Prepare(device_, pass_, options_.prefill_chunk_size);
  const int32_t head_rows = static_cast<int32_t>(head_index_.size());
  if (status.ok()) status = sirocco::Prepare(device_, head_, head_rows);
  if (status.ok()) status = sirocco::Prepare(device_, sample_, options_.max_batch_size);
  if (!status.ok()) return status;
  Plan score;
  score.Add("epilogue", ScoreParams(kMaxTopLogprobs));
  return sirocco::Prepare(device_, score, kScoreRows);
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
  if (step.chunks.empty())
    return StepRangeError("the number of chunks", 0, 1, options_.max_batch_size);
  inputs_.BeginCheck();
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

absl::Status PrefillPass::Upload(const PrefillStep& step) {
  rows_ = 0;
  segment_count_ = 0;
  for (const PrefillChunk& chunk : step.chunks) {
    segments_[segment_count_++] = {.lane = chunk.lane,
                                   .first_row = rows_,
                                   .first_position = chunk.first_position,
                                   .count = chunk.count};
    for (int32_t i = 0; i < chunk.count; ++i, ++rows_) {
      row_lane_[rows_] = chunk.lane;
      row_position_[rows_] = chunk.first_position + i;
    }
  }
  const StepBuffers& b = buffers_;
  absl::Status status =
      device_.CopyToDevice(b.rows.lane, row_lane_.data(), rows_ * sizeof(int32_t));
  if (status.ok()) {
    status = device_.CopyToDevice(b.rows.position, row_position_.data(), rows_ * sizeof(int32_t));
  }
  if (status.ok()) {
    status =
        device_.CopyToDevice(b.segments, segments_.data(), segment_count_ * sizeof(PrefillSegment));
  }
  if (status.ok()) {
    status = device_.CopyToDevice(b.segment_count, &segment_count_, sizeof(segment_count_));
  }
  return status.ok() ? inputs_.UploadUpdates(step.block_updates) : status;
}

absl::Status PrefillPass::RunHead(int32_t rows) {
  const size_t bytes = rows * sizeof(int32_t);
  absl::Status status = device_.CopyToDevice(buffers_.head_index, head_index_.data(), bytes);
  if (status.ok()) {
    status = device_.CopyToDevice(buffers_.head_rows.lane, head_lane_.data(), bytes);
  }
  if (status.ok()) {
    status = device_.CopyToDevice(buffers_.head_rows.position, head_position_.data(), bytes);
  }
  return status.ok() ? head_.Run(device_.ops(), rows) : status;
}

absl::Status PrefillPass::ScoreSlice(const PrefillChunk& chunk, int32_t first_row, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    head_index_[i] = first_row + i;
    head_lane_[i] = row_lane_[first_row + i];
    head_position_[i] = row_position_[first_row + i];
  }
  absl::Status status = RunHead(count);
  if (status.ok()) {
    ScoreTokensParams score = ScoreParams(chunk.score_top);
    score.rows = count;
    status = device_.ops().Run(score);
  }
  if (status.ok()) {
    status = device_.CopyToHost(scored_.data() + scored_count_, buffers_.scores,
                                count * sizeof(TokenScore));
  }
  scored_count_ += count;
  // The next slice writes the host's arrays again.
  return status.ok() ? device_.Synchronize() : status;
}

absl::Status PrefillPass::Score(const PrefillStep& step) {
  scored_count_ = 0;
  int32_t first_row = 0;
  for (const PrefillChunk& chunk : step.chunks) {
    for (int32_t done = 0; done < chunk.score_count; done += kScoreRows) {
      const int32_t count = std::min(kScoreRows, chunk.score_count - done);
      if (absl::Status status = ScoreSlice(chunk, first_row + done, count); !status.ok()) {
        return status;
      }
    }
    first_row += chunk.count;
  }
  return absl::OkStatus();
}

absl::Status PrefillPass::Sample(const PrefillStep& step) {
  sampled_count_ = 0;
  int32_t end_row = 0;
  for (const PrefillChunk& chunk : step.chunks) {
    end_row += chunk.count;
    if (!chunk.sample) continue;
    head_index_[sampled_count_] = end_row - 1;
    head_lane_[sampled_count_] = chunk.lane;
    head_position_[sampled_count_] = row_position_[end_row - 1];
    ++sampled_count_;
  }
  if (sampled_count_ == 0) return absl::OkStatus();
  absl::Status status = RunHead(sampled_count_);
  if (status.ok()) status = sample_.Run(device_.ops(), sampled_count_);
  if (status.ok()) {
    status =
        device_.CopyToHost(sampled_.data(), buffers_.scores, sampled_count_ * sizeof(TokenScore));
  }
  if (!status.ok()) return status;
  for (int32_t i = 0; i < sampled_count_; ++i) lanes_.Advance(head_lane_[i]);
  return absl::OkStatus();
}

absl::StatusOr<PrefillResult> PrefillPass::Run(const PrefillStep& step) {
  absl::Status status = Check(step);
  if (status.ok()) status = Upload(step);
  if (status.ok()) status = pass_.Run(device_.ops(), rows_);
  if (status.ok()) status = Score(step);
  if (status.ok()) status = Sample(step);
  if (status.ok()) status = device_.Synchronize();
  if (!status.ok()) return status;
  return PrefillResult{.sampled = {sampled_.data(), static_cast<size_t>(sampled_count_)},
                       .scored = {scored_.data(), static_cast<size_t>(scored_count_)}};
}

}  // namespace sirocco
