#include "kernels/cpu/cpu_device.h"

#include <cstring>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/block_kernels.h"
#include "kernels/cpu/call.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/read_bandwidth.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/types.h"

namespace sirocco {
namespace cpu {
namespace {

constexpr int kMaxThreads = 1024;

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "CPU";
}

class CpuRecording final : public Recording {
 public:
  explicit CpuRecording(std::vector<Call> calls) : calls_(std::move(calls)) {}
  int size() const override { return static_cast<int>(calls_.size()); }
  const std::vector<Call>& calls() const { return calls_; }

 private:
  std::vector<Call> calls_;
};

class CpuDevice final : public Device, private CallSink {
 public:
  explicit CpuDevice(int threads)
      : pool_(threads), scratch_(threads), own_scratch_(threads), ops_(*this) {}

  std::string_view backend() const override { return "cpu"; }
  bool Offers(DType dtype) const override {
    return kTypes.kv.Has(dtype) && (kTypes.weights.Has(dtype) || dtype == DType::kFloat8);
  }
  uint64_t FreeBytes() const override { return AvailableBytes(); }
  uint64_t TotalBytes() const override { return cpu::TotalBytes(); }
  std::string name() const override {
    return absl::StrCat(ProcessorName(), ", ", threads(), " threads");
  }

  bool ComputesFromBlocks(DType type) const override { return InBlocks(type); }
  absl::Status Pack(const Matrix& matrix) override {
    if (!kTypes.weights.Has(matrix.dtype)) return absl::OkStatus();  // no operation takes it
    pool_.Run(
        matrix.rows / kGroupRows,
        [](const void* context, int32_t group, int) {
          PackGroup(*static_cast<const Matrix*>(context), group * kGroupRows);
        },
        &matrix);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes, MemoryUse use) override {
    return AllocatePages(bytes, use, counters_);
  }
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t bytes, MemoryUse use) override {
    return ReservePages(bytes, use, counters_);
  }

  absl::Status CopyToDevice(void* device, const void* host, size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
    return absl::OkStatus();
  }
  absl::Status CopyToHost(void* host, const void* device, size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
    return absl::OkStatus();
  }
  absl::Status CopyOnDevice(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }
  absl::Status Synchronize() override { return std::exchange(fault_, absl::OkStatus()); }

  absl::Status BeginRecord() override {
    if (recording_) return absl::FailedPreconditionError("a recording is under way");
    recording_ = true;
    recorded_.clear();
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecord() override {
    if (!recording_) return absl::FailedPreconditionError("no recording is under way");
    recording_ = false;
    counters_.recordings.fetch_add(1, std::memory_order_relaxed);
    return std::make_unique<CpuRecording>(std::exchange(recorded_, {}));
  }
  absl::Status EndPrepare() override {
    if (!recording_) return absl::FailedPreconditionError("no preparing is under way");
    recording_ = false;
    recorded_.clear();
    return absl::OkStatus();
  }
  absl::Status Launch(const Recording& recording) override {
    const auto* list = dynamic_cast<const CpuRecording*>(&recording);
    if (list == nullptr) return absl::InvalidArgumentError("a recording of another backend");
    if (recording_) return absl::FailedPreconditionError("launched while recording");
    counters_.replays.fetch_add(1, std::memory_order_relaxed);
    for (const Call& call : list->calls()) RunNow(call);
    return absl::OkStatus();
  }

  absl::StatusOr<double> MeasureReadBandwidth(size_t bytes) override {
    // Before anything is counted: the memory is gone again when this returns.
    DeviceCounters uncounted;
    absl::StatusOr<std::unique_ptr<Buffer>> memory =
        AllocatePages(bytes, MemoryUse::kWeights, uncounted);
    if (!memory.ok()) return memory.status();
    return ReadBandwidth(pool_, (*memory)->data(), bytes);
  }

  std::vector<std::string> notes() const override {
    return {absl::StrCat("rows by ", std::string(RowsTarget()), ", weights in blocks by ",
                         std::string(NameOf(BestBlockTarget())),
                         ": the best that this processor has of those compiled")};
  }
  Ops& ops() override { return ops_; }

 private:
  int threads() const override { return pool_.threads(); }

  absl::Status NeedScratch(int64_t own_bytes, int64_t shared_bytes) override {
    for (std::unique_ptr<Buffer>& own : own_scratch_) {
      if (absl::Status status = Grow(own, own_bytes); !status.ok()) return status;
    }
    if (absl::Status status = Grow(shared_scratch_, shared_bytes); !status.ok()) return status;
    for (int i = 0; i < threads(); ++i) {
      const auto bytes_of = [](const std::unique_ptr<Buffer>& buffer) {
        return buffer == nullptr ? nullptr : buffer->as<std::byte>();
      };
      scratch_[i] = {bytes_of(own_scratch_[i]), bytes_of(shared_scratch_)};
    }
    return absl::OkStatus();
  }

  absl::Status Grow(std::unique_ptr<Buffer>& buffer, int64_t bytes) {
    const size_t wanted = static_cast<size_t>(bytes);
    if (wanted <= (buffer == nullptr ? 0 : buffer->bytes())) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<Buffer>> larger = Allocate(wanted, MemoryUse::kWorkspace);
    if (!larger.ok()) return larger.status();
    buffer = *std::move(larger);
    return absl::OkStatus();
  }

  absl::Status Take(const Call& call) override {
    if (recording_) {
      recorded_.push_back(call);
      return absl::OkStatus();
    }
    counters_.launches.fetch_add(1, std::memory_order_relaxed);
    RunNow(call);
    return absl::OkStatus();
  }

  void RunNow(const Call& call) {
    if (absl::Status status = call.CheckMemory(); !status.ok()) {
      if (fault_.ok()) fault_ = std::move(status);
      return;
    }
    for (int phase = 0; phase < call.phases(); ++phase) {
      const Job job{&call, phase, scratch_.data()};
      pool_.Run(
          call.tasks(phase),
          [](const void* context, int32_t task, int worker) {
            const Job& at_hand = *static_cast<const Job*>(context);
            at_hand.call->RunTask(at_hand.phase, task, at_hand.scratch[worker]);
          },
          &job);
    }
  }

  struct Job {
    const Call* call;
    int phase;
    const Scratch* scratch;  // [threads]
  };

  ThreadPool pool_;
  std::vector<Scratch> scratch_;                      // [threads]
  std::vector<std::unique_ptr<Buffer>> own_scratch_;  // [threads]
  std::unique_ptr<Buffer> shared_scratch_;
  CpuOps ops_;
  absl::Status fault_;
  bool recording_ = false;
  std::vector<Call> recorded_;
};

}  // namespace
}  // namespace cpu

absl::StatusOr<std::unique_ptr<Device>> CreateCpuDevice(int threads) {
  if (threads < 1 || threads > cpu::kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads is ", threads, ", must be 1 ... ", cpu::kMaxThreads));
  }
  try {
    return std::make_unique<cpu::CpuDevice>(threads);
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start ", threads, " threads: ", error.what()));
  }
}

}  // namespace sirocco
