#include "graphs/graph_pool.h"

#include <algorithm>
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

namespace {

// `layers`: those of Plan::RunSome; null: all.
absl::Status PrepareLayers(Device& device, const Plan& plan, int32_t rows,
                           const std::vector<bool>* layers) {
  if (absl::Status status = device.BeginPrepare(); !status.ok()) return status;
  const absl::Status ran =
      layers == nullptr ? plan.Run(device.ops(), rows) : plan.RunSome(device.ops(), rows, *layers);
  const absl::Status ended = device.EndPrepare();
  return ran.ok() ? ended : ran;
}

// Whether operations end here: of larger sizes others are shown.
bool EndsARange(const Plan& plan, int32_t rows) {
  return std::ranges::any_of(plan.entries(),
                             [&](const Plan::Entry& entry) { return entry.rows.most == rows; });
}

}  // namespace

absl::Status Prepare(Device& device, const Plan& plan, int32_t rows) {
  return PrepareLayers(device, plan, rows, nullptr);
}

absl::Status PrepareSizes(Device& device, const DecodePlan& plan, int32_t max_batch_size) {
  for (int32_t rows = max_batch_size; rows >= 1; --rows) {
    for (const Plan& part : plan.parts) {
      const bool all = rows == max_batch_size || EndsARange(part, rows);
      absl::Status status = PrepareLayers(device, part, rows, all ? nullptr : &plan.distinct);
      if (!status.ok()) return status;
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
