// What every call of sirocco.v1.Inference has, whatever its method.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/token_stream.h"
#include "graphs/mode.h"
#include "server/metrics/metrics.h"

namespace sirocco {

// INVALID_ARGUMENT as ParseMessage.
absl::Status FromByteBuffer(const grpc::ByteBuffer& bytes, google::protobuf::Message& message);
// RESOURCE_EXHAUSTED: above protobuf's 2 GiB.
absl::StatusOr<grpc::ByteBuffer> ToByteBuffer(const google::protobuf::Message& message);

// A refusal that may be tried again in a while: RESOURCE_EXHAUSTED with RetryInfo.
absl::Status Exhausted(std::string_view message);

// What a call's log line says of it, as far as it came.
struct CallDetails {
  std::string id;      // a Generate call's, once it has one
  std::string model;   // served name
  std::string prompt;  // where prompts are logged
  RequestUsage usage;
  RequestTiming timing;
  RequestStage stage = RequestStage::kQueue;
};

// A call's clock, its end, and its place in the metrics and the log. `context` outlives it or is
// not used after End.
class CallRecord {
 public:
  CallRecord(RpcMethod method, Mode mode, Metrics& metrics, grpc::CallbackServerContext& context)
      : method_(method), mode_(mode), metrics_(metrics), context_(context) {}

  RpcMethod method() const { return method_; }

  // The client's deadline, on the engine's clock.
  std::optional<Clock::time_point> Deadline() const;

  // Who asks: the metadata `sirocco-client`; empty, where there is none.
  absl::StatusOr<std::string> Client() const;

  // Why a call that was cancelled was: kDeadlineExceeded or kCancelled. Clients reset a stream with
  // the same code for both, so only the clock can tell them apart. A client gives up at its own
  // deadline, which may come a little before the one it told us: gRPC rounds timeouts up, and they
  // count from here on. The first call decides. Any thread.
  absl::StatusCode CancelReason();

  // RESOURCE_EXHAUSTED, and counted: the message has more bytes than may be, or the metadata more
  // than 8 KiB. Of what gRPC refuses itself only the client learns.
  absl::Status CheckSize(const grpc::ByteBuffer& message, int32_t max_message_size);

  // The call came without a message. Its client has gone, or never sends one: which of them gRPC
  // tells only when the call is done.
  void HasNoMessage() { has_message_ = false; }

  // Sets the trailing metadata, counts the call and logs it; returns what to finish it with. Once,
  // right before it is finished.
  grpc::Status End(const absl::Status& status, const CallDetails& details);
  // In OnDone: counts and logs a call without a message.
  void Done();

 private:
  void Tell(const absl::Status& status, const CallDetails& details);
  void Log(absl::StatusCode code, const absl::Status& status, const CallDetails& details) const;
  bool generates() const;

  const RpcMethod method_;
  const Mode mode_;
  Metrics& metrics_;
  grpc::CallbackServerContext& context_;
  const std::chrono::system_clock::time_point start_ = std::chrono::system_clock::now();
  const Clock::time_point came_ = Clock::now();
  std::atomic<absl::StatusCode> cancel_reason_{absl::StatusCode::kOk};  // kOk: not decided
  bool has_message_ = true;
  absl::Status untold_;  // how it ended, until Done; not OK without a message
  CallDetails untold_details_;
};

}  // namespace sirocco
