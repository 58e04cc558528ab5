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

  // Why a call that was cancelled was: kDeadlineExceeded or kCancelled. A client gives up at its
  // own deadline, which may come a little before the one it told us: gRPC rounds timeouts up, and
  // they count from here on. The first call decides. Any thread.
  absl::StatusCode CancelReason();

  // Sets the trailing metadata, counts the call and logs it; returns what to finish it with. Once,
  // right before it is finished.
  grpc::Status End(const absl::Status& status, const CallDetails& details);

 private:
  void Log(absl::StatusCode code, const absl::Status& status, const CallDetails& details) const;
  bool generates() const;

  const RpcMethod method_;
  const Mode mode_;
  Metrics& metrics_;
  grpc::CallbackServerContext& context_;
  const std::chrono::system_clock::time_point start_ = std::chrono::system_clock::now();
  const Clock::time_point came_ = Clock::now();
  std::atomic<absl::StatusCode> cancel_reason_{absl::StatusCode::kOk};  // kOk: not decided
};

}  // namespace sirocco
