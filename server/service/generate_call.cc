#include "server/service/generate_call.h"

#include <algorithm>
#include <utility>

#include "server/api/prompt.h"
#include "server/api/to_request.h"

namespace sirocco {
namespace {

// The engine's refusals, which may be tried again in a while, wherever it found the reason.
absl::Status Retriable(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return status;
  const absl::string_view reason = status.message();
  return Exhausted(std::string_view(reason.data(), reason.size()));
}

}  // namespace

void GenerateCall::Start(const grpc::ByteBuffer& request) {
  self_ = shared_from_this();
  shared_.calls.Add(this);
  if (!request.Valid()) record_.HasNoMessage();
  const absl::Status size = record_.CheckSize(request, shared_.max_message_size);
  if (!size.ok()) return End(size);
  if (const auto model = Model(); !model.ok()) return End(model.status());
  const bool posted =
      shared_.pool.Post(request.Length(), [self = self_, request] { self->Prepare(request); });
  if (posted) return;
  shared_.metrics.OnRejected("queue_full");
  End(Exhausted("too many requests wait to be tokenised"));
}

void GenerateCall::Prepare(const grpc::ByteBuffer& request) {
  const bool gone = cancelled();
  const auto deadline = record_.Deadline();
  if (!gone && deadline.has_value() && *deadline <= Clock::now()) {
    result_ = absl::DeadlineExceededError("the deadline passed while the request waited");
  } else if (!gone) {
    if (absl::Status status = Submit(request); !status.ok()) result_ = std::move(status);
  }
  Continue();
}

absl::StatusOr<LoadedModel> GenerateCall::Model() const {
  auto model = shared_.state.Model();
  if (absl::IsUnavailable(model.status()) && shared_.state.draining()) {
    shared_.metrics.OnRejected("draining");
  }
  return model;
}

absl::Status GenerateCall::Submit(const grpc::ByteBuffer& bytes) {
  const auto model = Model();
  if (!model.ok()) return model.status();
  details_.model = model->facts->name;
  v1::GenerateRequest message;
  if (absl::Status status = FromByteBuffer(bytes, message); !status.ok()) return status;
  if (shared_.log_prompts) details_.prompt = PromptForLog(message);
  absl::StatusOr<Request> request = ToRequest(message, *model->facts);
  if (!request.ok()) return request.status();
  details_.id = request->id;
  request->deadline = record_.Deadline();
  auto client = record_.Client();
  if (!client.ok()) return client.status();
  request->client = *std::move(client);
  Begin(*request, *model->facts);
  // Weak: the engine may tell news of a call that has ended.
  auto stream = model->engine->Submit(*std::move(request), [weak = weak_from_this()] {
    if (const auto call = weak.lock()) call->Notify();
  });
  if (!stream.ok()) return Retriable(stream.status());
  const std::lock_guard lock(mutex_);
  stream_ = *std::move(stream);
  if (cancelled_) stream_->Cancel(record_.CancelReason());
  return absl::OkStatus();
}

void GenerateCall::Notify() {
  {
    const std::lock_guard lock(mutex_);
    if (owned_) {
      news_ = true;
      return;
    }
    owned_ = true;
  }
  Continue();
}

void GenerateCall::Continue() {
  for (;;) {
    const bool gone = cancelled();
    if (gone && (stream_ == nullptr || result_.has_value())) {
      return End(WhyGone());
    }
    if (!gone && WriteNext()) return;
    if (result_.has_value()) {
      if (result_->ok()) result_ = Complete();
      return End(*result_);
    }
    StreamUpdate update = stream_->Take();
    if (!update.empty()) {
      Take(std::move(update), gone);
      continue;
    }
    const std::lock_guard lock(mutex_);
    if (!news_) {
      owned_ = false;
      return;
    }
    news_ = false;
  }
}

void GenerateCall::Take(StreamUpdate update, bool gone) {
  if (update.done) {
    result_ = Retriable(update.status);
    details_.usage = update.usage;
    details_.timing = update.timing;
    details_.stage = update.stage;
  }
  if (!gone) Consume(std::move(update));
}

void GenerateCall::End(const absl::Status& status) {
  // The ownership is kept: nothing happens after this but Done.
  MarkWaiting();
  FinishWith(record_.End(status, details_));
}

bool GenerateCall::cancelled() {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

absl::Status GenerateCall::WhyGone() {
  const absl::StatusCode code = record_.CancelReason();
  const std::lock_guard lock(mutex_);
  return {code, stalled_ ? "the client takes nothing of its answer" : "the client has gone"};
}

void GenerateCall::MarkWaiting() { waiting_since_ = shared_.calls.looks(); }

void GenerateCall::WriteDone(bool ok) {
  waiting_since_ = 0;
  if (!ok) {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    stream_->Cancel(record_.CancelReason());
  }
  Continue();
}

void GenerateCall::Cancelled() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (stream_ != nullptr) stream_->Cancel(record_.CancelReason());
  }
  Notify();
}

