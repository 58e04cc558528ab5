// Whether calls are served: loading, ready, draining, stalled or failed. What the service, health
// and /readyz go by.
#pragma once

#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/served_model.h"

namespace sirocco {

// The loaded model, as calls need it. Both outlive the server.
struct LoadedModel {
  const ModelFacts* facts = nullptr;
  Engine* engine = nullptr;
};

// Any thread.
class ServingState {
 public:
  void SetReady(const ModelFacts& facts, Engine& engine);
  void SetDraining();
  void SetFault(absl::Status fault);
  void SetStalled(bool stalled);

  // UNAVAILABLE: loading or draining; INTERNAL: the device has failed. A stalled engine still
  // takes calls.
  absl::StatusOr<LoadedModel> Model() const;
  // The engine as soon as there is one, also while draining; else nullptr.
  Engine* engine() const;
  bool draining() const;

  // Why health is NOT_SERVING and /readyz is 503: "loading", "draining", "stalled", a fault; empty
  // when ready.
  std::string WhyNotReady() const;
  // Why "liveness" is NOT_SERVING and /healthz is 503: a fault; empty when alive.
  std::string WhyNotHealthy() const;

 private:
  mutable std::mutex mutex_;
  LoadedModel model_;
  bool draining_ = false;
  bool stalled_ = false;
  absl::Status fault_;
};

}  // namespace sirocco
