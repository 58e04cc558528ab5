#include "server/metrics/http_server.h"

#include <CivetServer.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

struct HostPort {
  std::string host;
  uint16_t port = 0;
};

absl::StatusOr<HostPort> SplitAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  HostPort out;
  bool valid = colon != std::string::npos && colon > 0;
  if (valid) {
    out.host = address.substr(0, colon);
    const char* end = address.data() + address.size();
    const auto [rest, error] = std::from_chars(address.data() + colon + 1, end, out.port);
    // Civetweb would take a comma as the start of another address.
    valid = error == std::errc() && rest == end && out.host.find(',') == std::string::npos;
  }
  if (!valid) {
    return absl::InvalidArgumentError(
        absl::StrCat("the metrics address \"", address, "\" is not HOST:PORT"));
  }
  return out;
}

struct Page {
  int status;
  const char* type;
  std::string body;
};

constexpr char kPlain[] = "text/plain; charset=utf-8";

Page StatePage(const std::string& why_not) {
  if (why_not.empty()) return {200, kPlain, "ok\n"};
  return {503, kPlain, why_not + "\n"};
}

// What civetweb says while it starts, so that an error can give the reason: it binds on the thread
// that starts it.
thread_local std::string* start_log = nullptr;

int CollectLog(const mg_connection*, const char* message) {
  if (start_log != nullptr && start_log->size() < 1000) {
    absl::StrAppend(start_log, start_log->empty() ? "" : "; ", message);
  }
  return 1;  // handled: nothing is written to a file
}

}  // namespace

class HttpServer::Pages : public CivetHandler {
 public:
  explicit Pages(HttpHandlers handlers) : handlers_(std::move(handlers)) {}

  bool handleGet(CivetServer*, mg_connection* connection) override {
    return Answer(connection, true);
  }
  bool handleHead(CivetServer*, mg_connection* connection) override {
    return Answer(connection, false);
  }

 private:
  Page Make(std::string_view path) const {
    if (path == "/metrics") {
      return {200, "text/plain; version=0.0.4; charset=utf-8", handlers_.metrics()};
    }
    if (path == "/readyz") return StatePage(handlers_.not_ready());
    if (path == "/healthz") return StatePage(handlers_.not_healthy());
    return {404, kPlain, "not found; there are /metrics, /healthz and /readyz\n"};
  }

  bool Answer(mg_connection* connection, bool with_body) const {
    const char* path = mg_get_request_info(connection)->local_uri;
    const Page page = Make(path == nullptr ? "" : path);
    mg_response_header_start(connection, page.status);
    mg_response_header_add(connection, "Content-Type", page.type, -1);
    mg_response_header_add(connection, "Content-Length", std::to_string(page.body.size()).c_str(),
                           -1);
    mg_response_header_add(connection, "Cache-Control", "no-store", -1);
    mg_response_header_send(connection);
    if (with_body) mg_write(connection, page.body.data(), page.body.size());
    return true;
  }

  const HttpHandlers handlers_;
};

HttpServer::HttpServer() = default;

HttpServer::~HttpServer() {
  if (server_ == nullptr) return;
  // Civetweb looks whether it should stop only every two seconds, or when somebody connects.
  std::atomic<bool> stopped = false;
  std::thread stop([&] {
    server_->close();
    stopped = true;
  });
  const size_t colon = address_.rfind(':');
  const std::string host = address_.substr(0, colon);
  const int port = std::stoi(address_.substr(colon + 1));
  while (!stopped) {
    char error[100];
    mg_connection* connection = mg_connect_client(host.c_str(), port, 0, error, sizeof(error));
    if (connection != nullptr) mg_close_connection(connection);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  stop.join();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address,
                                                              HttpHandlers handlers) {
  auto split = SplitAddress(address);
  if (!split.ok()) return split.status();
  const std::string host = split->host == "localhost" ? "127.0.0.1" : split->host;
  // A few threads, so that a slow scraper does not hide readiness; what they cannot take waits or
  // is refused.
  const std::vector<std::string> options = {
      "listening_ports",    absl::StrCat(host, ":", split->port),
      "num_threads",        "8",
      "connection_queue",   "16",
      "request_timeout_ms", "5000",
      "enable_keep_alive",  "no",
      "max_request_size",   "8192"};
  std::unique_ptr<HttpServer> out(new HttpServer());
  std::string log;
  CivetCallbacks callbacks;
  callbacks.log_message = CollectLog;
  start_log = &log;
  try {
    out->server_ = std::make_unique<CivetServer>(options, &callbacks);
    start_log = nullptr;
  } catch (const CivetException& error) {
    start_log = nullptr;
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address,
                                               " for metrics: ", log.empty() ? error.what() : log));
  }
  const std::vector<int> ports = out->server_->getListeningPorts();
  if (ports.empty()) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address, " for metrics"));
  }
  out->address_ = absl::StrCat(split->host, ":", ports.front());
  out->pages_ = std::make_unique<Pages>(std::move(handlers));
  out->server_->addHandler("/", *out->pages_);
  return out;
}

}  // namespace sirocco
