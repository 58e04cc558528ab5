#include "server/service/credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>

#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/api/errors.h"
#include "server/log/log.h"

namespace sirocco {
namespace {

constexpr std::string_view kHealth = "/grpc.health.v1.Health/";
constexpr std::string_view kInference = "/sirocco.v1.Inference/";
constexpr size_t kMaxLoggedPath = 128;

std::string_view View(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

Denial DenialOf(TokenRefusal refusal) {
  switch (refusal) {
    case TokenRefusal::kUnknown:
      return Denial::kTokenUnknown;
    case TokenRefusal::kForbidden:
      return Denial::kMethodForbidden;
    default:
      return Denial::kTokenMissing;
  }
}

// Gives gRPC the identity of the moment, if it has not got it yet.
class IdentitySource {
 public:
  explicit IdentitySource(const Security& security) : security_(security) {}

  // gRPC's callback; `source` is an IdentitySource.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* source, grpc_ssl_server_certificate_config** config) {
    return static_cast<IdentitySource*>(source)->FetchNext(config);
  }

 private:
  grpc_ssl_certificate_config_reload_status FetchNext(grpc_ssl_server_certificate_config** config) {
    const std::lock_guard lock(mutex_);
    auto identity = security_.tls();
    if (identity == given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const TlsText& pem = identity->pem;
    const grpc_ssl_pem_key_cert_pair pair = {pem.key.c_str(), pem.certificate.c_str()};
    // gRPC wants authorities also where it asks clients for no certificate, and then uses them for
    // nothing.
    const std::string& authorities = pem.client_ca.empty() ? pem.certificate : pem.client_ca;
    *config = grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
    given_ = std::move(identity);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const Security& security_;
  std::mutex mutex_;  // given_
  std::shared_ptr<const TlsIdentity> given_;
};

// Looks at each call's metadata. Owned by gRPC's credentials.
class TokenGate {
 public:
  TokenGate(const Security& security, Metrics& metrics) : security_(security), metrics_(metrics) {}

  static grpc_auth_metadata_processor ForGrpc(const Security& security, Metrics& metrics) {
    return {Process, [](void* gate) { delete static_cast<TokenGate*>(gate); },
            new TokenGate(security, metrics)};
  }

 private:
  static void Process(void* gate, grpc_auth_context*, const grpc_metadata* metadata, size_t count,
                      grpc_process_auth_metadata_done_cb done, void* user_data) {
    std::string_view path;
    std::vector<std::string_view> authorization;
    for (size_t i = 0; i < count; ++i) {
      const std::string_view key = View(metadata[i].key);
      if (key == ":path") path = View(metadata[i].value);
      if (key == "authorization") authorization.push_back(View(metadata[i].value));
    }
    const absl::Status status = static_cast<TokenGate*>(gate)->Check(path, authorization);
    done(user_data, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.code()),
         std::string(status.message()).c_str());
  }

  absl::Status Check(std::string_view path, const std::vector<std::string_view>& authorization) {
    if (path.substr(0, kHealth.size()) == kHealth) return absl::OkStatus();
    const std::string_view method = path.substr(path.rfind('/') + 1);
    const TokenVerdict verdict = security_.tokens()->Check(method, authorization);
    if (!verdict.status.ok()) Tell(path, method, verdict);
    return verdict.status;
  }

  void Tell(std::string_view path, std::string_view method, const TokenVerdict& verdict) {
    metrics_.OnDenied(DenialOf(verdict.refusal));
    const bool ours = path.substr(0, kInference.size()) == kInference;
    for (int i = 0; ours && i < kRpcMethods; ++i) {
      const auto known = static_cast<RpcMethod>(i);
      if (method == NameOf(known)) metrics_.OnCall(known, verdict.status.code());
    }
    LogInfo("request", {{"method", Shortened(ours ? method : path, kMaxLoggedPath)},
                        {"status", absl::StatusCodeToString(verdict.status.code())},
                        {"error", std::string(verdict.status.message())}});
  }

  const Security& security_;
  Metrics& metrics_;
};

class Credentials final : public grpc::ServerCredentials {
 public:
  Credentials(const Security& security, Metrics& metrics) {
    const auto identity = security.tls();
    if (identity == nullptr) {
      credentials_ = grpc_insecure_server_credentials_create();
    } else {
      source_.emplace(security);
      credentials_ = grpc_ssl_server_credentials_create_with_options(
          grpc_ssl_server_credentials_create_options_using_config_fetcher(
              identity->pem.client_ca.empty()
                  ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                  : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY,
              IdentitySource::Fetch, &*source_));
    }
    if (security.tokens() != nullptr) {
      grpc_server_credentials_set_auth_metadata_processor(credentials_,
                                                          TokenGate::ForGrpc(security, metrics));
    }
  }
  ~Credentials() override { grpc_server_credentials_release(credentials_); }

  // Ours is set already.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  std::optional<IdentitySource> source_;
  grpc_server_credentials* credentials_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const Security& security,
                                                               Metrics& metrics) {
  if (security.tls() == nullptr && security.tokens() == nullptr) {
    return grpc::InsecureServerCredentials();
  }
  return std::make_shared<Credentials>(security, metrics);
}

}  // namespace sirocco
