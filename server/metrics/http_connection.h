// One connection of the metrics endpoint, in the clear or over TLS: it reads a request, writes the
// answer and ends. It never waits; its owner does, for what `events` says.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

using SSL = struct ssl_st;
using SSL_CTX = struct ssl_ctx_st;

namespace sirocco {

class HttpConnection {
 public:
  using Clock = std::chrono::steady_clock;
  // The answer to a request's head.
  using Answer = std::function<std::string(std::string_view head)>;

  // Takes the socket, which does not block. `tls`: nullptr for one in the clear.
  HttpConnection(int socket, SSL_CTX* tls, Clock::time_point deadline);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  int socket() const { return socket_; }
  // What poll() is to wait for.
  short events() const { return events_; }
  Clock::time_point deadline() const { return deadline_; }

  // Goes on as far as it can without waiting. False: it has ended.
  bool Advance(const Answer& answer);

 private:
  enum class Stage { kHandshake, kRead, kWrite, kDrain };
  enum class Progress { kDone, kWait, kEnded };
  Progress Handshake();
  Progress Read(const Answer& answer);
  Progress Write();
  Progress Drain();
  // recv() and send(), by TLS where that is: bytes; 0: the other side has ended; -1: wait for
  // `events_`; -2: broken.
  int Receive(char* to, int bytes);
  int Send(std::string_view text);
  int AfterTls(int result);

  const int socket_;
  const Clock::time_point deadline_;
  SSL* ssl_ = nullptr;
  Stage stage_;
  short events_;
  std::string request_, answer_;
  size_t written_ = 0;
  size_t drained_ = 0;
};

}  // namespace sirocco
