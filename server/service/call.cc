#include "server/service/call.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"
#include "server/api/parse.h"
#include "server/log/log.h"
#include "server/log/trace_context.h"

namespace sirocco {
namespace {

constexpr size_t kMaxClientBytes = 256;

// Of a call's metadata, counted as HTTP/2 does (RFC 7541, 4.1): so many more for each entry.
constexpr size_t kMaxMetadataBytes = 8 << 10;
constexpr size_t kEntryBytes = 32;

using SystemClock = std::chrono::system_clock;

constexpr std::chrono::milliseconds kRetryDelay{1000};

// How much later than its client a server under load learns that a call has begun.
constexpr std::chrono::milliseconds kMostLag{50};

// The longest error message in a log line.
constexpr size_t kMaxLoggedBytes = 1024;

double Milliseconds(Clock::duration value) {
  return std::chrono::duration<double, std::milli>(value).count();
}

std::string MillisecondsText(Clock::duration value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.3f", Milliseconds(value));
  return text;
}

double RoundedMilliseconds(Clock::duration value) {
  return std::round(Milliseconds(value) * 1000) / 1000;
}

std::string_view NameOf(RequestStage stage) {
  static constexpr std::string_view kNames[] = {"queue", "prefill", "decode"};
  return kNames[static_cast<size_t>(stage)];
}

// Several of one name are none, as the standard has it.
std::optional<TraceContext> TraceOf(const grpc::CallbackServerContext& context) {
  const auto [first, last] = context.client_metadata().equal_range("traceparent");
  if (first == last || std::next(first) != last) return std::nullopt;
  return ParseTraceparent({first->second.data(), first->second.size()});
}

}  // namespace

absl::Status FromByteBuffer(const grpc::ByteBuffer& bytes, google::protobuf::Message& message) {
  grpc::Slice slice;
  if (!bytes.DumpToSingleSlice(&slice).ok()) {
    return absl::InvalidArgumentError("the call has no request message");
  }
  return ParseMessage({reinterpret_cast<const char*>(slice.begin()), slice.size()}, message);
}

absl::StatusOr<grpc::ByteBuffer> ToByteBuffer(const google::protobuf::Message& message) {
  const size_t bytes = message.ByteSizeLong();
  if (bytes > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the response has ", bytes, " bytes, more than a message can hold"));
  }
  grpc::Slice slice(bytes);
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

absl::Status Exhausted(std::string_view message) {
  return WithRetryInfo(absl::ResourceExhaustedError(std::string(message)), kRetryDelay);
}

std::optional<Clock::time_point> CallRecord::Deadline() const {
  const SystemClock::time_point deadline = context_.deadline();
  // Beyond a year it is none; the conversion cannot overflow then.
  const SystemClock::time_point now = SystemClock::now();
  if (deadline > now + std::chrono::hours(24 * 365)) return std::nullopt;
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(deadline - now);
}

absl::StatusOr<std::string> CallRecord::Client() const {
  const auto entry = context_.client_metadata().find("sirocco-client");
  if (entry == context_.client_metadata().end()) return std::string();
  const grpc::string_ref name = entry->second;
  if (name.size() > kMaxClientBytes) {
    return InvalidField("sirocco-client", absl::StrCat("has ", name.size(), " bytes"),
                        absl::StrCat("at most ", kMaxClientBytes));
  }
  return std::string(name.data(), name.size());
}

absl::Status CallRecord::CheckSize(const grpc::ByteBuffer& message, int32_t max_message_size) {
  size_t metadata = 0;
  for (const auto& [key, value] : context_.client_metadata()) {
    metadata += key.size() + value.size() + kEntryBytes;
  }
  if (metadata > kMaxMetadataBytes) {
    metrics_.OnTooLarge(Oversize::kMetadata);
    return absl::ResourceExhaustedError(
        absl::StrCat("the call's metadata has ", metadata, " bytes; allowed: ", kMaxMetadataBytes));
  }
  const size_t bytes = message.Valid() ? message.Length() : 0;
  if (bytes > static_cast<size_t>(max_message_size)) {
    metrics_.OnTooLarge(Oversize::kMessage);
    return absl::ResourceExhaustedError(absl::StrCat(
        "the message has ", bytes, " bytes; allowed: ", max_message_size, " (max_message_size)"));
  }
  return absl::OkStatus();
}

absl::StatusCode CallRecord::CancelReason() {
  absl::StatusCode reason = absl::StatusCode::kCancelled;
  const SystemClock::time_point deadline = context_.deadline();
  if (deadline != SystemClock::time_point::max()) {
    const SystemClock::duration span = deadline - start_;
    const auto slack = std::min<SystemClock::duration>(kMostLag, span / 4) + span / 100;
    if (SystemClock::now() + slack >= deadline) reason = absl::StatusCode::kDeadlineExceeded;
  }
  absl::StatusCode decided = absl::StatusCode::kOk;
  return cancel_reason_.compare_exchange_strong(decided, reason) ? reason : decided;
}

bool CallRecord::generates() const {
  return method_ == RpcMethod::kGenerate || method_ == RpcMethod::kGenerateStream;
}

void CallRecord::Tell(const absl::Status& status, const CallDetails& details) {
  // Of a call that is already broken the client has learnt so from its own side.
  const absl::StatusCode code = context_.IsCancelled() ? CancelReason() : status.code();
  if (generates() && code == absl::StatusCode::kDeadlineExceeded) {
    metrics_.OnDeadlineExceeded(details.stage);
  }
  metrics_.OnCall(method_, code);
  Log(code, status, details);
}

void CallRecord::Done() {
  if (!untold_.ok()) Tell(untold_, untold_details_);
}

grpc::Status CallRecord::End(const absl::Status& status, const CallDetails& details) {
  if (has_message_) {
    // Before the client can know.
    Tell(status, details);
  } else {
    untold_ = status;
    untold_details_ = details;
  }
  context_.AddTrailingMetadata("sirocco-mode", std::string(NameOf(mode_)));
  context_.AddTrailingMetadata("sirocco-queue-ms", MillisecondsText(details.timing.queue));
  context_.AddTrailingMetadata("sirocco-prefill-ms", MillisecondsText(details.timing.prefill));
  context_.AddTrailingMetadata("sirocco-decode-ms", MillisecondsText(details.timing.decode));
  return ToGrpcStatus(ForClient(status));
}

void CallRecord::Log(absl::StatusCode code, const absl::Status& status,
                     const CallDetails& details) const {
  LogFields fields = {{"method", std::string(sirocco::NameOf(method_))},
                      {"status", absl::StatusCodeToString(code)}};
  if (!details.id.empty()) fields.emplace_back("id", details.id);
  if (const auto trace = TraceOf(context_)) {
    fields.emplace_back("trace_id", trace->trace_id);
    fields.emplace_back("parent_id", trace->parent_id);
  }
  if (!details.model.empty()) fields.emplace_back("model", details.model);
  if (generates()) {
    fields.emplace_back("stage", std::string(NameOf(details.stage)));
    fields.emplace_back("prompt_tokens", int64_t{details.usage.prompt_tokens});
    fields.emplace_back("cached_prompt_tokens", int64_t{details.usage.cached_prompt_tokens});
    fields.emplace_back("completion_tokens", int64_t{details.usage.completion_tokens});
    fields.emplace_back("queue_ms", RoundedMilliseconds(details.timing.queue));
    fields.emplace_back("prefill_ms", RoundedMilliseconds(details.timing.prefill));
    fields.emplace_back("decode_ms", RoundedMilliseconds(details.timing.decode));
  }
  fields.emplace_back("total_ms", RoundedMilliseconds(Clock::now() - came_));
  if (code != absl::StatusCode::kOk && !status.ok()) {
    const absl::string_view message = status.message();
    fields.emplace_back("error", Shortened({message.data(), message.size()}, kMaxLoggedBytes));
  }
  if (!details.prompt.empty()) fields.emplace_back("prompt", details.prompt);
  sirocco::Log(code == absl::StatusCode::kInternal ? LogLevel::kError : LogLevel::kInfo, "request",
               fields);
}

}  // namespace sirocco
