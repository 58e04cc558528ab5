#include "tests/engine/client.h"

#include "tests/engine/simulation.h"

namespace sirocco {

absl::StatusOr<std::unique_ptr<Client>> Client::Submit(Engine& engine, Request request,
                                                       Reading reading) {
  std::unique_ptr<Client> client(new Client());
  client->reading_ = reading;
  auto stream = engine.Submit(std::move(request), [c = client.get()] { c->Announced(); });
  if (!stream.ok()) return stream.status();
  // The listener may have been called already.
  std::unique_lock lock(client->mutex_);
  client->stream_ = *std::move(stream);
  const bool take = client->announced_ && reading == Reading::kAtOnce;
  lock.unlock();
  if (take) client->Add(client->stream_->Take());
  return client;
}

Client::~Client() {
  if (stream_ != nullptr) stream_->Detach();
}

void Client::Announced() {
  std::unique_lock lock(mutex_);
  announced_ = true;
  changed_.notify_all();
  if (stream_ == nullptr || reading_ == Reading::kInTheEnd) return;
  lock.unlock();
  Add(stream_->Take());
}

void Client::Add(StreamUpdate update) {
  const std::lock_guard lock(mutex_);
  if (update.empty()) return;
  ++output_.updates;
  output_.after_end |= output_.ends > 0;
  output_.prompt_updates += update.prompt_logprobs.empty() ? 0 : 1;
  output_.late_prompt |= !update.prompt_logprobs.empty() && !output_.sequences.empty();
  for (TokenLogprob& logprob : update.prompt_logprobs) {
    output_.prompt_logprobs.push_back(std::move(logprob));
  }
  for (OutputDelta& delta : update.deltas) {
    OutputDelta& joined = output_.sequences[delta.index];
    output_.after_end |= joined.finish_reason != FinishReason::kNone;
    output_.whole_text &= delta.text == NaiveText(delta.text, /*whole_only=*/false);
    joined.index = delta.index;
    joined.text += delta.text;
    joined.token_ids.insert(joined.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
    for (TokenLogprob& logprob : delta.logprobs) joined.logprobs.push_back(std::move(logprob));
    joined.finish_reason = delta.finish_reason;
    joined.stop_reason = delta.stop_reason;
    joined.cumulative_logprob = delta.cumulative_logprob;
  }
  if (update.done) {
    ++output_.ends;
    output_.end = std::move(update);
  }
  changed_.notify_all();
}

bool Client::Wait(std::chrono::seconds timeout) {
  const auto until = std::chrono::steady_clock::now() + timeout;
  while (true) {
    if (reading_ == Reading::kInTheEnd) Add(stream_->Take());
    std::unique_lock lock(mutex_);
    if (output_.ends > 0) return true;
    if (std::chrono::steady_clock::now() >= until) return false;
    if (reading_ == Reading::kAtOnce) {
      changed_.wait_until(lock, until);
    } else {
      changed_.wait_for(lock, std::chrono::milliseconds(2));
    }
  }
}

bool Client::WaitForToken() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(60),
                           [&] { return !output_.sequences.empty() || output_.ends > 0; });
}

Client::Output Client::output() const {
  const std::lock_guard lock(mutex_);
  return output_;
}

void Gate::CloseAfter(int passes) {
  const std::lock_guard lock(mutex_);
  passes_left_ = passes;
}

void Gate::Open() {
  const std::lock_guard lock(mutex_);
  passes_left_.reset();
  changed_.notify_all();
}

void Gate::Pass() {
  std::unique_lock lock(mutex_);
  ++waiting_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return passes_left_ != 0; });
  if (passes_left_) --*passes_left_;
  --waiting_;
}

void Gate::AwaitWaiter() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return passes_left_ == 0 && waiting_ > 0; });
}

}  // namespace sirocco
