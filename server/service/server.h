// The gRPC server: Inference, health and reflection on one address.
//
// Wiring, in this order:
//   Metrics metrics(...);
//   GrpcServer::Start     listens; calls are UNAVAILABLE, health is NOT_SERVING but for "liveness"
//   HttpServer::Start     with metrics.Render, WhyNotReady and WhyNotHealthy
//   ... open the model; metrics.SetModel; load it; start its engine with &metrics ...
//   metrics.Attach(model)
//   SetReady              serves
//   ... a signal, or on_fault ...
//   SetDraining           health NOT_SERVING; new calls are UNAVAILABLE, running ones go on
//   engine.Drain          returns when all generation has ended
//   Shutdown              ends what is left; no use of the model after it
//   metrics.Detach; then the model may go
// Each object outlives what was started after it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/security/security.h"
#include "server/service/generate_call.h"
#include "server/service/health.h"
#include "server/service/inference_service.h"
#include "server/service/open_calls.h"
#include "server/service/pulse.h"
#include "server/service/serving_state.h"
#include "server/service/stall_detector.h"
#include "server/service/work_pool.h"

namespace sirocco {

struct GrpcServerOptions {
  std::string listen = "127.0.0.1:50051";  // HOST:PORT; port 0 picks one
  int32_t max_message_size = 8 << 20;      // bytes of a request
  int32_t max_streams_per_connection = 4096;
  // Calls that gRPC holds over all connections, from their first byte until they have ended; more
  // than four times the generate calls that may run or wait. http2_guard.h says what happens
  // beyond.
  int64_t max_calls = 4096;
  std::chrono::milliseconds health_stall_timeout{10'000};
  std::chrono::milliseconds write_stall_timeout{60'000};
  Mode mode = Mode::kEager;  // told in the trailing metadata, also while loading
  bool log_prompts = false;  // in the calls' log lines
  WorkPool::Limits work;
  const Security* security = nullptr;  // none: in the clear, and no token is asked for
  // The device has failed and the engine has ended all calls: the process should exit. Called
  // once at most, from the server's own thread; it must not call the server.
  std::function<void(const absl::Status&)> on_fault = [](const absl::Status&) {};
  // No connection can come in any more, since the process had too many open files: it should drain
  // and be started again. As on_fault.
  std::function<void()> on_deaf = [] {};
};

class GrpcServer {
 public:
  // UNAVAILABLE names the address that cannot be listened on, and why. RESOURCE_EXHAUSTED: too few
  // files may be open.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           Metrics& metrics);
  // Shutdown at once, if that has not been.
  ~GrpcServer();

  // HOST:PORT with the port that was bound.
  const std::string& address() const { return address_; }

  // Each once. Any thread.
  void SetReady(const ModelFacts& facts, Engine& engine);
  void SetDraining();

  // Refuses new calls, waits up to `grace` for those that run, cancels the rest and waits for
  // their end. Again: nothing.
  void Shutdown(std::chrono::milliseconds grace);

  // As ServingState: for /readyz and /healthz. Any thread.
  std::string WhyNotReady() const { return state_.WhyNotReady(); }
  std::string WhyNotHealthy() const { return state_.WhyNotHealthy(); }

 private:
  GrpcServer(const GrpcServerOptions& options, Metrics& metrics);
  absl::Status Listen();
  void UpdateHealth();
  // The watch thread: faults, stalls, a lost listener, abuse, readers that take nothing.
  void Watch();
  void LookAtListener();
  void LookAtHandshakes();
  void LookAtAbuse();
  void LookAtEngine();
  void LookAtReaders();

  const GrpcServerOptions options_;
  const std::chrono::milliseconds look_interval_;
  Metrics& metrics_;
  std::string address_;
  ServingState state_;
  OpenCalls open_;
  HealthService health_;
  GenerateCalls calls_;
  WorkPool pool_;
  InferenceService service_;
  StallDetector stall_;                  // the watch thread's
  bool failed_ = false;                  // the watch thread's
  const int failed_accepts_;             // before it listened
  bool deaf_ = false;                    // the watch thread's
  int failed_handshakes_;                // that were counted; the watch thread's
  int refused_blocks_, refused_resets_;  // likewise
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Pulse> pulse_;

  std::mutex mutex_;  // stop_
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread watch_;
};

}  // namespace sirocco
