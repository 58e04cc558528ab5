// Parts of device memory that several threads make in the host's: each in a buffer of its own that
// copies read without a stop in between, while those made before are on their way.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace sirocco {

// Of the thread that made it, which is the device's.
class DeviceStream {
 public:
  // One part of the memory.
  struct Part {
    uint64_t offset = 0;
    uint64_t bytes = 0;
  };
  // Writes all of `out`, which part `part` of the parts will be. Called by several threads.
  using Make = std::function<absl::Status(size_t part, std::span<std::byte> out)>;
  // A part is on its way: its bytes.
  using Sent = std::function<void(uint64_t bytes)>;

  // The threads begin at once, with one buffer; Send makes the others, a few of the largest part's
  // size, as they are missed. RESOURCE_EXHAUSTED: the system has no memory for it, or no threads.
  static absl::StatusOr<std::unique_ptr<DeviceStream>> Start(Device& device,
                                                             std::vector<Part> parts, Make make);
  ~DeviceStream();
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  // Brings all parts to `memory`, of the device; once. When it returns they are there. The first
  // error of `make` or of the device ends it, RESOURCE_EXHAUSTED as above.
  absl::Status Send(std::byte* memory, const Sent& sent);

 private:
  // What a thread has made.
  struct Made {
    size_t part = 0;
    std::byte* buffer = nullptr;
  };

  DeviceStream(Device& device, std::vector<Part> parts, Make make);
  absl::Status Begin();
  void MakeParts();
  absl::StatusOr<Made> NextMade();
  absl::Status AddBuffer();
  void GiveBack(std::byte* buffer);

  Device& device_;
  const std::vector<Part> parts_;
  const Make make_;
  const int most_threads_;
  const size_t most_buffers_;
  uint64_t buffer_bytes_ = 0;
  std::vector<std::unique_ptr<Buffer>> buffers_;

  std::mutex mutex_;
  std::condition_variable free_changed_;
  std::condition_variable made_changed_;
  size_t next_part_ = 0;  // that no thread makes yet
  bool stop_ = false;
  absl::Status failed_;
  std::vector<std::byte*> free_;  // buffers
  std::deque<Made> made_;
  std::vector<std::thread> threads_;
};

}  // namespace sirocco
