#include "server/security/security.h"

#include <sys/stat.h>

#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/log/log.h"
#include "server/security/small_file.h"

namespace sirocco {
namespace {

void WarnOfReaders(std::string_view key, const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0) {
    LogWarning("a secret that every user of this machine can read",
               {{"key", std::string(key)}, {"file", path}});
  }
}

}  // namespace

Security::Security(const Config& config, Metrics& metrics, std::chrono::milliseconds interval)
    : tls_files_{config.tls_certificate, config.tls_key, config.tls_client_ca},
      token_file_(config.auth_token_file),
      interval_(interval),
      metrics_(metrics) {}

absl::StatusOr<std::unique_ptr<Security>> Security::Open(const Config& config, Metrics& metrics,
                                                         std::chrono::milliseconds interval) {
  std::unique_ptr<Security> out(new Security(config, metrics, interval));
  const bool has_tls = !config.tls_certificate.empty();
  const bool has_tokens = !config.auth_token_file.empty();
  if (has_tls) {
    if (const auto loaded = out->LoadTls(); !loaded.ok()) return loaded.status();
    WarnOfReaders("tls_key", config.tls_key);
  }
  if (has_tokens) {
    if (const auto loaded = out->LoadTokens(); !loaded.ok()) return loaded.status();
    WarnOfReaders("auth_token_file", config.auth_token_file);
    if (!has_tls) {
      LogWarning(
          "auth_token_file without tls_certificate: whoever sees the network sees the tokens");
    }
  }
  if (has_tls || has_tokens) out->watch_ = std::thread([raw = out.get()] { raw->Watch(); });
  return out;
}

Security::~Security() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (watch_.joinable()) watch_.join();
}

std::shared_ptr<const TlsIdentity> Security::tls() const {
  const std::lock_guard lock(mutex_);
  return tls_;
}

std::shared_ptr<const Tokens> Security::tokens() const {
  const std::lock_guard lock(mutex_);
  return tokens_;
}

absl::StatusOr<bool> Security::LoadTls() {
  auto text = ReadTlsText(tls_files_);
  if (!text.ok()) return text.status();
  if (*text == tls_text_) return false;
  auto identity = MakeTlsIdentity(tls_files_, *text);
  if (!identity.ok()) return identity.status();
  tls_text_ = *std::move(text);
  metrics_.SetCertificateExpiry(static_cast<double>((*identity)->not_after));
  if (const std::string why = (*identity)->WhyNotValid(std::time(nullptr)); !why.empty()) {
    LogWarning(absl::StrCat("the certificate ", why, ": clients will refuse it"),
               {{"tls_certificate", tls_files_.certificate}});
  }
  const std::lock_guard lock(mutex_);
  tls_ = *std::move(identity);
  return true;
}

absl::StatusOr<bool> Security::LoadTokens() {
  auto text = ReadSmallFile("auth_token_file", token_file_);
  if (!text.ok()) return text.status();
  if (*text == token_text_) return false;
  auto tokens = Tokens::Parse(*text);
  if (!tokens.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("auth_token_file: ", token_file_, ": ", tokens.status().message()));
  }
  token_text_ = *std::move(text);
  const std::lock_guard lock(mutex_);
  tokens_ = std::make_shared<const Tokens>(*std::move(tokens));
  return true;
}

void Security::TellReload(CredentialKind kind, const absl::StatusOr<bool>& changed,
                          std::string& last_error) {
  const std::string error(changed.status().message());
  if (!changed.ok() && error != last_error) {
    metrics_.OnReload(kind, false);
    LogError("a changed file cannot serve; what was before stays", {{"error", error}});
  } else if (changed.ok() && *changed) {
    metrics_.OnReload(kind, true);
    LogInfo("reloaded", {{"what", std::string(NameOf(kind))}});
  }
  last_error = error;
}

void Security::Watch() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, interval_, [this] { return stop_; })) {
    lock.unlock();
    if (!tls_files_.certificate.empty()) {
      TellReload(CredentialKind::kTls, LoadTls(), tls_error_);
    }
    if (!token_file_.empty()) {
      TellReload(CredentialKind::kTokens, LoadTokens(), token_error_);
    }
    lock.lock();
  }
}

}  // namespace sirocco
