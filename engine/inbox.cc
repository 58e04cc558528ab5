#include "engine/inbox.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sirocco {

std::optional<Inbox::Refusal> Inbox::RefusalOf(const RequestContext& context,
                                               const Delivery& delivery) const {
  if (!closed_.ok()) return Refusal{closed_, closed_reason_};
  const int64_t waiting = int64_t{waiting_requests_.load(std::memory_order_relaxed)} +
                          static_cast<int64_t>(contents_.requests.size());
  const int64_t startable = startable_.load(std::memory_order_relaxed);
  const bool too_many_open = delivery.open() >= limits_.max_open;
  // What will start with the next step does not wait.
  if (waiting < startable && !too_many_open) return std::nullopt;
  if (waiting - startable >= limits_.max_queue_size || too_many_open) {
    return Refusal{absl::ResourceExhaustedError(
                       absl::StrCat("the queue is full: max_queue_size ", limits_.max_queue_size)),
                   "queue_full"};
  }
  const int64_t tokens = waiting_tokens_.load(std::memory_order_relaxed) + arrived_tokens_;
  if (limits_.max_queue_tokens > 0 &&
      context.prompt_length() >
          limits_.max_queue_tokens - std::min(tokens, limits_.max_queue_tokens)) {
    return Refusal{
        absl::ResourceExhaustedError(absl::StrCat(
            "the queue is full: ", tokens, " prompt tokens wait, ", context.prompt_length(),
            " more are beyond max_queue_tokens ", limits_.max_queue_tokens)),
        "queue_tokens"};
  }
  return std::nullopt;
}

std::optional<Inbox::Refusal> Inbox::Push(std::shared_ptr<const RequestContext> context,
                                          Delivery& delivery) {
  const std::lock_guard lock(mutex_);
  if (auto refusal = RefusalOf(*context, delivery); refusal) return refusal;
  // Under the lock, so that after Close nothing opens any more.
  delivery.Open(context);
  arrived_tokens_ += context->prompt_length();
  contents_.requests.push_back(std::move(context));
  WakeLocked();
  return std::nullopt;
}

void Inbox::PushEnd(uint64_t request, int32_t index) {
  const std::lock_guard lock(mutex_);
  contents_.ends.emplace_back(request, index);
  WakeLocked();
}

void Inbox::Close(absl::Status status, std::string_view reason) {
  const std::lock_guard lock(mutex_);
  if (!closed_.ok()) return;
  closed_ = std::move(status);
  closed_reason_ = reason;
}

absl::Status Inbox::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

void Inbox::EndAll() {
  const std::lock_guard lock(mutex_);
  contents_.end_all = true;
  WakeLocked();
}

void Inbox::Stop() {
  const std::lock_guard lock(mutex_);
  stop_ = true;
  wake_.notify_one();
}

void Inbox::WakeLocked() {
  if (!busy_.load(std::memory_order_relaxed)) {
    busy_since_.store(Clock::now().time_since_epoch().count(), std::memory_order_release);
    busy_.store(true, std::memory_order_release);
  }
  wake_.notify_one();
}

bool Inbox::Take(bool wait, Contents* contents) {
  contents->requests.clear();
  contents->ends.clear();
  contents->end_all = false;
  std::unique_lock lock(mutex_);
  const auto anything = [&] {
    return stop_ || contents_.end_all || !contents_.requests.empty() || !contents_.ends.empty();
  };
  if (wait && !anything()) {
    busy_.store(false, std::memory_order_release);
    wake_.wait(lock, anything);
  }
  if (stop_) return false;
  std::swap(*contents, contents_);
  // They wait still, until the engine thread says otherwise.
  waiting_requests_.fetch_add(static_cast<int32_t>(contents->requests.size()),
                              std::memory_order_relaxed);
  waiting_tokens_.fetch_add(std::exchange(arrived_tokens_, 0), std::memory_order_relaxed);
  return true;
}

void Inbox::SetWaiting(int32_t requests, int64_t tokens, int32_t startable) {
  startable_.store(startable, std::memory_order_relaxed);
  waiting_requests_.store(requests, std::memory_order_relaxed);
  waiting_tokens_.store(tokens, std::memory_order_relaxed);
}

}  // namespace sirocco
