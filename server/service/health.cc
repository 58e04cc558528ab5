#include "server/service/health.h"

#include <optional>
#include <utility>

namespace sirocco {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// Writes its name's status whenever it is not the one written last.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  Watcher(HealthService& service, std::string name)
      : open_(service.open_), service_(service), name_(std::move(name)) {}

  // Looks again. Any thread. A status that is stale by the time it is written is followed by
  // another look.
  void Refresh() {
    const ServingStatus status = service_.StatusOf(name_);
    const bool ends = service_.shut_down();
    bool cancelled = false;
    bool write = false;
    {
      const std::lock_guard lock(mutex_);
      if (busy_) return;
      cancelled = cancelled_;
      write = !cancelled && written_ != status;
      if (!write && !cancelled && !ends) return;
      busy_ = true;  // after Finish for good
      written_ = status;
    }
    if (write) {
      response_.set_status(status);
      StartWrite(&response_);
    } else if (cancelled) {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled"));
    } else {
      Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server shuts down"));
    }
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      busy_ = false;
      if (!ok) cancelled_ = true;
    }
    Refresh();
  }

  void OnCancel() override {
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
    }
    Refresh();
  }

  void OnDone() override { service_.Forget(this); }

 private:
  const OpenCalls::Call open_;
  HealthService& service_;
  const std::string name_;
  HealthCheckResponse response_;  // of the thread that is busy
  std::mutex mutex_;              // the rest
  bool busy_ = false;             // a write is in flight, or the watch has ended
  bool cancelled_ = false;
  std::optional<ServingStatus> written_;
};

HealthService::HealthService(const std::vector<std::string>& names, OpenCalls& open) : open_(open) {
  for (const std::string& name : names) statuses_[name] = HealthCheckResponse::NOT_SERVING;
}

HealthService::ServingStatus HealthService::StatusOf(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto it = statuses_.find(name);
  return it == statuses_.end() ? HealthCheckResponse::SERVICE_UNKNOWN : it->second;
}

bool HealthService::shut_down() const {
  const std::lock_guard lock(mutex_);
  return shut_down_;
}

void HealthService::Forget(Watcher* watcher) {
  std::shared_ptr<Watcher> last;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  const auto it = watchers_.find(watcher);
  if (it == watchers_.end()) return;
  last = std::move(it->second);
  watchers_.erase(it);
}

std::vector<std::shared_ptr<HealthService::Watcher>> HealthService::Watchers() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Watcher>> out;
  for (const auto& [pointer, watcher] : watchers_) out.push_back(watcher);
  return out;
}

void HealthService::Set(std::string_view name, bool serving) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = statuses_.find(name);
    const ServingStatus status =
        serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
    if (it == statuses_.end() || it->second == status || shut_down_) return;
    it->second = status;
  }
  for (const auto& watcher : Watchers()) watcher->Refresh();
}

void HealthService::Shutdown() {
  {
    const std::lock_guard lock(mutex_);
    shut_down_ = true;
    for (auto& [name, status] : statuses_) status = HealthCheckResponse::NOT_SERVING;
  }
  for (const auto& watcher : Watchers()) watcher->Refresh();
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const ServingStatus status = StatusOf(request->service());
  if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
    reactor->Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such service"));
  } else {
    response->set_status(status);
    reactor->Finish(grpc::Status::OK);
  }
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext*, const HealthCheckRequest* request) {
  auto watcher = std::make_shared<Watcher>(*this, request->service());
  {
    const std::lock_guard lock(mutex_);
    watchers_[watcher.get()] = watcher;
  }
  watcher->Refresh();
  return watcher.get();
}

}  // namespace sirocco
