// A running server as the target of a load: GenerateStream over many connections.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/bench/load/load_world.h"
#include "server/security/client_channel.h"
#include "sirocco/v1/inference.grpc.pb.h"

namespace sirocco {

class GrpcTarget final : public LoadTarget {
 public:
  struct Options {
    ClientOptions server;
    int32_t connections = 1;  // TCP; requests take them in turn
    double timeout = 0;  // seconds of a request, from the time it was meant to be sent; 0: none
    uint64_t seed = 1;   // of the prompts
  };

  // Returns when every connection stands and the server has said what it serves. Errors as of
  // ClientChannel::Open; else UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<GrpcTarget>> Connect(const Options& options,
                                                             LoadClock& clock);

  const v1::Model& model() const { return model_; }
  // From now on prompts share nothing with those before, not in the server's cache either.
  void ForgetPrompts();

  // Greedy, without end tokens, random ids.
  void Send(const LoadRequest& request, AnswerListener& listener) override;

 private:
  GrpcTarget(const Options& options, ClientChannel channel, LoadClock& clock);

  absl::Status ConnectAll();
  v1::GenerateRequest Make(const LoadRequest& request) const;

  const Options options_;
  const ClientChannel channel_;
  LoadClock& clock_;
  std::vector<std::unique_ptr<v1::Inference::Stub>> stubs_;  // a connection each
  v1::Model model_;
  std::string salt_;
};

}  // namespace sirocco
