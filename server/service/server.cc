#include "server/service/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/resource_quota.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/process/descriptors.h"
#include "server/service/credentials.h"
#include "server/service/grpc_log.h"
#include "server/service/http2_guard.h"

namespace sirocco {
namespace {

constexpr char kAll[] = "";
constexpr char kInference[] = "sirocco.v1.Inference";
constexpr char kLiveness[] = "liveness";

// Reflection is gRPC's own synchronous service: the only one that takes a thread a call.
constexpr int kMaxSyncThreads = 16;

// A client may ping this often; one that does not keep to it is disconnected after some warnings.
constexpr int kMinClientPingMs = 5'000;
constexpr int kMaxPingStrikes = 2;

// What gRPC takes of a call is twice what our methods take (CallRecord::CheckSize): its own
// refusals can neither be counted nor have trailers, and only the client learns of them.
constexpr int kMaxMetadataBytes = 16 << 10;
int MessageBytesOfGrpc(int32_t max_message_size) {
  return static_cast<int>(
      std::min<int64_t>(2 * int64_t{max_message_size}, std::numeric_limits<int>::max()));
}

// A connection whose other side has been silent for so long is pinged; one that does not answer, or
// does not end its handshake, is closed. Where a reader may stall for less, so may a connection.
constexpr std::chrono::milliseconds kMaxSilence{60'000};
constexpr std::chrono::milliseconds kMaxUnanswered{20'000};
constexpr std::chrono::milliseconds kLeastPatience{1'000};

// When all calls have ended, so long has a client to close its connection itself.
constexpr std::chrono::milliseconds kFarewell{100};

int PatienceMs(std::chrono::milliseconds most, std::chrono::milliseconds write_stall_timeout) {
  return static_cast<int>(std::clamp(write_stall_timeout, kLeastPatience, most).count());
}

}  // namespace

GrpcServer::GrpcServer(const GrpcServerOptions& options, Metrics& metrics)
    : options_(options),
      look_interval_(
          std::clamp(std::min(options.health_stall_timeout, options.write_stall_timeout) / 8,
                     std::chrono::milliseconds(5), std::chrono::milliseconds(250))),
      metrics_(metrics),
      health_({kAll, kInference, kLiveness}, open_),
      pool_(options.work),
      service_({state_, metrics, pool_, calls_, open_, options.mode, options.max_message_size,
                options.log_prompts}),
      stall_(options.health_stall_timeout),
      failed_accepts_(FailedAccepts()),
      failed_handshakes_(FailedHandshakes()),
      refused_blocks_(RefusedHeaderBlocks()),
      refused_resets_(RefusedResets()),
      credentials_(options.security == nullptr
                       ? grpc::InsecureServerCredentials()
                       : MakeServerCredentials(*options.security, metrics)) {
  UpdateHealth();
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              Metrics& metrics) {
  if (absl::Status status = NeedDescriptors(kGrpcDescriptors); !status.ok()) return status;
  std::unique_ptr<GrpcServer> server(new GrpcServer(options, metrics));
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  server->watch_ = std::thread([raw = server.get()] { raw->Watch(); });
  return server;
}

absl::Status GrpcServer::Listen() {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options_.listen, credentials_, &port);
  builder.SetMaxReceiveMessageSize(MessageBytesOfGrpc(options_.max_message_size));
  // What a compressed message becomes gRPC 1.51 learns only when it has become that, which may be a
  // thousand times as much.
  for (const grpc_compression_algorithm algorithm : {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    builder.SetCompressionAlgorithmSupportStatus(algorithm, false);
  }
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options_.max_streams_per_connection);
  SetHttp2Bounds({.metadata_bytes = kMaxMetadataBytes,
                  .streams = static_cast<size_t>(options_.max_streams_per_connection),
                  .calls = options_.max_calls});
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, kMaxPingStrikes);
  // Two servers on one port would share its connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  const int unanswered_ms = PatienceMs(kMaxUnanswered, options_.write_stall_timeout);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, unanswered_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             PatienceMs(kMaxSilence, options_.write_stall_timeout));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, unanswered_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // A request may wait for long, and nothing is sent meanwhile but pings.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinClientPingMs);
  grpc::ResourceQuota quota("server");
  quota.SetMaxThreads(kMaxSyncThreads);
  builder.SetResourceQuota(quota);
  builder.RegisterService(&service_);
  builder.RegisterService(&health_);
  RouteGrpcLog();
  const GrpcStartLog log;
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options_.listen, ": ", log.Reason()));
  }
  pulse_ = std::make_unique<Pulse>(*server_);
  address_ = absl::StrCat(options_.listen.substr(0, options_.listen.rfind(':')), ":", port);
  return absl::OkStatus();
}

