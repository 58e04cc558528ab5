// The operator's HTTP endpoint: /metrics, /healthz, /readyz, for GET and HEAD, in the clear or over
// TLS.
//
// One thread serves all connections, a request each, and waits for none of them: those who are slow
// keep nobody out, and where there are too many the oldest gives way.
//
// Why no library serves it: of those in Debian 12, Civetweb 1.15 finds no OpenSSL 3 at run time,
// and cpp-httplib 0.11.4 gives each connection one of 8 threads for as long as a byte comes every 5
// s. With 8 clients that sent a byte a second a scrape got no answer in 8 s; a client that sent 200
// MB of header lines had it hold 400 MB (it bounds a line, not their number); and its server's
// certificate cannot be changed while it runs. So it would pass neither SlowClientsKeepNobodyOut
// nor the tests of rotation.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "server/metrics/http_connection.h"

namespace sirocco {

// Called from the endpoint's thread; they outlive the server.
struct HttpHandlers {
  std::function<std::string()> metrics;      // the page's text
  std::function<std::string()> not_ready;    // why not ("loading"); empty: ready
  std::function<std::string()> not_healthy;  // why not; empty: healthy
  // What each new connection is served by; none: in the clear.
  std::function<std::shared_ptr<SSL_CTX>()> tls = nullptr;
};

class HttpServer {
 public:
  // `address`: HOST:PORT, the host an IP address ("[::1]:9464" too) or "localhost"; port 0 picks
  // one. INVALID_ARGUMENT: no such form; UNAVAILABLE: cannot listen there (the address is named).
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address,
                                                           HttpHandlers handlers);
  // Breaks off what is being answered.
  ~HttpServer();

  // HOST:PORT with the port that was bound.
  const std::string& address() const { return address_; }

 private:
  using Clock = HttpConnection::Clock;

  explicit HttpServer(HttpHandlers handlers) : handlers_(std::move(handlers)) {}
  absl::Status Listen(const std::string& address);
  void Run();
  void Accept();
  // How long poll() may wait, in milliseconds; -1: for ever.
  int Patience(Clock::time_point now) const;
  std::string Answer(std::string_view head) const;

  const HttpHandlers handlers_;
  std::string address_;
  int listener_ = -1;
  int stop_ = -1;  // an eventfd: readable when the thread is to end

  // The thread's.
  std::list<HttpConnection> connections_;  // the oldest first
  Clock::time_point accept_from_;          // not before: there were no files left
  std::thread thread_;
};

}  // namespace sirocco
