#include "engine/token_stream.h"

#include <algorithm>
#include <iterator>

namespace sirocco {
namespace {

template <typename T>
void AppendTo(std::vector<T>& to, std::vector<T>&& more) {
  if (to.empty()) {
    to = std::move(more);
  } else {
    to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
}

void MergeDelta(std::vector<OutputDelta>& deltas, OutputDelta&& more) {
  const auto at =
      std::lower_bound(deltas.begin(), deltas.end(), more.index,
                       [](const OutputDelta& delta, int32_t index) { return delta.index < index; });
  if (at == deltas.end() || at->index != more.index) {
    deltas.insert(at, std::move(more));
    return;
  }
  at->text += more.text;
  AppendTo(at->token_ids, std::move(more.token_ids));
  AppendTo(at->logprobs, std::move(more.logprobs));
  if (more.finish_reason != FinishReason::kNone) {
    at->finish_reason = more.finish_reason;
    at->stop_reason = std::move(more.stop_reason);
    at->cumulative_logprob = more.cumulative_logprob;
  }
}

void Merge(StreamUpdate& into, StreamUpdate&& more) {
  if (into.empty()) {
    into = std::move(more);
    return;
  }
  AppendTo(into.prompt_logprobs, std::move(more.prompt_logprobs));
  for (OutputDelta& delta : more.deltas) MergeDelta(into.deltas, std::move(delta));
  if (more.done) {
    into.done = true;
    into.status = std::move(more.status);
    into.usage = more.usage;
    into.timing = more.timing;
    into.stage = more.stage;
    into.seed = more.seed;
  }
}

}  // namespace

StreamUpdate TokenStream::Take() {
  const std::lock_guard lock(mutex_);
  announced_ = false;
  return std::exchange(pending_, {});
}

void TokenStream::Cancel(absl::StatusCode reason) {
  {
    const std::lock_guard lock(mutex_);
    if (cancelled()) return;
    cancel_time_ = Clock::now();
    cancel_.store(static_cast<int>(reason), std::memory_order_release);
  }
  if (cancel_signal_) cancel_signal_->store(true, std::memory_order_release);
}

void TokenStream::Detach() {
  const std::lock_guard lock(listener_mutex_);
  listener_ = nullptr;
}

void TokenStream::Put(StreamUpdate update) {
  {
    const std::lock_guard lock(mutex_);
    Merge(pending_, std::move(update));
    if (std::exchange(announced_, true)) return;
  }
  const std::lock_guard lock(listener_mutex_);
  if (listener_) listener_();
}

}  // namespace sirocco