void GenerateCall::Done() {
  record_.Done();
  shared_.calls.Remove(this);
  // Released here, not by a delivery thread that is inside the stream's listener.
  std::shared_ptr<TokenStream> stream;
  std::shared_ptr<GenerateCall> self;
  const std::lock_guard lock(mutex_);
  stream = std::move(stream_);
  self = std::move(self_);
  context_ = nullptr;
}

void GenerateCall::Break(uint64_t waiting_since) {
  if (!waiting_since_.compare_exchange_strong(waiting_since, 0)) return;
  const std::lock_guard lock(mutex_);
  stalled_ = true;
  if (context_ != nullptr) context_->TryCancel();
}

void UnaryGenerate::Begin(const Request& request, const ModelFacts& model) {
  maker_.emplace(request.id, model.tokenizer, request.n);
}

void UnaryGenerate::Consume(StreamUpdate update) { maker_->Add(std::move(update)); }

absl::Status UnaryGenerate::Complete() {
  auto bytes = ToByteBuffer(maker_->Take());
  if (!bytes.ok()) return bytes.status();
  *response_ = *std::move(bytes);
  return absl::OkStatus();
}

void UnaryGenerate::FinishWith(grpc::Status status) { Finish(std::move(status)); }

void StreamGenerate::Begin(const Request& request, const ModelFacts& model) {
  maker_.emplace(request.id, model.tokenizer, request.n);
}

void StreamGenerate::Consume(StreamUpdate update) { maker_->Add(std::move(update), events_); }

bool StreamGenerate::WriteNext() {
  if (events_.empty()) return false;
  auto bytes = ToByteBuffer(events_.front());
  events_.pop_front();
  written_ = *std::move(bytes);  // an event is far below the bound
  MarkWaiting();
  StartWrite(&written_);
  return true;
}

void StreamGenerate::FinishWith(grpc::Status status) { Finish(std::move(status)); }

void GenerateCalls::Add(GenerateCall* call) {
  const std::lock_guard lock(mutex_);
  calls_.emplace(call, call->weak_from_this());
}

void GenerateCalls::Remove(GenerateCall* call) {
  const std::lock_guard lock(mutex_);
  calls_.erase(call);
}

std::vector<std::shared_ptr<GenerateCall>> GenerateCalls::All() {
  std::vector<std::shared_ptr<GenerateCall>> calls;
  const std::lock_guard lock(mutex_);
  for (const auto& [pointer, weak] : calls_) {
    if (auto call = weak.lock()) calls.push_back(std::move(call));
  }
  return calls;
}

bool GenerateCalls::AnyWaits() {
  const auto calls = All();
  return std::any_of(calls.begin(), calls.end(),
                     [](const auto& call) { return call->waiting_since() != 0; });
}

void GenerateCalls::Look(uint64_t most) {
  const uint64_t look = ++looks_;
  for (const auto& call : All()) {
    const uint64_t since = call->waiting_since();
    if (since != 0 && look - since >= most) call->Break(since);
  }
}

}  // namespace sirocco
