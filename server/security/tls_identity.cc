#include "server/security/tls_identity.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/security/small_file.h"

namespace sirocco {
namespace {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

Bio Over(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

absl::Status Bad(std::string_view key, const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(key), ": ", path, ": ", what));
}

// Empties OpenSSL's list of errors and returns the first one's reason.
std::string Reason() {
  const char* reason = ERR_reason_error_string(ERR_peek_error());
  const std::string text = reason == nullptr ? "unknown error" : reason;
  ERR_clear_error();
  return text;
}

absl::StatusOr<std::vector<Certificate>> ParseCertificates(std::string_view key,
                                                           const std::string& path,
                                                           const std::string& text) {
  ERR_clear_error();
  const Bio bio = Over(text);
  std::vector<Certificate> out;
  while (Certificate one{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
    out.push_back(std::move(one));
  }
  // The end of the text is an error too, of its own kind.
  const bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  const std::string reason = Reason();
  if (!ended) {
    return Bad(key, path, absl::StrCat("certificate ", out.size() + 1, " is damaged: ", reason));
  }
  if (out.empty())
    return Bad(key, path, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)");
  return out;
}

// Without it OpenSSL would ask the terminal for a passphrase.
int NoPassphrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

absl::StatusOr<Key> ParseKey(const std::string& path, const std::string& text) {
  ERR_clear_error();
  const Bio bio = Over(text);
  bool encrypted = false;
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, &encrypted));
  if (key != nullptr) return key;
  const std::string reason = Reason();
  if (encrypted) return Bad("tls_key", path, "is encrypted; a key without a passphrase is needed");
  return Bad("tls_key", path, absl::StrCat("holds no private key in PEM: ", reason));
}

std::time_t TimeOf(const ASN1_TIME* time) {
  std::tm parts = {};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? timegm(&parts) : 0;
}

std::string TimeText(std::time_t time) {
  std::tm parts = {};
  gmtime_r(&time, &parts);
  char text[40];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

absl::StatusOr<std::shared_ptr<SSL_CTX>> MakeContext(const TlsFiles& files,
                                                     std::vector<Certificate>& chain,
                                                     const Key& key) {
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (context == nullptr) return absl::InternalError(absl::StrCat("TLS: ", Reason()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  if (SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1) {
    return Bad("tls_certificate", files.certificate, absl::StrCat("cannot be used: ", Reason()));
  }
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) != 1) {
      return Bad("tls_certificate", files.certificate,
                 absl::StrCat("certificate ", i + 1, " cannot be used: ", Reason()));
    }
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1) {
    return Bad("tls_key", files.key, absl::StrCat("cannot be used: ", Reason()));
  }
  return context;
}

}  // namespace

std::string TlsIdentity::WhyNotValid(std::time_t now) const {
  if (now > not_after) return absl::StrCat("has expired, on ", TimeText(not_after));
  if (now < not_before) return absl::StrCat("is not valid before ", TimeText(not_before));
  return "";
}

absl::StatusOr<TlsText> ReadTlsText(const TlsFiles& files) {
  TlsText text;
  auto certificate = ReadSmallFile("tls_certificate", files.certificate);
  if (!certificate.ok()) return certificate.status();
  text.certificate = *std::move(certificate);
  auto key = ReadSmallFile("tls_key", files.key);
  if (!key.ok()) return key.status();
  text.key = *std::move(key);
  if (files.client_ca.empty()) return text;
  auto client_ca = ReadSmallFile("tls_client_ca", files.client_ca);
  if (!client_ca.ok()) return client_ca.status();
  text.client_ca = *std::move(client_ca);
  return text;
}

absl::StatusOr<std::shared_ptr<const TlsIdentity>> MakeTlsIdentity(const TlsFiles& files,
                                                                   TlsText text) {
  auto chain = ParseCertificates("tls_certificate", files.certificate, text.certificate);
  if (!chain.ok()) return chain.status();
  auto key = ParseKey(files.key, text.key);
  if (!key.ok()) return key.status();
  ERR_clear_error();
  if (X509_check_private_key(chain->front().get(), key->get()) != 1) {
    ERR_clear_error();
    return Bad("tls_key", files.key,
               absl::StrCat("does not belong to the certificate ", files.certificate));
  }
  if (!files.client_ca.empty()) {
    const auto authorities = ParseCertificates("tls_client_ca", files.client_ca, text.client_ca);
    if (!authorities.ok()) return authorities.status();
  }
  auto context = MakeContext(files, *chain, *key);
  if (!context.ok()) return context.status();
  auto identity = std::make_shared<TlsIdentity>();
  identity->not_before = TimeOf(X509_get0_notBefore(chain->front().get()));
  identity->not_after = TimeOf(X509_get0_notAfter(chain->front().get()));
  identity->pem = std::move(text);
  identity->context = *std::move(context);
  return identity;
}

}  // namespace sirocco
