// What the commands that call a server share: the connection, the options of a generate call, and
// how its answer is streamed to a terminal.
#pragma once

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/security/client_channel.h"
#include "sirocco/v1/inference.grpc.pb.h"

namespace sirocco {

// Options of `generate` and `chat`; unset ones are left to the server.
struct GenerateOptions {
  ClientOptions server;
  std::string system;
  double timeout_seconds = 0;  // 0: none
  std::optional<uint32_t> max_new_tokens;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::optional<uint32_t> num_beams;
  std::optional<float> length_penalty;
  bool early_stopping = false;

  void AddTo(CLI::App& command);
  // Everything but the input.
  v1::GenerateRequest ToRequest() const;
};

// The flags that say how a server is reached.
void AddClientFlags(CLI::App& command, ClientOptions& options);

// A server and how it is called; messages of any size that it sends.
class Client {
 public:
  // As ClientChannel::Open.
  static absl::StatusOr<Client> Open(const ClientOptions& options);

  v1::Inference::Stub& stub() const { return *stub_; }
  // Of a call with a deadline in so many seconds; 0: none.
  std::unique_ptr<grpc::ClientContext> NewContext(double timeout_seconds = 0) const;

 private:
  explicit Client(ClientChannel channel);

  ClientChannel channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

struct StreamOutcome {
  grpc::Status status;
  std::string text;
  uint32_t completion_tokens = 0;
  double first_token_seconds = 0;
  double total_seconds = 0;
};

// Calls GenerateStream and hands each piece of text to `show` as it comes.
StreamOutcome StreamAnswer(v1::Inference::Stub& stub, grpc::ClientContext& context,
                           const v1::GenerateRequest& request,
                           const std::function<void(const std::string& text)>& show);

// "sirocco: ..." for a call that failed, with what to do next where that is known; returns 1.
int FailCall(const std::string& address, const grpc::Status& status);

}  // namespace sirocco
