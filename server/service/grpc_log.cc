#include "server/service/grpc_log.h"

#include <grpc/support/log.h>

#include <array>
#include <atomic>
#include <mutex>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/log/log.h"

namespace sirocco {
namespace {

struct State {
  std::mutex mutex;
  std::optional<std::string> kept;  // while a start keeps them back
  std::atomic<int> failed_accepts{0}, failed_handshakes{0};
};

State& Shared() {
  static auto* const state = new State();  // gRPC's threads may log until the process ends
  return *state;
}

void OnMessage(gpr_log_func_args* args) {
  // What it calls information is for those who develop gRPC.
  if (args->severity != GPR_LOG_SEVERITY_ERROR) return;
  State& state = Shared();
  if (absl::StrContains(args->message, "Failed accept")) ++state.failed_accepts;
  if (absl::StrContains(args->message, "Handshake failed")) ++state.failed_handshakes;
  {
    const std::lock_guard lock(state.mutex);
    if (state.kept) {
      absl::StrAppend(&*state.kept, args->message, "\n");
      return;
    }
  }
  LogWarning("gRPC", {{"says", args->message}});
}

}  // namespace

void RouteGrpcLog() { gpr_set_log_function(OnMessage); }

GrpcStartLog::GrpcStartLog() {
  const std::lock_guard lock(Shared().mutex);
  Shared().kept.emplace();
}

GrpcStartLog::~GrpcStartLog() {
  const std::lock_guard lock(Shared().mutex);
  Shared().kept.reset();
}

std::string GrpcStartLog::Reason() const {
  static constexpr std::array<const char*, 4> kReasons = {
      "Address already in use", "Permission denied", "Cannot assign requested address",
      "Name or service not known"};
  const std::lock_guard lock(Shared().mutex);
  for (const char* reason : kReasons) {
    if (absl::StrContains(*Shared().kept, reason)) return reason;
  }
  return "it is no HOST:PORT of this machine";
}

int FailedAccepts() { return Shared().failed_accepts; }

int FailedHandshakes() { return Shared().failed_handshakes; }

}  // namespace sirocco
