// The server's metrics: a Prometheus registry, filled by the engine (as its observer) and by the
// service, one call each.
//
// Wiring, in this order: construct; serve Render() over HTTP (http_server.h); SetModel once, when
// the model's name is known and before the engine starts; pass the object to Engine::Start;
// Attach once the engine runs; Detach before the model goes. To add a metric: a member here, its
// name and help in the constructor (or SetModel, if it carries the model's name), a line where the
// event arrives.
//
// Threads: all methods but the constructor and SetModel may be called from any thread.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "engine/observer.h"
#include "server/model/served_model.h"

namespace sirocco {

// The methods of sirocco.v1.Inference.
enum class RpcMethod : uint8_t { kGenerate, kGenerateStream, kTokenize, kDetokenize, kGetModel };
inline constexpr int kRpcMethods = 5;
std::string_view NameOf(RpcMethod method);  // "Generate", ...

// Why a call or a connection was not let in.
enum class Denial : uint8_t { kTokenMissing, kTokenUnknown, kMethodForbidden, kHandshake };
inline constexpr int kDenials = 4;

// What of a call was larger than may be.
enum class Oversize : uint8_t { kMessage, kMetadata };

// What came on a connection that was closed for it (server/service/http2_guard.h).
enum class Abuse : uint8_t { kHeaders, kResets };

// What is read anew when its files change.
enum class CredentialKind : uint8_t { kTls, kTokens };
std::string_view NameOf(CredentialKind kind);  // "tls", "tokens"

class Metrics final : public EngineObserver {
 public:
  // `vllm_names`: whether the names that start with "vllm:" are exposed.
  explicit Metrics(bool vllm_names);
  ~Metrics() override;

  // Makes the series that carry the model's name, mode or batch sizes. Once, before the engine
  // starts.
  void SetModel(const ModelFacts& facts);
  // What the model's device and executor count themselves is read from them at each scrape, from
  // Attach until Detach has returned. `model` has its engine.
  void Attach(const ServedModel& model);
  void Detach();

  // The text exposition format.
  std::string Render() const;

  // A call ended with this status: once a call, before the client can know.
  void OnCall(RpcMethod method, absl::StatusCode code);
  // A Generate call's deadline passed: once such a call, before it ends.
  void OnDeadlineExceeded(RequestStage stage);

  // Once each call or handshake that was refused.
  void OnDenied(Denial reason);
  // Once each call that was refused for its size.
  void OnTooLarge(Oversize what);
  // Once each connection that was closed for what came on it.
  void OnAbuse(Abuse what);
  // Changed files were read anew: taken, or left since they cannot serve.
  void OnReload(CredentialKind kind, bool taken);
  // When the TLS certificate ends, in seconds since 1970.
  void SetCertificateExpiry(double seconds);

  // EngineObserver.
  void OnGauges(const EngineGauges& gauges) override;
  void OnStep(StepPhase phase, double seconds, int32_t tokens) override;
  void OnPrefixCache(int64_t queries, int64_t hits) override;
  void OnOverrunRows(int32_t rows) override;
  void OnPreemptions(int32_t count) override;
  void OnQueueTime(double seconds) override;
  void OnPromptTokens(int32_t count) override;
  void OnRejected(std::string_view reason) override;
  void OnCancelToFree(double seconds) override;
  void OnFirstToken(double seconds) override;
  void OnInterToken(double seconds) override;
  void OnGeneratedTokens(int32_t count) override;
  void OnSequenceFinished(FinishReason reason) override;
  void OnRequestFinished(double seconds) override;

 private:
  // Owned by the registry.
  using Counter = prometheus::Counter*;
  using Gauge = prometheus::Gauge*;
  using Histogram = prometheus::Histogram*;

  // Names that gateways and dashboards know from vLLM, all with `model_name`.
  struct VllmNames {
    Gauge running, waiting, kv_usage;
    Histogram time_to_first_token, inter_token_latency, e2e_latency, queue_time;
    Counter prompt_tokens, generation_tokens, prefix_queries, prefix_hits, preemptions;
    std::array<Counter, 3> success;  // by FinishReason
  };
  void MakeCallSeries();
  void MakeEngineSeries();
  void MakeSecuritySeries();
  void MakeVllmSeries(const std::string& model_name);

  static constexpr int kStatusCodes = 17;
  static constexpr std::array<std::string_view, 5> kRejectReasons = {"queue_full", "queue_tokens",
                                                                     "deadline", "kv", "draining"};

  const bool vllm_names_;
  std::shared_ptr<prometheus::Registry> registry_;
  std::array<std::array<Counter, kStatusCodes>, kRpcMethods> calls_;
  std::array<Counter, 2> tokens_;          // by StepPhase
  std::array<Histogram, 2> step_seconds_;  // by StepPhase
  Histogram batch_size_;
  Counter overrun_rows_;
  std::array<Gauge, 3> kv_blocks_;  // free, used, cached
  Gauge queue_requests_, queue_tokens_, last_step_;
  std::array<Counter, kRejectReasons.size()> rejected_;
  std::array<Counter, 3> deadline_exceeded_;  // by RequestStage
  Histogram cancel_to_free_;
  std::array<Counter, kDenials> denied_;
  std::array<Counter, 2> too_large_;               // by Oversize
  std::array<Counter, 2> abuse_;                   // by Abuse
  std::array<std::array<Counter, 2>, 2> reloads_;  // by CredentialKind, and whether it was taken
  std::unique_ptr<VllmNames> vllm_;                // from SetModel on, if vllm_names_

  mutable std::mutex model_mutex_;
  const ServedModel* model_ = nullptr;
};

}  // namespace sirocco
