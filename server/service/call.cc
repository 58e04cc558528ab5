#include "server/service/call.h"

#include <cstdio>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"
#include "server/api/parse.h"

namespace sirocco {
namespace {

using SystemClock = std::chrono::system_clock;

constexpr std::chrono::milliseconds kRetryDelay{1000};

std::string Milliseconds(Clock::duration value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.3f",
                std::chrono::duration<double, std::milli>(value).count());
  return text;
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

absl::StatusCode CallRecord::CancelReason() const {
  const SystemClock::time_point deadline = context_.deadline();
  if (deadline == SystemClock::time_point::max()) return absl::StatusCode::kCancelled;
  const auto slack = std::chrono::milliseconds(10) + (deadline - start_) / 100;
  return SystemClock::now() + slack >= deadline ? absl::StatusCode::kDeadlineExceeded
                                                : absl::StatusCode::kCancelled;
}

grpc::Status CallRecord::End(const absl::Status& status, const RequestTiming& timing) {
  // Of a call that is already broken the client has learnt so from its own side.
  metrics_.OnCall(method_, context_.IsCancelled() ? CancelReason() : status.code());
  context_.AddTrailingMetadata("sirocco-mode", std::string(NameOf(mode_)));
  context_.AddTrailingMetadata("sirocco-queue-ms", Milliseconds(timing.queue));
  context_.AddTrailingMetadata("sirocco-prefill-ms", Milliseconds(timing.prefill));
  context_.AddTrailingMetadata("sirocco-decode-ms", Milliseconds(timing.decode));
  return ToGrpcStatus(status);
}

}  // namespace sirocco
