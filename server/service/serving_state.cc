#include "server/service/serving_state.h"

#include <utility>

namespace sirocco {

void ServingState::SetReady(const ModelFacts& facts, Engine& engine) {
  const std::lock_guard lock(mutex_);
  model_ = {&facts, &engine};
}

void ServingState::SetDraining() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

void ServingState::SetFault(absl::Status fault) {
  const std::lock_guard lock(mutex_);
  if (fault_.ok()) fault_ = std::move(fault);
}

void ServingState::SetStalled(bool stalled) {
  const std::lock_guard lock(mutex_);
  stalled_ = stalled;
}

absl::StatusOr<LoadedModel> ServingState::Model() const {
  const std::lock_guard lock(mutex_);
  if (!fault_.ok()) return absl::InternalError(fault_.message());
  if (draining_) return absl::UnavailableError("the server is draining");
  if (model_.engine == nullptr) return absl::UnavailableError("the model is loading");
  return model_;
}

Engine* ServingState::engine() const {
  const std::lock_guard lock(mutex_);
  return model_.engine;
}

bool ServingState::draining() const {
  const std::lock_guard lock(mutex_);
  return draining_;
}

std::string ServingState::WhyNotReady() const {
  const std::lock_guard lock(mutex_);
  if (!fault_.ok()) return std::string(fault_.message());
  if (draining_) return "draining";
  if (model_.engine == nullptr) return "loading";
  return stalled_ ? "stalled" : "";
}

std::string ServingState::WhyNotHealthy() const {
  const std::lock_guard lock(mutex_);
  return std::string(fault_.message());
}

}  // namespace sirocco
