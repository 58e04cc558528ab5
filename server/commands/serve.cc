// sirocco serve: listens, loads, serves until a signal, drains.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/api/version.h"
#include "server/commands/commands.h"
#include "server/commands/config_flags.h"
#include "server/commands/report.h"
#include "server/commands/wakeups.h"
#include "server/log/log.h"
#include "server/metrics/http_server.h"
#include "server/metrics/metrics.h"
#include "server/model/load.h"
#include "server/security/security.h"
#include "server/service/server.h"

namespace sirocco {
namespace {

constexpr int kFailed = 1;
constexpr int kDeviceLost = 70;
// After a drain only responses that are being written are left.
constexpr std::chrono::seconds kLastWrites{2};
// And of the engine a step at most.
constexpr std::chrono::seconds kLastStep{5};

absl::Status Load(const Config& config, ServedModel& model, Metrics& metrics) {
  const ModelFacts& facts = model.facts;
  LogInfo("loading", {{"model", config.model},
                      {"backend", absl::StrCat(facts.backend, " (", facts.device, ")")},
                      {"dtype", facts.dtype},
                      {"mode", std::string(NameOf(facts.mode))}});
  ProgressBar bar;
  return StartServedModel(
      config, &metrics,
      [&](std::string_view phase, uint64_t done, uint64_t total) {
        bar.Update(phase, done, total);
      },
      model);
}

void LogReady(const ServedModel& model) {
  const ExecutorStats& stats = model.engine->executor().stats();
  LogInfo("ready", {{"name", model.facts.name},
                    {"load_seconds", absl::StrFormat("%.2f", model.load_seconds)},
                    {"pack_seconds", absl::StrFormat("%.3f", stats.pack_seconds)},
                    {"prepare_seconds", absl::StrFormat("%.3f", stats.prepare_seconds)},
                    {"capture_seconds", absl::StrFormat("%.3f", stats.capture_seconds)},
                    {"kv_seconds", absl::StrFormat("%.3f", stats.kv_seconds)}});
}

void LogDeaf() { LogError("no connection can come in any more: there were too many open files"); }

// Until kLoaded. Nothing runs yet that could be lost, and loading cannot be cut short: a signal
// ends the process.
void ListenWhileLoading(Wakeups& wakeups) {
  uint32_t events = 0;
  while ((events & Wakeups::kLoaded) == 0) {
    events = wakeups.Wait();
    if ((events & Wakeups::kSignal) != 0) {
      LogInfo("stopped while loading");
      std::_Exit(0);
    }
    if ((events & Wakeups::kDeaf) != 0) {
      LogDeaf();
      std::_Exit(kFailed);
    }
  }
}

// Lets what runs end, within the configured time. What ended the wait: kDrained or kFault, or
// kSignal where a second signal asks to stop at once.
uint32_t Drain(const Config& config, GrpcServer& server, Engine& engine, Wakeups& wakeups) {
  LogInfo("draining", {{"timeout_ms", config.drain_timeout.count()}});
  server.SetDraining();
  std::thread drain([&] {
    const bool all_ended = engine.Drain(config.drain_timeout);
    if (!all_ended) LogWarning("the drain timeout is over: ended what was left");
    wakeups.Post(Wakeups::kDrained);
  });
  const uint32_t events = wakeups.Wait();
  if ((events & Wakeups::kSignal) != 0) {
    drain.detach();  // the process ends now
  } else {
    drain.join();
  }
  return events;
}

// Ends the engine, whose calls have ended. A device that hangs in a step keeps the engine's thread:
// then the process ends without it.
void StopEngine(ServedModel& model, int exit_status) {
  std::future<void> stopped = std::async(std::launch::async, [&] { model.engine = nullptr; });
  if (stopped.wait_for(kLastStep) == std::future_status::ready) return;
  LogWarning("the device has not ended its step: left behind", {{"exit_status", exit_status}});
  std::_Exit(exit_status);
}

// From the loaded model to the exit status.
int ServeModel(const Config& config, ServedModel& model, Metrics& metrics, GrpcServer& server,
               const HttpServer& http, Wakeups& wakeups) {
  metrics.Attach(model);
  server.SetReady(model.facts, *model.engine);
  LogReady(model);
  std::printf("ready grpc=%s metrics=%s\n", server.address().c_str(), http.address().c_str());
  std::fflush(stdout);

  uint32_t events = wakeups.Wait();
  const bool deaf = (events & Wakeups::kDeaf) != 0;
  if (deaf) LogDeaf();
  if ((events & Wakeups::kFault) == 0) {
    events = Drain(config, server, *model.engine, wakeups);
    if ((events & Wakeups::kSignal) != 0) {
      LogWarning("stopped at once by a second signal");
      std::_Exit(130);
    }
  }
  // A fault ends a drain too, before it is told as an event.
  const absl::Status fault = model.engine->fault();
  if (!fault.ok()) LogError("serving ends", {{"error", std::string(fault.message())}});
  const int exit_status = !fault.ok() ? kDeviceLost : deaf ? kFailed : 0;
  server.Shutdown(kLastWrites);
  metrics.Detach();
  StopEngine(model, exit_status);
  LogInfo("stopped", {{"exit_status", exit_status}});
  return exit_status;
}

// A connection is a file, and the limit that shells set (1024) is nobody's choice for a server.
void RaiseFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// What the metrics port shows of itself; none: it is in the clear.
std::function<std::shared_ptr<SSL_CTX>()> MetricsTls(const Config& config,
                                                     const Security& security) {
  if (!config.metrics_tls) return nullptr;
  return [&security] { return security.tls()->context; };
}

int Serve(const ConfigFlags& flags) {
  absl::StatusOr<Config> config = flags.Load();
  if (!config.ok()) return Fail(config.status());
  ConfigureLog(config->log_level, config->log_format);
  RaiseFileLimit();
  Wakeups wakeups;
  if (!wakeups.status().ok()) return Fail(wakeups.status());
  Metrics metrics(config->vllm_metrics);
  absl::StatusOr<std::unique_ptr<Security>> security = Security::Open(*config, metrics);
  if (!security.ok()) return Fail(security.status());
  // Headers only: files and settings that cannot work end here with one line, before anyone waits.
  absl::StatusOr<std::unique_ptr<ServedModel>> model = OpenServedModel(*config);
  if (!model.ok()) return Fail(model.status());
  metrics.SetModel((*model)->facts);
  if (config->mode == Mode::kEager) {
    LogInfo(
        "mode eager replays no graphs; EOLE_TORCH_COMPILE=1 EOLE_COMPILE_MODE=0 (decoder_graph) "
        "replays each decode step as one");
  }

  GrpcServerOptions options;
  options.listen = config->listen;
  options.max_message_size = static_cast<int32_t>(config->max_message_size);
  options.max_streams_per_connection = static_cast<int32_t>(config->max_streams_per_connection);
  // Calls that are refused for a full queue are calls, too, until they are.
  options.max_calls =
      std::max(options.max_calls, 4 * (config->max_queue_size + config->max_batch_size));
  options.health_stall_timeout = config->health_stall_timeout;
  options.write_stall_timeout = config->write_stall_timeout;
  options.mode = config->mode;
  options.log_prompts = config->log_prompts;
  options.security = security->get();
  options.on_fault = [&](const absl::Status&) { wakeups.Post(Wakeups::kFault); };
  options.on_deaf = [&] { wakeups.Post(Wakeups::kDeaf); };
  absl::StatusOr<std::unique_ptr<GrpcServer>> server = GrpcServer::Start(options, metrics);
  if (!server.ok()) return Fail(server.status());
  absl::StatusOr<std::unique_ptr<HttpServer>> http = HttpServer::Start(
      config->metrics_listen, {.metrics = [&] { return metrics.Render(); },
                               .not_ready = [&] { return (*server)->WhyNotReady(); },
                               .not_healthy = [&] { return (*server)->WhyNotHealthy(); },
                               .tls = MetricsTls(*config, **security)});
  if (!http.ok()) return Fail(http.status());
  LogInfo(absl::StrCat("sirocco ", kVersion, " listens"),
          {{"grpc", (*server)->address()}, {"metrics", (*http)->address()}});

  // The first thread loads, whose heap has room for it (huge_page_heap.h); events are heard
  // meanwhile.
  std::thread listener([&] { ListenWhileLoading(wakeups); });
  const absl::Status loaded = Load(*config, **model, metrics);
  wakeups.Post(Wakeups::kLoaded);
  listener.join();
  if (!loaded.ok()) return Fail(loaded);
  return ServeModel(*config, **model, metrics, **server, **http, wakeups);
}

}  // namespace

void AddServe(CLI::App& app, int& exit_status) {
  CLI::App* command = app.add_subcommand(
      "serve",
      "Serve a model over gRPC. Prints one line on standard output when ready:\n"
      "  ready grpc=HOST:PORT metrics=HOST:PORT\n"
      "Each key below is also a line of the --config file and a variable SIROCCO_KEY.\n\n"
      "  sirocco serve --model MODEL.gguf\n"
      "  sirocco serve --config sirocco.yaml --listen 0.0.0.0:50051 --max-batch-size 256\n"
      "  sirocco serve --model FOLDER --tls-certificate CERT.pem --tls-key KEY.pem");
  auto flags = ConfigFlags::AddTo(*command);
  command->callback([flags, &exit_status] { exit_status = Serve(*flags); });
}

}  // namespace sirocco
