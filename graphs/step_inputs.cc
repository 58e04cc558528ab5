#include "graphs/step_inputs.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sirocco {

absl::Status StepRangeError(const char* what, int64_t value, int64_t low, int64_t high) {
  return absl::InvalidArgumentError(
      absl::StrCat("step: ", what, " is ", value, "; allowed are ", low, " to ", high));
}

StepInputs::StepInputs(Device& device, const StepBuffers& buffers, const LaneStore& lanes,
                       const ExecutorOptions& options)
    : device_(device),
      buffers_(buffers),
      lanes_(lanes),
      options_(options),
      seen_(options.max_batch_size, 0) {
  lanes_there_.reserve(options.max_batch_size);
}

absl::Status StepInputs::CheckLane(int32_t lane) {
  if (lane < 0 || lane >= options_.max_batch_size) {
    return StepRangeError("a lane", lane, 0, options_.max_batch_size - 1);
  }
  if (seen_[lane] == stamp_) {
    return absl::InvalidArgumentError(absl::StrCat("step: lane ", lane, " is named twice"));
  }
  if (lanes_.length(lane) == 0) {
    return absl::InvalidArgumentError(absl::StrCat("step: lane ", lane, " was never started"));
  }
  seen_[lane] = stamp_;
  return absl::OkStatus();
}

absl::Status StepInputs::CheckUpdates(std::span<const BlockUpdate> updates) const {
  const Lanes& lanes = lanes_.lanes();
  for (const BlockUpdate& u : updates) {
    if (u.lane < 0 || u.lane >= options_.max_batch_size) {
      return StepRangeError("a block update's lane", u.lane, 0, options_.max_batch_size - 1);
    }
    if (u.group < 0 || u.group >= lanes.groups) {
      return StepRangeError("a block update's group", u.group, 0, lanes.groups - 1);
    }
    if (u.logical < 0 || u.logical >= lanes.max_blocks) {
      return StepRangeError("a logical block", u.logical, 0, lanes.max_blocks - 1);
    }
    if (u.physical < 0 || u.physical >= options_.kv_blocks[u.group]) {
      return StepRangeError("a physical block", u.physical, 0, options_.kv_blocks[u.group] - 1);
    }
  }
  return absl::OkStatus();
}

absl::Status StepInputs::UploadUpdates(std::span<const BlockUpdate> updates,
                                       const Counted<BlockUpdate>& host) {
  for (;;) {
    const bool last = updates.size() <= kBlockUpdates;
    const std::span<const BlockUpdate> now = last ? updates : updates.first(kBlockUpdates);
    if (now.empty() && count_there_ == 0) return absl::OkStatus();
    *host.count = count_there_ = static_cast<int32_t>(now.size());
    std::copy(now.begin(), now.end(), host.items);
    absl::Status status = Upload(device_, host, buffers_.updates);
    if (!status.ok() || last) return status;
    status = device_.ops().Run(BeginStepParams{.rows = 1,
                                               .map = buffers_.rows,
                                               .updates = buffers_.updates.items,
                                               .update_count = buffers_.updates.count,
                                               .lanes = lanes_.lanes()});
    // `host` is written again in the next round.
    if (status.ok()) status = device_.Synchronize();
    if (!status.ok()) return status;
    updates = updates.subspan(kBlockUpdates);
  }
}

absl::Status StepInputs::UploadLanes(std::span<const int32_t> lanes, int32_t* host) {
  if (lanes.size() <= lanes_there_.size() &&
      std::equal(lanes.begin(), lanes.end(), lanes_there_.begin())) {
    return absl::OkStatus();
  }
  std::copy(lanes.begin(), lanes.end(), host);
  lanes_there_.assign(lanes.begin(), lanes.end());
  return device_.CopyToDevice(buffers_.rows.lane, host, lanes.size_bytes());
}

}  // namespace sirocco
