// The operator's HTTP endpoint: /metrics, /healthz, /readyz, for GET and HEAD.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

class CivetServer;

namespace sirocco {

// Called from the endpoint's threads, several at once; they outlive the server.
struct HttpHandlers {
  std::function<std::string()> metrics;      // the page's text
  std::function<std::string()> not_ready;    // why not ("loading"); empty: ready
  std::function<std::string()> not_healthy;  // why not; empty: healthy
};

class HttpServer {
 public:
  // `address`: HOST:PORT, the host an IP address ("[::1]:9464" too) or "localhost"; port 0 picks
  // one. INVALID_ARGUMENT: no such form; UNAVAILABLE: cannot listen there (the address is named).
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address,
                                                           HttpHandlers handlers);
  // Waits for requests that are being answered.
  ~HttpServer();

  // HOST:PORT with the port that was bound.
  const std::string& address() const { return address_; }

 private:
  class Pages;
  HttpServer();

  std::string address_;
  std::unique_ptr<Pages> pages_;
  std::unique_ptr<CivetServer> server_;
};

}  // namespace sirocco
