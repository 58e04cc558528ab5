#include "server/security/client_channel.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/process/descriptors.h"
#include "server/security/small_file.h"
#include "server/security/tokens.h"

namespace sirocco {
namespace {

absl::Status ReadInto(const char* flag, const std::string& path, std::string& out) {
  if (path.empty()) return absl::OkStatus();
  auto text = ReadSmallFile(flag, path);
  if (!text.ok()) return text.status();
  out = *std::move(text);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ClientChannel> ClientChannel::Open(const ClientOptions& options) {
  if (absl::Status status = NeedDescriptors(kGrpcDescriptors); !status.ok()) return status;
  ClientChannel out;
  out.address_ = options.address;
  if (options.certificate.empty() != options.key.empty()) {
    return absl::InvalidArgumentError("--client-certificate and --client-key go together");
  }
  grpc::SslCredentialsOptions ssl;
  for (const auto& [flag, path, text] :
       {std::tuple{"--ca", &options.ca, &ssl.pem_root_certs},
        std::tuple{"--client-certificate", &options.certificate, &ssl.pem_cert_chain},
        std::tuple{"--client-key", &options.key, &ssl.pem_private_key}}) {
    if (absl::Status status = ReadInto(flag, *path, *text); !status.ok()) return status;
  }
  const bool tls = options.tls || !options.ca.empty() || !options.certificate.empty();
  out.credentials_ = tls ? grpc::SslCredentials(ssl) : grpc::InsecureChannelCredentials();
  std::string tokens;
  if (absl::Status status = ReadInto("--token-file", options.token_file, tokens); !status.ok()) {
    return status;
  }
  if (!options.token_file.empty()) {
    auto token = FirstToken(tokens);
    if (!token.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--token-file: ", options.token_file, ": ", token.status().message()));
    }
    out.authorization_ = absl::StrCat("Bearer ", *token);
  }
  return out;
}

std::shared_ptr<grpc::Channel> ClientChannel::Connect(
    const grpc::ChannelArguments& arguments) const {
  return grpc::CreateCustomChannel(address_, credentials_, arguments);
}

void ClientChannel::Authorize(grpc::ClientContext& context) const {
  if (!authorization_.empty()) context.AddMetadata("authorization", authorization_);
}

}  // namespace sirocco
