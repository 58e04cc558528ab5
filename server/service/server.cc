#include "server/service/server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/resource_quota.h>

#include <algorithm>
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

constexpr char kAll[] = "";
constexpr char kInference[] = "sirocco.v1.Inference";
constexpr char kLiveness[] = "liveness";

// Reflection is gRPC's own synchronous service: the only one that takes a thread a call.
constexpr int kMaxSyncThreads = 16;

// A client may ping this often; a connection that does not answer pings is closed.
constexpr int kMinClientPingMs = 5'000;
constexpr int kKeepaliveMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;

// gRPC tells why it cannot listen only in its log.
class StartLog {
 public:
  StartLog() {
    Text().clear();
    gpr_set_log_function([](gpr_log_func_args* args) {
      const std::lock_guard lock(Mutex());
      if (args->severity == GPR_LOG_SEVERITY_ERROR) absl::StrAppend(&Text(), args->message, "\n");
    });
  }
  ~StartLog() { gpr_set_log_function(nullptr); }

  std::string Reason() const {
    static constexpr std::array<const char*, 4> kReasons = {
        "Address already in use", "Permission denied", "Cannot assign requested address",
        "Name or service not known"};
    const std::lock_guard lock(Mutex());
    for (const char* reason : kReasons) {
      if (absl::StrContains(Text(), reason)) return reason;
    }
    return "it is no HOST:PORT of this machine";
  }

 private:
  static std::mutex& Mutex() {
    static std::mutex mutex;
    return mutex;
  }
  static std::string& Text() {
    static std::string text;
    return text;
  }
};

}  // namespace

GrpcServer::GrpcServer(const GrpcServerOptions& options, Metrics& metrics)
    : options_(options),
      health_({kAll, kInference, kLiveness}),
      pool_(options.work),
      service_({state_, metrics, pool_, calls_, options.mode}),
      stall_(options.health_stall_timeout) {
  UpdateHealth();
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              Metrics& metrics) {
  std::unique_ptr<GrpcServer> server(new GrpcServer(options, metrics));
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  server->watch_ = std::thread([raw = server.get()] { raw->Watch(); });
  return server;
}

absl::Status GrpcServer::Listen() {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options_.listen, grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(options_.max_message_size);
  // Two servers on one port would share its connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinClientPingMs);
  grpc::ResourceQuota quota("server");
  quota.SetMaxThreads(kMaxSyncThreads);
  builder.SetResourceQuota(quota);
  builder.RegisterService(&service_);
  builder.RegisterService(&health_);
  const StartLog log;
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options_.listen, ": ", log.Reason()));
  }
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

void GrpcServer::Watch() {
  const auto interval =
      std::clamp(std::min(options_.health_stall_timeout, options_.write_stall_timeout) / 8,
                 std::chrono::milliseconds(5), std::chrono::milliseconds(250));
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, interval, [this] { return stop_; })) {
    lock.unlock();
    LookAtEngine();
    UpdateHealth();
    calls_.BreakStalled(Clock::now() - options_.write_stall_timeout);
    lock.lock();
  }
}

void GrpcServer::Shutdown(std::chrono::milliseconds grace) {
  if (server_ != nullptr) {
    SetDraining();
    health_.Shutdown();
    server_->Shutdown(std::chrono::system_clock::now() + grace);
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
