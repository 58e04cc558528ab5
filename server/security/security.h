// Who may connect and call: the TLS identity and the bearer tokens that hold now. Their files are
// looked at once a second, and what has changed is taken if it can serve; what cannot is told in
// the log and the metrics, and the former stays. Connections and calls that are there already go
// on.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "server/config/config.h"
#include "server/metrics/metrics.h"
#include "server/security/tls_identity.h"
#include "server/security/tokens.h"

namespace sirocco {

class Security {
 public:
  // Of tls_certificate, tls_key, tls_client_ca and auth_token_file. NOT_FOUND, PERMISSION_DENIED or
  // INVALID_ARGUMENT in one line: the key, the file, what is wrong. A certificate that is not valid
  // now is only warned of: clients decide that. `interval`: how often files are looked at.
  // `metrics` outlives this.
  static absl::StatusOr<std::unique_ptr<Security>> Open(
      const Config& config, Metrics& metrics, std::chrono::milliseconds interval = kInterval);
  ~Security();

  // What holds now; nullptr where there is none, then and for good. Any thread.
  std::shared_ptr<const TlsIdentity> tls() const;
  std::shared_ptr<const Tokens> tokens() const;

 private:
  static constexpr std::chrono::milliseconds kInterval{1'000};
  Security(const Config& config, Metrics& metrics, std::chrono::milliseconds interval);
  // Whether it is another than before.
  absl::StatusOr<bool> LoadTls();
  absl::StatusOr<bool> LoadTokens();
  // Tells what is new: another identity or other tokens, or another error than the last one.
  void TellReload(CredentialKind kind, const absl::StatusOr<bool>& changed,
                  std::string& last_error);
  void Watch();

  const TlsFiles tls_files_;      // certificate empty: no TLS
  const std::string token_file_;  // empty: no tokens
  const std::chrono::milliseconds interval_;
  Metrics& metrics_;

  mutable std::mutex mutex_;  // the rest, but for what is the watch thread's
  std::condition_variable wake_;
  bool stop_ = false;
  std::shared_ptr<const TlsIdentity> tls_;
  std::shared_ptr<const Tokens> tokens_;

  // The watch thread's, after Open.
  TlsText tls_text_;
  std::string token_text_;
  std::string tls_error_, token_error_;  // the last ones; empty: none
  std::thread watch_;
};

}  // namespace sirocco
