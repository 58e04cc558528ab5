// How the commands that call a server reach it: in the clear or by TLS, with a certificate and a
// token of their own where the server asks for them.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace sirocco {

struct ClientOptions {
  std::string address = "127.0.0.1:50051";
  bool tls = false;  // by the machine's authorities; so with any of the next three
  std::string ca;    // PEM file: the authorities that the server's certificate must come from
  std::string certificate, key;  // PEM files: the client's own
  std::string token_file;        // its first token is sent
};

class ClientChannel {
 public:
  // Reads the files. NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT: one of them is named.
  // RESOURCE_EXHAUSTED: too few files may be open.
  static absl::StatusOr<ClientChannel> Open(const ClientOptions& options);

  // A connection of its own for each set of arguments.
  std::shared_ptr<grpc::Channel> Connect(const grpc::ChannelArguments& arguments) const;
  // Puts the token into a call's metadata.
  void Authorize(grpc::ClientContext& context) const;

 private:
  std::string address_;
  std::shared_ptr<grpc::ChannelCredentials> credentials_;
  std::string authorization_;  // empty: none
};

}  // namespace sirocco
