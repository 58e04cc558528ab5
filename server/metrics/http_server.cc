#include "server/metrics/http_server.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/metrics/http_request.h"

namespace sirocco {
namespace {

constexpr size_t kMaxConnections = 256;
constexpr std::chrono::seconds kTimeout{5};  // of a connection, from its first byte to its last
constexpr std::chrono::milliseconds kPauseWithoutFiles{100};
constexpr char kPlain[] = "text/plain; charset=utf-8";

struct HostPort {
  std::string host;  // without brackets
  std::string port;
};

absl::StatusOr<HostPort> SplitAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon != std::string::npos && colon > 0) {
    std::string host = address.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    uint16_t port = 0;
    const char* end = address.data() + address.size();
    const auto [rest, error] = std::from_chars(address.data() + colon + 1, end, port);
    if (error == std::errc() && rest == end && (bracketed || host.find(':') == std::string::npos)) {
      if (bracketed) host = host.substr(1, host.size() - 2);
      return HostPort{host, std::to_string(port)};
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the metrics address \"", address, "\" is not HOST:PORT"));
}

// A socket that listens, and does not block; -1 with `why`.
int OpenListener(const HostPort& to, std::string& why) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  const std::string host = to.host == "localhost" ? "127.0.0.1" : to.host;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), to.port.c_str(), &hints, &found); error != 0) {
    why = gai_strerror(error);
    return -1;
  }
  const int on = 1;
  const int fd =
      socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, found->ai_protocol);
  const bool listens = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
                       bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 128) == 0;
  if (!listens) why = std::strerror(errno);
  freeaddrinfo(found);
  if (listens) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

int PortOf(int listener) {
  sockaddr_storage bound = {};
  socklen_t size = sizeof(bound);
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return 0;
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                           : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
}

HttpPage StatePage(const std::string& why_not) {
  if (why_not.empty()) return {200, kPlain, "ok\n"};
  return {503, kPlain, why_not + "\n"};
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address,
                                                              HttpHandlers handlers) {
  std::unique_ptr<HttpServer> out(new HttpServer(std::move(handlers)));
  if (absl::Status status = out->Listen(address); !status.ok()) return status;
  out->thread_ = std::thread([raw = out.get()] { raw->Run(); });
  return out;
}

absl::Status HttpServer::Listen(const std::string& address) {
  const auto split = SplitAddress(address);
  if (!split.ok()) return split.status();
  std::string why;
  listener_ = OpenListener(*split, why);
  stop_ = eventfd(0, EFD_CLOEXEC);
  if (listener_ >= 0 && stop_ < 0) why = std::strerror(errno);
  if (stop_ < 0 || listener_ < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, " for metrics: ", why));
  }
  address_ = absl::StrCat(address.substr(0, address.rfind(':')), ":", PortOf(listener_));
  return absl::OkStatus();
}

HttpServer::~HttpServer() {
  if (thread_.joinable()) {
    eventfd_write(stop_, 1);
    thread_.join();
  }
  if (listener_ >= 0) close(listener_);
  if (stop_ >= 0) close(stop_);
}

std::string HttpServer::Answer(std::string_view head) const {
  const HttpRequest request = ParseHttpRequest(head);
  HttpPage page = {404, kPlain, "not found; there are /metrics, /healthz and /readyz\n"};
  if (request.error != 0) {
    page = HttpErrorPage(request.error);
  } else if (request.path == "/metrics") {
    page = {200, "text/plain; version=0.0.4; charset=utf-8", handlers_.metrics()};
  } else if (request.path == "/readyz") {
    page = StatePage(handlers_.not_ready());
  } else if (request.path == "/healthz") {
    page = StatePage(handlers_.not_healthy());
  }
  return HttpAnswer(page, !request.head);
}

void HttpServer::Accept() {
  for (;;) {
    const int socket = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) {
      // Without a file for it the connection stays in the queue, and poll() would not wait.
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        accept_from_ = Clock::now() + kPauseWithoutFiles;
      }
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return;
    }
    const std::shared_ptr<SSL_CTX> tls = handlers_.tls ? handlers_.tls() : nullptr;
    if (connections_.size() == kMaxConnections) connections_.pop_front();
    connections_.emplace_back(socket, tls.get(), Clock::now() + kTimeout);
  }
}

int HttpServer::Patience(Clock::time_point now) const {
  Clock::time_point until = Clock::time_point::max();
  if (!connections_.empty()) until = connections_.front().deadline();
  if (accept_from_ > now) until = std::min(until, accept_from_);
  if (until == Clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - now).count();
  return static_cast<int>(std::max<int64_t>(left, 0));
}

void HttpServer::Run() {
  const auto answer = [this](std::string_view head) { return Answer(head); };
  std::vector<pollfd> waits;
  for (;;) {
    const Clock::time_point now = Clock::now();
    waits = {{stop_, POLLIN, 0},
             {listener_, static_cast<short>(accept_from_ > now ? 0 : POLLIN), 0}};
    for (const HttpConnection& one : connections_) {
      waits.push_back({one.socket(), one.events(), 0});
    }
    if (poll(waits.data(), waits.size(), Patience(now)) < 0 && errno != EINTR) return;
    if (waits[0].revents != 0) return;
    const Clock::time_point later = Clock::now();
    size_t i = 2;
    for (auto one = connections_.begin(); one != connections_.end(); ++i) {
      const bool goes_on =
          one->deadline() > later && (waits[i].revents == 0 || one->Advance(answer));
      one = goes_on ? std::next(one) : connections_.erase(one);
    }
    if (waits[1].revents != 0) Accept();
  }
}

}  // namespace sirocco
