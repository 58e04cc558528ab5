#include "server/bench/expert_counter.h"

#include <cstddef>

namespace sirocco {

absl::StatusOr<ExpertCounter> ExpertCounter::Create(Device& device,
                                                    const ModelDescriptor& descriptor,
                                                    ExecutorOptions& options) {
  ExpertCounter counter;
  if (descriptor.experts == 0) return counter;
  counter.device_ = &device;
  counter.layers_ = static_cast<int32_t>(descriptor.layers.size());
  counter.experts_ = descriptor.experts;
  counter.a_row_ = descriptor.experts_a_row;
  counter.lanes_ = options.max_batch_size + 1;
  counter.length_ = options.max_length;
  const size_t choices = size_t{1} * counter.layers_ * counter.lanes_ * counter.length_ *
                         static_cast<size_t>(counter.a_row_);
  absl::StatusOr<std::unique_ptr<Buffer>> trace =
      device.Allocate(choices * sizeof(int32_t), MemoryUse::kWorkspace);
  if (!trace.ok()) return trace.status();
  counter.trace_ = *std::move(trace);
  counter.chosen_.resize(choices);
  // No row's yet: the first expert's.
  absl::Status status = device.CopyToDevice(counter.trace_->data(), counter.chosen_.data(),
                                            choices * sizeof(int32_t));
  if (status.ok()) status = device.Synchronize();
  if (!status.ok()) return status;
  options.expert_trace = {.chosen = counter.trace_->as<int32_t>(), .impose = false};
  return counter;
}

absl::Status ExpertCounter::Read() {
  if (!counts()) return absl::OkStatus();
  absl::Status status =
      device_->CopyToHost(chosen_.data(), trace_->data(), chosen_.size() * sizeof(int32_t));
  return status.ok() ? device_->Synchronize() : status;
}

double ExpertCounter::ShareOfLanes(int32_t lanes, int32_t position) const {
  return counts() ? Share(0, lanes, position, 1) : 1;
}

double ExpertCounter::ShareOfPositions(int32_t lane, int32_t first, int32_t count) const {
  return counts() ? Share(lane, 1, first, count) : 1;
}

double ExpertCounter::Share(int32_t first_lane, int32_t lanes, int32_t first, int32_t count) const {
  int64_t all = 0;
  for (int32_t layer = 0; layer < layers_; ++layer) {
    std::vector<bool> taken(static_cast<size_t>(experts_));
    for (int32_t lane = first_lane; lane < first_lane + lanes; ++lane) {
      const int64_t at = ((int64_t{layer} * lanes_ + lane) * length_ + first) * a_row_;
      for (int64_t i = at; i < at + int64_t{count} * a_row_; ++i) {
        const size_t id = static_cast<size_t>(chosen_[static_cast<size_t>(i)]);
        all += taken[id] ? 0 : 1;
        taken[id] = true;
      }
    }
  }
  return static_cast<double>(all) / (static_cast<double>(layers_) * experts_);
}

}  // namespace sirocco