GrpcServer::~GrpcServer() { Shutdown(std::chrono::milliseconds(0)); }

void GrpcServer::SetReady(const ModelFacts& facts, Engine& engine) {
  state_.SetReady(facts, engine);
  UpdateHealth();
}

void GrpcServer::SetDraining() {
  state_.SetDraining();
  UpdateHealth();
}

void GrpcServer::UpdateHealth() {
  const bool ready = state_.WhyNotReady().empty();
  health_.Set(kAll, ready);
  health_.Set(kInference, ready);
  health_.Set(kLiveness, state_.WhyNotHealthy().empty());
}

void GrpcServer::LookAtListener() {
  if (deaf_ || FailedAccepts() == failed_accepts_) return;
  deaf_ = true;
  options_.on_deaf();
}

void GrpcServer::LookAtHandshakes() {
  for (const int failed = FailedHandshakes(); failed_handshakes_ != failed; ++failed_handshakes_) {
    metrics_.OnDenied(Denial::kHandshake);
  }
}

void GrpcServer::LookAtAbuse() {
  for (const int refused = RefusedHeaderBlocks(); refused_blocks_ != refused; ++refused_blocks_) {
    metrics_.OnAbuse(Abuse::kHeaders);
  }
  for (const int refused = RefusedResets(); refused_resets_ != refused; ++refused_resets_) {
    metrics_.OnAbuse(Abuse::kResets);
  }
}

void GrpcServer::LookAtEngine() {
  Engine* engine = state_.engine();
  if (engine == nullptr) return;
  state_.SetStalled(stall_.Stalled(engine->has_work(), engine->last_step(), Clock::now()));
  const absl::Status fault = engine->fault();
  if (fault.ok() || failed_) return;
  failed_ = true;
  state_.SetFault(fault);
  UpdateHealth();
  options_.on_fault(fault);
}

void GrpcServer::LookAtReaders() {
  // Nobody waits: no beats in an idle server.
  if (!calls_.AnyWaits() || !pulse_->Beat()) return;
  // Two more than fit into the timeout: one may come at once, one may count an old beat.
  calls_.Look(options_.write_stall_timeout / look_interval_ + 2);
}

void GrpcServer::Watch() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, look_interval_, [this] { return stop_; })) {
    lock.unlock();
    LookAtListener();
    LookAtHandshakes();
    LookAtAbuse();
    LookAtEngine();
    UpdateHealth();
    LookAtReaders();
    lock.lock();
  }
}

void GrpcServer::Shutdown(std::chrono::milliseconds grace) {
  if (server_ != nullptr) {
    SetDraining();
    health_.Shutdown();
    // gRPC would wait for connections, not for calls; and clients that are idle may not look at
    // theirs for seconds.
    const bool ended = open_.WaitUntilNone(Clock::now() + grace);
    const auto left = ended ? std::min(grace, kFarewell) : std::chrono::milliseconds(0);
    server_->Shutdown(std::chrono::system_clock::now() + left);
    server_->Wait();
    server_ = nullptr;
  }
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (watch_.joinable()) watch_.join();
}

}  // namespace sirocco
