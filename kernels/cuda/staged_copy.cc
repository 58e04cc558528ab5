#include "kernels/cuda/staged_copy.h"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_memory.h"

namespace sirocco::cuda {
namespace {

constexpr size_t kHalfBytes = size_t{32} << 20;

constexpr size_t kPieceBytes = size_t{1} << 20;  // that a thread copies at a time
// A file of 8.6 GB in the page cache to an H200, GB/s: one thread 5.5, four 23, eight 53, twelve
// 54, sixteen 51; from pinned memory, as fast as the link is, 55.
constexpr int kMostThreads = 12;

void CopyInPieces(ThreadPool& threads, void* to, const void* from, size_t bytes) {
  struct Job {
    char* to;
    const char* from;
    size_t bytes;
  };
  const Job job = {static_cast<char*>(to), static_cast<const char*>(from), bytes};
  const auto copy = [](const void* context, int32_t piece, int /*worker*/) {
    const Job& all = *static_cast<const Job*>(context);
    const size_t first = piece * kPieceBytes;
    const size_t count = std::min(kPieceBytes, all.bytes - first);
    std::memcpy(all.to + first, all.from + first, count);
  };
  threads.Run(static_cast<int32_t>((bytes + kPieceBytes - 1) / kPieceBytes), copy, &job);
}

}  // namespace

StagedCopy::~StagedCopy() {
  for (Half& half : halves_) {
    if (half.copied == nullptr) continue;
    cudaEventSynchronize(half.copied);
    cudaEventDestroy(half.copied);
  }
}

absl::Status StagedCopy::Prepare() {
  if (threads_ == nullptr) {
    const int threads =
        std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMostThreads);
    try {
      threads_ = std::make_unique<ThreadPool>(threads);
    } catch (const std::system_error& error) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "cannot start ", threads, " threads that copy to the device: ", error.what()));
    }
  }
  for (Half& half : halves_) {
    if (half.memory == nullptr) {
      absl::StatusOr<std::unique_ptr<Buffer>> memory =
          AllocatePinned(context_, kHalfBytes, counters_);
      if (!memory.ok()) return memory.status();
      half.memory = *std::move(memory);
    }
    if (half.copied == nullptr) {
      absl::Status status =
          context_.Check("cudaEventCreateWithFlags",
                         cudaEventCreateWithFlags(&half.copied, cudaEventDisableTiming));
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::Status StagedCopy::Copy(void* device, const void* host, size_t bytes) {
  if (absl::Status status = Prepare(); !status.ok()) return status;
  for (size_t done = 0; done < bytes;) {
    Half& half = halves_[std::exchange(next_, 1 - next_)];
    // An event that was never recorded counts as reached.
    absl::Status status = context_.Check("cudaEventSynchronize", cudaEventSynchronize(half.copied));
    if (!status.ok()) return status;
    const size_t now = std::min(kHalfBytes, bytes - done);
    CopyInPieces(*threads_, half.memory->data(), static_cast<const char*>(host) + done, now);
    status = context_.Check("cudaMemcpyAsync",
                            cudaMemcpyAsync(static_cast<char*>(device) + done, half.memory->data(),
                                            now, cudaMemcpyHostToDevice, context_.stream()));
    if (status.ok()) {
      status = context_.Check("cudaEventRecord", cudaEventRecord(half.copied, context_.stream()));
    }
    if (!status.ok()) return status;
    done += now;
  }
  return absl::OkStatus();
}

}  // namespace sirocco::cuda
