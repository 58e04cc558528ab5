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

#include "sirocco/v1/inference.grpc.pb.h"

namespace sirocco {

// Options of `generate` and `chat`; unset ones are left to the server.
struct GenerateOptions {
  std::string address = "127.0.0.1:50051";
  std::string system;
  double timeout_seconds = 0;  // 0: none
  std::optional<uint32_t> max_new_tokens;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;

  void AddTo(CLI::App& command);
  // Everything but the input.
  v1::GenerateRequest ToRequest() const;
};

// A plaintext channel and a stub; messages of any size the server sends.
std::unique_ptr<v1::Inference::Stub> Connect(const std::string& address);

// A call's context with the deadline of the options.
std::unique_ptr<grpc::ClientContext> NewContext(const GenerateOptions& options);

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
