#include "graphs/graph_pool.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "graphs/stopwatch.h"

namespace sirocco {

uint64_t GraphBytes(const Device& device) {
  return device.counters().bytes[static_cast<int>(MemoryUse::kGraphs)].load();
}

absl::StatusOr<std::unique_ptr<Recording>> Record(Device& device, const Plan& plan, int32_t rows) {
  if (absl::Status status = device.BeginRecord(); !status.ok()) return status;
  const absl::Status ran = plan.Run(device.ops(), rows);
  absl::StatusOr<std::unique_ptr<Recording>> recording = device.EndRecord();
  if (!ran.ok()) return ran;
  return recording;
}

absl::Status Prepare(Device& device, const Plan& plan, int32_t rows) {
  if (absl::Status status = device.BeginPrepare(); !status.ok()) return status;
  const absl::Status ran = plan.Run(device.ops(), rows);
  const absl::Status ended = device.EndPrepare();
  return ran.ok() ? ended : ran;
}

absl::Status PrepareSizes(Device& device, const DecodePlan& plan, int32_t max_batch_size) {
  for (int32_t rows = max_batch_size; rows >= 1; --rows) {
    for (const Plan& part : plan.parts) {
      if (absl::Status status = Prepare(device, part, rows); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<GraphPool> GraphPool::Capture(Device& device, const DecodePlan& plan,
                                             int32_t max_batch_size, const Progress& progress) {
  const Stopwatch watch;
  const uint64_t bytes_before = GraphBytes(device);
  GraphPool pool;
  pool.order_ = plan.order;
  pool.recordings_.resize(max_batch_size);
  for (int32_t rows = max_batch_size; rows >= 1; --rows) {
    for (const Plan& part : plan.parts) {
      absl::StatusOr<std::unique_ptr<Recording>> recording = Record(device, part, rows);
      if (!recording.ok()) {
        return absl::Status(recording.status().code(),
                            absl::StrCat("the graph of batch size ", rows, ": ",
                                         std::string(recording.status().message())));
      }
      pool.recordings_[rows - 1].push_back(*std::move(recording));
      ++pool.graphs_;
    }
    if (progress) progress("capture", max_batch_size - rows + 1, max_batch_size);
  }
  pool.bytes_ = GraphBytes(device) - bytes_before;
  pool.seconds_ = watch.Seconds();
  return pool;
}

absl::Status GraphPool::Replay(Device& device, int32_t rows) const {
  const std::vector<std::unique_ptr<Recording>>& parts = recordings_[rows - 1];
  for (const int32_t part : order_) {
    if (absl::Status status = device.Launch(*parts[part]); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace sirocco
