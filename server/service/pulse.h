// Whether the server's own threads get round to their work: a call of the server to itself, which
// goes the way of all calls but for the network.
//
// What a client does not take and what the server has no time to notice as taken look the same from
// inside. Where a machine is short of processors, or has stopped the process for a while, the
// server's own delay may be seconds; the beats are as late then, and time counts by beats.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>

#include "grpc/health/v1/health.grpc.pb.h"

namespace sirocco {

class Pulse {
 public:
  // The server serves HealthService, and ends no sooner than this.
  explicit Pulse(grpc::Server& server);
  // Waits for the beat that is under way.
  ~Pulse();

  // Sends a beat, unless one is under way. True: one has come back since the last that was true.
  // One thread; never waits.
  bool Beat();

 private:
  const std::unique_ptr<grpc::health::v1::Health::Stub> stub_;
  // Of the beat that is under way, or was.
  std::optional<grpc::ClientContext> context_;
  grpc::health::v1::HealthCheckRequest request_;
  grpc::health::v1::HealthCheckResponse response_;

  std::mutex mutex_;  // the rest
  std::condition_variable ended_;
  bool under_way_ = false;
  bool came_back_ = false;
};

}  // namespace sirocco
