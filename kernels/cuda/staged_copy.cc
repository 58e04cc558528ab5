#include "kernels/cuda/staged_copy.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cuda/cuda_memory.h"

namespace sirocco::cuda {
namespace {

constexpr size_t kHalfBytes = size_t{4} << 20;

}  // namespace

StagedCopy::~StagedCopy() {
  for (Half& half : halves_) {
    if (half.copied == nullptr) continue;
    cudaEventSynchronize(half.copied);
    cudaEventDestroy(half.copied);
  }
}

absl::Status StagedCopy::Prepare() {
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
    std::memcpy(half.memory->data(), static_cast<const char*>(host) + done, now);
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
