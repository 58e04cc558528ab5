#include "engine/model/device_stream.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

// Weights of 16 GB in the page cache to an H200, parts of 4 MiB, GB/s: four threads 26, six 37,
// eight 50, ten to sixteen 53, which is what the link gives to copies of this size.
constexpr int kMostThreads = 12;
// Copies that the device has been given and that have not been waited for: enough that it never
// waits for the host.
constexpr size_t kOnTheirWay = 4;
// Buffers beside those that threads are at and those on their way.
constexpr size_t kSpareBuffers = 2;
constexpr uint64_t kPageBytes = 4096;

int MostThreads(size_t parts) {
  const int processors = static_cast<int>(std::thread::hardware_concurrency());  // 0: unknown
  return static_cast<int>(std::min<size_t>(std::clamp(processors, 1, kMostThreads), parts));
}

}  // namespace

DeviceStream::DeviceStream(Device& device, std::vector<Part> parts, Make make)
    : device_(device),
      parts_(std::move(parts)),
      make_(std::move(make)),
      most_threads_(MostThreads(parts_.size())),
      most_buffers_(std::min(parts_.size(), most_threads_ + kOnTheirWay + kSpareBuffers)) {
  for (const Part& part : parts_) buffer_bytes_ = std::max(buffer_bytes_, part.bytes);
  // No overflow: a part is a row at most, or a few MiB.
  buffer_bytes_ = (buffer_bytes_ + kPageBytes - 1) / kPageBytes * kPageBytes;
}

absl::StatusOr<std::unique_ptr<DeviceStream>> DeviceStream::Start(Device& device,
                                                                  std::vector<Part> parts,
                                                                  Make make) {
  std::unique_ptr<DeviceStream> stream(new DeviceStream(device, std::move(parts), std::move(make)));
  absl::Status status = stream->Begin();
  if (!status.ok()) return status;
  return stream;
}

DeviceStream::~DeviceStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  free_changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status DeviceStream::Begin() {
  if (parts_.empty()) return absl::OkStatus();
  if (absl::Status status = AddBuffer(); !status.ok()) return status;
  try {
    for (int i = 0; i < most_threads_; ++i) threads_.emplace_back([this] { MakeParts(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start ", most_threads_, " threads that read weights: ", error.what()));
  }
  return absl::OkStatus();
}

absl::Status DeviceStream::AddBuffer() {
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = device_.AllocateHost(buffer_bytes_);
  if (!buffer.ok()) return buffer.status();
  buffers_.push_back(*std::move(buffer));
  GiveBack(buffers_.back()->as<std::byte>());
  return absl::OkStatus();
}

void DeviceStream::MakeParts() {
  std::unique_lock lock(mutex_);
  while (true) {
    free_changed_.wait(lock,
                       [this] { return stop_ || next_part_ == parts_.size() || !free_.empty(); });
    if (stop_ || next_part_ == parts_.size()) return;
    const Made made = {next_part_++, free_.back()};
    free_.pop_back();
    // The others need not wait for a buffer any more.
    if (next_part_ == parts_.size()) free_changed_.notify_all();
    lock.unlock();
    absl::Status status = make_(made.part, {made.buffer, parts_[made.part].bytes});
    lock.lock();
    if (status.ok()) {
      made_.push_back(made);
    } else {
      if (failed_.ok()) failed_ = std::move(status);
      stop_ = true;
      free_changed_.notify_all();
    }
    made_changed_.notify_one();
  }
}

absl::StatusOr<DeviceStream::Made> DeviceStream::NextMade() {
  std::unique_lock lock(mutex_);
  while (failed_.ok() && made_.empty()) {
    if (buffers_.size() == most_buffers_) {
      made_changed_.wait(lock);
      continue;
    }
    // Pinning memory takes longer than reading what goes into it: threads read meanwhile.
    lock.unlock();
    if (absl::Status status = AddBuffer(); !status.ok()) return status;
    lock.lock();
  }
  if (!failed_.ok()) return failed_;
  const Made made = made_.front();
  made_.pop_front();
  return made;
}

void DeviceStream::GiveBack(std::byte* buffer) {
  {
    const std::lock_guard lock(mutex_);
    free_.push_back(buffer);
  }
  free_changed_.notify_one();
}

absl::Status DeviceStream::Send(std::byte* memory, const Sent& sent) {
  struct Copy {
    std::byte* buffer;
    DeviceMark end;
  };
  std::deque<Copy> on_their_way;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const absl::StatusOr<Made> made = NextMade();
    if (!made.ok()) return made.status();
    const Part& part = parts_[made->part];
    absl::Status status = device_.CopyToDevice(memory + part.offset, made->buffer, part.bytes);
    if (!status.ok()) return status;
    const absl::StatusOr<DeviceMark> end = device_.Mark();
    if (!end.ok()) return end.status();
    on_their_way.push_back({made->buffer, *end});
    if (sent) sent(part.bytes);
    if (on_their_way.size() <= kOnTheirWay) continue;
    if (status = device_.Wait(on_their_way.front().end); !status.ok()) return status;
    GiveBack(on_their_way.front().buffer);
    on_their_way.pop_front();
  }
  return device_.Synchronize();
}

}  // namespace sirocco
