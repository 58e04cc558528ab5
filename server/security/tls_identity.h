// What the server shows of itself over TLS, and whom it lets in: certificate chain, private key,
// and the authorities that client certificates must come from. All is checked when it is read, so
// that a file that cannot serve is named at start, and a reload never breaks what runs.
#pragma once

#include <ctime>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

using SSL_CTX = struct ssl_ctx_st;

namespace sirocco {

struct TlsFiles {
  std::string certificate;  // PEM: the server's own first, then what leads to its authority
  std::string key;          // PEM, without a passphrase
  std::string client_ca;    // PEM; empty: clients need no certificate
};

// The files' text.
struct TlsText {
  std::string certificate, key, client_ca;
  bool operator==(const TlsText&) const = default;
};

struct TlsIdentity {
  TlsText pem;
  std::time_t not_before = 0, not_after = 0;  // of the server's own certificate
  // For a server of ours that asks for no client certificate. TLS 1.2 at least.
  std::shared_ptr<SSL_CTX> context;

  // Why clients will refuse it now ("has expired, on 2026-01-31T00:00:00Z"); empty: they will not.
  std::string WhyNotValid(std::time_t now) const;
};

// As ReadSmallFile; the keys are tls_certificate, tls_key and tls_client_ca.
absl::StatusOr<TlsText> ReadTlsText(const TlsFiles& files);

// INVALID_ARGUMENT names key and file, and what is wrong: no PEM, a key with a passphrase, one that
// does not belong to the certificate, one too weak for OpenSSL. `files`: for the messages.
absl::StatusOr<std::shared_ptr<const TlsIdentity>> MakeTlsIdentity(const TlsFiles& files,
                                                                   TlsText text);

}  // namespace sirocco
