#include "server/metrics/metrics.h"

#include <prometheus/text_serializer.h>

#include <chrono>
#include <utility>
#include <vector>

#include "server/api/version.h"
#include "server/metrics/model_metrics.h"

namespace sirocco {
namespace {

using prometheus::Labels;
using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets& LatencyBuckets() {
  static const Buckets buckets = {0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                  0.05,    0.1,    0.25,  0.5,    1,     2.5,  5,
                                  10,      30,     60,    120,    300,   600};
  return buckets;
}

const Buckets& BatchBuckets() {
  static const Buckets buckets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
  return buckets;
}

prometheus::Family<prometheus::Counter>& CounterFamily(prometheus::Registry& registry,
                                                       const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Gauge>& GaugeFamily(prometheus::Registry& registry, const char* name,
                                                   const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Histogram>& HistogramFamily(prometheus::Registry& registry,
                                                           const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

}  // namespace

std::string_view NameOf(RpcMethod method) {
  static constexpr std::array<std::string_view, kRpcMethods> kNames = {
      "Generate", "GenerateStream", "Tokenize", "Detokenize", "GetModel"};
  return kNames[static_cast<size_t>(method)];
}

std::string_view NameOf(CredentialKind kind) {
  return kind == CredentialKind::kTls ? "tls" : "tokens";
}

Metrics::Metrics(bool vllm_names)
    : vllm_names_(vllm_names), registry_(std::make_shared<prometheus::Registry>()) {
  MakeCallSeries();
  MakeEngineSeries();
  MakeSecuritySeries();
}

Metrics::~Metrics() = default;

void Metrics::MakeCallSeries() {
  auto& calls = CounterFamily(*registry_, "sirocco_requests_total",
                              "Calls that ended, by method and status code.");
  for (int method = 0; method < kRpcMethods; ++method) {
    for (int code = 0; code < kStatusCodes; ++code) {
      calls_[method][code] =
          &calls.Add({{"method", std::string(NameOf(static_cast<RpcMethod>(method)))},
                      {"code", absl::StatusCodeToString(static_cast<absl::StatusCode>(code))}});
    }
  }
  auto& rejected = CounterFamily(*registry_, "sirocco_rejected_total",
                                 "Generate calls that were refused, by reason.");
  for (size_t i = 0; i < kRejectReasons.size(); ++i) {
    rejected_[i] = &rejected.Add({{"reason", std::string(kRejectReasons[i])}});
  }
  auto& deadline = CounterFamily(*registry_, "sirocco_deadline_exceeded_total",
                                 "Requests whose deadline passed, by the stage they were in.");
  deadline_exceeded_ = {&deadline.Add({{"stage", "queue"}}), &deadline.Add({{"stage", "prefill"}}),
                        &deadline.Add({{"stage", "decode"}})};
}

void Metrics::MakeEngineSeries() {
  auto& tokens = CounterFamily(*registry_, "sirocco_tokens_total",
                               "Prompt tokens computed, and tokens generated.");
  tokens_ = {&tokens.Add({{"phase", "prefill"}}), &tokens.Add({{"phase", "decode"}})};
  auto& steps =
      HistogramFamily(*registry_, "sirocco_step_seconds", "Time of the engine's steps, by phase.");
  step_seconds_ = {&steps.Add({{"phase", "prefill"}}, LatencyBuckets()),
                   &steps.Add({{"phase", "decode"}}, LatencyBuckets())};
  batch_size_ = &HistogramFamily(*registry_, "sirocco_batch_size", "Sequences of a decode step.")
                     .Add({}, BatchBuckets());
  overrun_rows_ = &CounterFamily(*registry_, "sirocco_overrun_rows_total",
                                 "Decode rows computed for sequences that had already ended.")
                       .Add({});
  cancel_to_free_ = &HistogramFamily(*registry_, "sirocco_cancel_to_free_seconds",
                                     "From a sequence's cancellation until its blocks are free.")
                         .Add({}, LatencyBuckets());
  auto& blocks = GaugeFamily(*registry_, "sirocco_kv_blocks", "Blocks of the KV cache, by state.");
  kv_blocks_ = {&blocks.Add({{"state", "free"}}), &blocks.Add({{"state", "used"}}),
                &blocks.Add({{"state", "cached"}})};
  queue_requests_ =
      &GaugeFamily(*registry_, "sirocco_queue_requests", "Requests that wait.").Add({});
  queue_tokens_ =
      &GaugeFamily(*registry_, "sirocco_queue_tokens", "Prompt tokens of requests that wait.")
           .Add({});
  last_step_ = &GaugeFamily(*registry_, "sirocco_last_step_timestamp_seconds",
                            "When the last step ended, in seconds since 1970; 0: none has.")
                    .Add({});
}

void Metrics::MakeSecuritySeries() {
  auto& denied = CounterFamily(*registry_, "sirocco_denied_total",
                               "Calls and handshakes that were refused for who asked, by reason.");
  static constexpr std::array<const char*, kDenials> kReasons = {"token_missing", "token_unknown",
                                                                 "method_forbidden", "handshake"};
  for (int i = 0; i < kDenials; ++i) denied_[i] = &denied.Add({{"reason", kReasons[i]}});
  auto& too_large = CounterFamily(*registry_, "sirocco_too_large_total",
                                  "Calls that were refused for the size of what they sent.");
  too_large_ = {&too_large.Add({{"what", "message"}}), &too_large.Add({{"what", "metadata"}})};
  auto& abuse = CounterFamily(*registry_, "sirocco_abuse_total",
                              "Connections that were closed for what came on them: header blocks "
                              "that do not end, are too large or no headers; streams reset while "
                              "calls are too many.");
  abuse_ = {&abuse.Add({{"what", "headers"}}), &abuse.Add({{"what", "resets"}})};
  auto& reloads = CounterFamily(*registry_, "sirocco_credential_reloads_total",
                                "Changed certificates and tokens, by whether they could serve.");
  for (const CredentialKind kind : {CredentialKind::kTls, CredentialKind::kTokens}) {
    const std::string what(NameOf(kind));
    reloads_[static_cast<size_t>(kind)] = {&reloads.Add({{"what", what}, {"result", "failed"}}),
                                           &reloads.Add({{"what", what}, {"result", "taken"}})};
  }
}

void Metrics::MakeVllmSeries(const std::string& model_name) {
  const Labels labels = {{"model_name", model_name}};
  const auto counter = [&](const char* name, const char* help) {
    return &CounterFamily(*registry_, name, help).Add(labels);
  };
  const auto gauge = [&](const char* name, const char* help) {
    return &GaugeFamily(*registry_, name, help).Add(labels);
  };
  const auto histogram = [&](const char* name, const char* help) {
    return &HistogramFamily(*registry_, name, help).Add(labels, LatencyBuckets());
  };
  auto vllm = std::make_unique<VllmNames>();
  vllm->running = gauge("vllm:num_requests_running", "Requests that run.");
  vllm->waiting = gauge("vllm:num_requests_waiting", "Requests that wait.");
  vllm->kv_usage = gauge("vllm:kv_cache_usage_perc", "Share of the KV cache in use; 1 is all.");
  vllm->time_to_first_token = histogram("vllm:time_to_first_token_seconds",
                                        "From a request's arrival to a sequence's first token.");
  vllm->inter_token_latency =
      histogram("vllm:inter_token_latency_seconds", "From token to token of a sequence.");
  vllm->e2e_latency =
      histogram("vllm:e2e_request_latency_seconds", "From a request's arrival to its end.");
  vllm->queue_time = histogram("vllm:request_queue_time_seconds", "Time that requests waited.");
  vllm->prompt_tokens = counter("vllm:prompt_tokens_total", "Prompt tokens of started requests.");
  vllm->generation_tokens = counter("vllm:generation_tokens_total", "Tokens generated.");
  vllm->prefix_queries =
      counter("vllm:prefix_cache_queries_total", "Prompt tokens looked for in the prefix cache.");
  vllm->prefix_hits = counter("vllm:prefix_cache_hits_total",
                              "Prompt tokens found in the prefix cache, and so not computed.");
  vllm->preemptions = counter("vllm:num_preemptions_total",
                              "Sequences that lost their blocks and were computed anew.");
  auto& success = CounterFamily(*registry_, "vllm:request_success_total",
                                "Sequences that ended, by the reason.");
  const auto finished = [&](const char* reason) {
    return &success.Add({{"model_name", model_name}, {"finished_reason", reason}});
  };
  vllm->success = {finished("abort"), finished("stop"), finished("length")};
  vllm_ = std::move(vllm);
}

void Metrics::SetModel(const ModelFacts& facts) {
  GaugeFamily(*registry_, "sirocco_build_info", "What runs; always 1.")
      .Add({{"version", kVersion},
            {"backend", facts.backend},
            {"mode", std::string(NameOf(facts.mode))},
            {"dtype", facts.dtype}})
      .Set(1);
  if (vllm_names_) MakeVllmSeries(facts.name);
}

void Metrics::Attach(const ServedModel& model) {
  const std::lock_guard lock(model_mutex_);
  model_ = &model;
}

void Metrics::Detach() {
  const std::lock_guard lock(model_mutex_);
  model_ = nullptr;
}

std::string Metrics::Render() const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  {
    const std::lock_guard lock(model_mutex_);
    if (model_ != nullptr) {
      for (auto& family : CollectModelMetrics(*model_)) families.push_back(std::move(family));
    }
  }
  return prometheus::TextSerializer().Serialize(families);
}

void Metrics::OnCall(RpcMethod method, absl::StatusCode code) {
  calls_[static_cast<size_t>(method)][static_cast<size_t>(code)]->Increment();
}

void Metrics::OnDenied(Denial reason) { denied_[static_cast<size_t>(reason)]->Increment(); }

void Metrics::OnTooLarge(Oversize what) { too_large_[static_cast<size_t>(what)]->Increment(); }

void Metrics::OnAbuse(Abuse what) { abuse_[static_cast<size_t>(what)]->Increment(); }

void Metrics::OnReload(CredentialKind kind, bool taken) {
  reloads_[static_cast<size_t>(kind)][taken ? 1 : 0]->Increment();
}

void Metrics::SetCertificateExpiry(double seconds) {
  GaugeFamily(*registry_, "sirocco_certificate_expiry_timestamp_seconds",
              "When the TLS certificate ends, in seconds since 1970.")
      .Add({})
      .Set(seconds);
}

void Metrics::OnGauges(const EngineGauges& gauges) {
  kv_blocks_[0]->Set(static_cast<double>(gauges.kv_blocks_free));
  kv_blocks_[1]->Set(static_cast<double>(gauges.kv_blocks_used));
  kv_blocks_[2]->Set(static_cast<double>(gauges.kv_blocks_cached));
  queue_requests_->Set(gauges.requests_waiting);
  queue_tokens_->Set(static_cast<double>(gauges.queue_tokens));
  if (vllm_ == nullptr) return;
  vllm_->running->Set(gauges.requests_running);
  vllm_->waiting->Set(gauges.requests_waiting);
  const int64_t blocks = gauges.kv_blocks_free + gauges.kv_blocks_used + gauges.kv_blocks_cached;
  vllm_->kv_usage->Set(
      blocks > 0 ? static_cast<double>(gauges.kv_blocks_used) / static_cast<double>(blocks) : 0);
}

void Metrics::OnStep(StepPhase phase, double seconds, int32_t tokens) {
  step_seconds_[static_cast<size_t>(phase)]->Observe(seconds);
  if (phase == StepPhase::kPrefill) {
    tokens_[0]->Increment(tokens);
  } else {
    batch_size_->Observe(tokens);
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  last_step_->Set(std::chrono::duration<double>(now).count());
}

void Metrics::OnPrefixCache(int64_t queries, int64_t hits) {
  if (vllm_ == nullptr) return;
  vllm_->prefix_queries->Increment(static_cast<double>(queries));
  vllm_->prefix_hits->Increment(static_cast<double>(hits));
}

void Metrics::OnOverrunRows(int32_t rows) { overrun_rows_->Increment(rows); }

void Metrics::OnPreemptions(int32_t count) {
  if (vllm_ != nullptr) vllm_->preemptions->Increment(count);
}

void Metrics::OnQueueTime(double seconds) {
  if (vllm_ != nullptr) vllm_->queue_time->Observe(seconds);
}

void Metrics::OnPromptTokens(int32_t count) {
  if (vllm_ != nullptr) vllm_->prompt_tokens->Increment(count);
}

void Metrics::OnRejected(std::string_view reason) {
  for (size_t i = 0; i < kRejectReasons.size(); ++i) {
    if (kRejectReasons[i] == reason) rejected_[i]->Increment();
  }
}

void Metrics::OnDeadlineExceeded(RequestStage stage) {
  deadline_exceeded_[static_cast<size_t>(stage)]->Increment();
}

void Metrics::OnCancelToFree(double seconds) { cancel_to_free_->Observe(seconds); }

void Metrics::OnFirstToken(double seconds) {
  if (vllm_ != nullptr) vllm_->time_to_first_token->Observe(seconds);
}

void Metrics::OnInterToken(double seconds) {
  if (vllm_ != nullptr) vllm_->inter_token_latency->Observe(seconds);
}

void Metrics::OnGeneratedTokens(int32_t count) {
  tokens_[1]->Increment(count);
  if (vllm_ != nullptr) vllm_->generation_tokens->Increment(count);
}

void Metrics::OnSequenceFinished(FinishReason reason) {
  if (vllm_ != nullptr) vllm_->success[static_cast<size_t>(reason)]->Increment();
}

void Metrics::OnRequestFinished(double seconds) {
  if (vllm_ != nullptr) vllm_->e2e_latency->Observe(seconds);
}

}  // namespace sirocco
