// grpc.health.v1.Health over the callback API.
//
// gRPC's own implementation reports SERVING from the moment the server listens until it is told
// otherwise, and its watches hold up a shutdown until the deadline; this one does neither.
#pragma once

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "server/service/open_calls.h"

namespace sirocco {

// Any thread.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  using ServingStatus = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // All of `names` start as NOT_SERVING; there are no others. Watches are counted in `open`.
  HealthService(const std::vector<std::string>& names, OpenCalls& open);

  void Set(std::string_view name, bool serving);
  // All names NOT_SERVING, for good; watches end with UNAVAILABLE after they have said so.
  void Shutdown();

  // NOT_FOUND: no such name.
  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  // SERVICE_UNKNOWN: no such name.
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;

  ServingStatus StatusOf(const std::string& name) const;
  bool shut_down() const;
  void Forget(Watcher* watcher);
  std::vector<std::shared_ptr<Watcher>> Watchers() const;

  OpenCalls& open_;
  mutable std::mutex mutex_;
  std::map<std::string, ServingStatus, std::less<>> statuses_;
  std::map<Watcher*, std::shared_ptr<Watcher>> watchers_;
  bool shut_down_ = false;
};

}  // namespace sirocco
