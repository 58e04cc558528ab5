// A device whose memory is the host's: just what loading weights asks for.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/params.h"

namespace sirocco {

class HostDevice final : public Device {
 public:
  std::string_view backend() const override { return "host"; }
  std::string name() const override { return "host"; }
  uint64_t FreeBytes() const override { return uint64_t{1} << 40; }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes, MemoryUse use) override {
    if (bytes > limit) return absl::ResourceExhaustedError("more than the limit");
    counters_.bytes[static_cast<int>(use)] += bytes;
    return std::make_unique<HostBuffer>(std::vector<std::byte>(bytes));
  }
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t, MemoryUse) override {
    return absl::UnimplementedError("loading reserves nothing");
  }

  // As a GPU would, the copy happens only at Synchronize: memory used again too early shows.
  absl::Status CopyToDevice(void* device, const void* host, size_t bytes) override {
    largest_copy = std::max(largest_copy, bytes);
    if (++copies == failing_copy) return absl::InternalError("the copy failed");
    pending_.push_back({device, host, bytes});
    return absl::OkStatus();
  }
  absl::Status CopyToHost(void*, const void*, size_t) override {
    return absl::UnimplementedError("loading reads nothing back");
  }
  absl::Status CopyOnDevice(void*, const void*, size_t) override {
    return absl::UnimplementedError("loading copies nothing on the device");
  }
  absl::Status Synchronize() override {
    for (const Copy& copy : pending_) std::memcpy(copy.device, copy.host, copy.bytes);
    pending_.clear();
    return absl::OkStatus();
  }

  absl::Status Pack(const Matrix& matrix) override {
    if (!takes_blocks) return Device::Pack(matrix);
    packed.push_back(matrix.data);
    return absl::OkStatus();
  }

  absl::Status BeginRecord() override { return absl::UnimplementedError("no recordings"); }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecord() override {
    return absl::UnimplementedError("no recordings");
  }
  absl::Status Launch(const Recording&) override {
    return absl::UnimplementedError("no recordings");
  }
  Ops& ops() override { std::abort(); }

  size_t limit = SIZE_MAX;
  int failing_copy = 0;  // which copy fails; 0: none
  int copies = 0;
  size_t largest_copy = 0;
  bool takes_blocks = false;
  std::vector<const void*> packed;  // matrices that were; left in the files' order

 private:
  struct HostBuffer final : public Buffer {
    explicit HostBuffer(std::vector<std::byte> bytes)
        : Buffer(bytes.data(), bytes.size()), memory(std::move(bytes)) {}
    std::vector<std::byte> memory;
  };
  struct Copy {
    void* device;
    const void* host;
    size_t bytes;
  };
  std::vector<Copy> pending_;
};

}  // namespace sirocco
