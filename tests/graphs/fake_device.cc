#include "tests/graphs/fake_device.h"

#include <cstring>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

class HostBuffer final : public Buffer {
 public:
  explicit HostBuffer(size_t bytes) : Buffer(::operator new(bytes), bytes) {
    std::memset(data_, 0, bytes);
  }
  ~HostBuffer() override { ::operator delete(data_); }
};

class FakeRange final : public Reservation {
 public:
  FakeRange(size_t bytes, std::vector<std::string>& events, DeviceCounters& counters)
      : Reservation(::operator new(bytes), bytes), events_(events), counters_(counters) {}
  ~FakeRange() override { ::operator delete(data_); }
  absl::Status Map(size_t bytes) override {
    events_.push_back("map kv");
    ++counters_.allocations;
    counters_.bytes[static_cast<int>(MemoryUse::kKv)] += bytes;
    return absl::OkStatus();
  }

 private:
  std::vector<std::string>& events_;
  DeviceCounters& counters_;
};

int32_t RowsOf(const Operation& operation) {
  return std::visit([](const auto& params) { return params.rows; }, operation);
}

struct FakeRecording final : Recording {
  int size() const override { return static_cast<int>(operations.size()); }
  std::vector<Operation> operations;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Buffer>> FakeDevice::Allocate(size_t bytes, MemoryUse use) {
  events.push_back(absl::StrCat("allocate ", std::string(NameOf(use))));
  ++counters_.allocations;
  counters_.bytes[static_cast<int>(use)] += bytes;
  return std::make_unique<HostBuffer>(bytes);
}

absl::StatusOr<std::unique_ptr<Reservation>> FakeDevice::Reserve(size_t bytes, MemoryUse use) {
  events.push_back(absl::StrCat("reserve ", std::string(NameOf(use))));
  ++counters_.allocations;
  return std::make_unique<FakeRange>(bytes, events, counters_);
}

absl::Status FakeDevice::CopyToDevice(void* device, const void* host, size_t bytes) {
  if (recording) return absl::InternalError("a copy while recording");
  if (log) copied_to.push_back(static_cast<std::byte*>(device));
  std::memcpy(device, host, bytes);
  return absl::OkStatus();
}

absl::Status FakeDevice::CopyToHost(void* host, const void* device, size_t bytes) {
  if (recording) return absl::InternalError("a copy while recording");
  std::memcpy(host, device, bytes);
  return absl::OkStatus();
}

absl::Status FakeDevice::CopyOnDevice(void* to, const void* from, size_t bytes) {
  if (recording) return absl::InternalError("a copy while recording");
  std::memcpy(to, from, bytes);
  return absl::OkStatus();
}

absl::Status FakeDevice::Synchronize() { return absl::OkStatus(); }

absl::Status FakeDevice::BeginRecord() {
  if (recording) return absl::InternalError("recordings do not nest");
  recording = true;
  recorded_.clear();
  events.push_back("begin");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Recording>> FakeDevice::EndRecord() {
  if (!recording) return absl::InternalError("nothing is recorded");
  recording = false;
  events.push_back("end");
  auto made = std::make_unique<FakeRecording>();
  made->operations = std::exchange(recorded_, {});
  counters_.bytes[static_cast<int>(MemoryUse::kGraphs)] += 100;
  ++counters_.recordings;
  return made;
}

absl::Status FakeDevice::Launch(const Recording& recording) {
  ++counters_.replays;
  if (log) events.push_back("launch");
  for (const Operation& operation : static_cast<const FakeRecording&>(recording).operations) {
    Happen(operation);
  }
  return absl::OkStatus();
}

void FakeDevice::Happen(const Operation& operation) {
  if (log) run.push_back({operation, RowsOf(operation)});
  std::visit([&](const auto& params) { Effect(params); }, operation);
}

absl::Status FakeDevice::RunAny(const Operation& operation) {
  if (!log && !recording) {
    Happen(operation);
    return absl::OkStatus();
  }
  const std::string name(NameOf(operation));
  if (name == refuse) return absl::UnimplementedError(absl::StrCat(name, " is refused"));
  events.push_back(absl::StrCat(name, " ", RowsOf(operation)));
  if (recording) {
    recorded_.push_back(operation);
    return absl::OkStatus();
  }
  ++counters_.launches;
  Happen(operation);
  return absl::OkStatus();
}

void FakeDevice::Effect(const BeginStepParams& params) {
  for (int32_t i = 0; i < *params.update_count; ++i) {
    const BlockUpdate& u = params.updates[i];
    const Lanes& lanes = params.lanes;
    lanes.block_table[(int64_t{u.lane} * lanes.groups + u.group) * lanes.max_blocks + u.logical] =
        u.physical;
  }
}

// The lane's number, and its length before.
void FakeDevice::Effect(const SampleParams& params) {
  for (int32_t r = 0; r < params.rows; ++r) {
    Lane& lane = params.lanes.lane[params.row_lane[r]];
    params.out[r] = TokenScore{};
    params.out[r].token_id = params.row_lane[r];
    params.out[r].rank = lane.length++;
  }
}

// The lane's number, the position, and the alternatives asked.
void FakeDevice::Effect(const ScoreTokensParams& params) {
  for (int32_t r = 0; r < params.rows; ++r) {
    params.out[r] = TokenScore{};
    params.out[r].token_id = params.map.lane[r];
    params.out[r].rank = params.map.position[r];
    params.out[r].top_count = params.top;
  }
}

}  // namespace sirocco
