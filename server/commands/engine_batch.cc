#include "server/commands/engine_batch.h"

#include <unistd.h>

#include <mutex>
#include <utility>
#include <vector>

#include "server/process/descriptors.h"

namespace sirocco {

class EngineBatch::Bell {
 public:
  Bell() : fd_(OpenEventFd(status_)) {}
  ~Bell() {
    if (fd_ >= 0) close(fd_);
  }

  const absl::Status& status() const { return status_; }
  int fd() const { return fd_; }

  // Any thread; cheap where nobody has heard the last one yet.
  void Ring(uint64_t number) {
    const std::lock_guard lock(mutex_);
    rung_.push_back(number);
    if (rung_.size() > 1) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof(one));
  }

  std::vector<uint64_t> Take() {
    const std::lock_guard lock(mutex_);
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = read(fd_, &count, sizeof(count));
    return std::exchange(rung_, {});
  }

 private:
  absl::Status status_;
  const int fd_;  // eventfd
  std::mutex mutex_;
  std::vector<uint64_t> rung_;
};

EngineBatch::EngineBatch(Engine& engine) : engine_(engine), bell_(std::make_shared<Bell>()) {}

EngineBatch::~EngineBatch() = default;

absl::Status EngineBatch::Submit(Request request, Sink sink) {
  const uint64_t number = next_++;
  auto stream = engine_.Submit(std::move(request), [bell = bell_, number] { bell->Ring(number); });
  if (!stream.ok()) return stream.status();
  open_.emplace(number, Open{*std::move(stream), std::move(sink)});
  return absl::OkStatus();
}

const absl::Status& EngineBatch::status() const { return bell_->status(); }

int EngineBatch::fd() const { return bell_->fd(); }

void EngineBatch::Deliver() {
  for (const uint64_t number : bell_->Take()) {
    const auto it = open_.find(number);
    if (it == open_.end()) continue;
    StreamUpdate update = it->second.stream->Take();
    if (!update.done) {
      if (!update.empty()) it->second.sink(std::move(update));
      continue;
    }
    // Not open any more when its sink hears of it.
    const Open ended = std::move(it->second);
    open_.erase(it);
    ended.sink(std::move(update));
  }
}

}  // namespace sirocco
