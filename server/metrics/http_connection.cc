#include "server/metrics/http_connection.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "server/metrics/http_request.h"

namespace sirocco {
namespace {

constexpr int kWait = -1;
constexpr int kBroken = -2;
// What is read of a request's body, only to be thrown away: a socket that is closed with bytes in
// it takes the answer back from a client that has not read it yet.
constexpr size_t kMostDrained = 64 << 10;

}  // namespace

HttpConnection::HttpConnection(int socket, SSL_CTX* tls, Clock::time_point deadline)
    : socket_(socket), deadline_(deadline), stage_(Stage::kRead), events_(POLLIN) {
  if (tls == nullptr) return;
  stage_ = Stage::kHandshake;
  ssl_ = SSL_new(tls);
  if (ssl_ != nullptr) SSL_set_fd(ssl_, socket_);
}

HttpConnection::~HttpConnection() {
  SSL_free(ssl_);
  close(socket_);
}

int HttpConnection::AfterTls(int result) {
  if (result > 0) return result;
  const int error = SSL_get_error(ssl_, result);
  ERR_clear_error();
  switch (error) {
    case SSL_ERROR_WANT_READ:
      events_ = POLLIN;
      return kWait;
    case SSL_ERROR_WANT_WRITE:
      events_ = POLLOUT;
      return kWait;
    case SSL_ERROR_ZERO_RETURN:
      return 0;
    default:
      return kBroken;
  }
}

int HttpConnection::Receive(char* to, int bytes) {
  if (ssl_ != nullptr) return AfterTls(SSL_read(ssl_, to, bytes));
  const ssize_t got = recv(socket_, to, static_cast<size_t>(bytes), 0);
  if (got >= 0) return static_cast<int>(got);
  events_ = POLLIN;
  return errno == EAGAIN || errno == EINTR ? kWait : kBroken;
}

int HttpConnection::Send(std::string_view text) {
  if (ssl_ != nullptr) {
    constexpr size_t kMost = 16 << 10;  // a record's
    return AfterTls(SSL_write(ssl_, text.data(), static_cast<int>(std::min(text.size(), kMost))));
  }
  const ssize_t sent = send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
  if (sent >= 0) return static_cast<int>(sent);
  events_ = POLLOUT;
  return errno == EAGAIN || errno == EINTR ? kWait : kBroken;
}

HttpConnection::Progress HttpConnection::Handshake() {
  if (ssl_ == nullptr) return Progress::kEnded;  // out of memory
  const int result = AfterTls(SSL_accept(ssl_));
  if (result == kWait) return Progress::kWait;
  if (result <= 0) return Progress::kEnded;
  stage_ = Stage::kRead;
  return Progress::kDone;
}

HttpConnection::Progress HttpConnection::Read(const Answer& answer) {
  char bytes[2048];
  const int got = Receive(bytes, sizeof(bytes));
  if (got == kWait) return Progress::kWait;
  if (got <= 0) return Progress::kEnded;
  request_.append(bytes, static_cast<size_t>(got));
  const size_t end = request_.find("\r\n\r\n");
  if (end == std::string::npos && request_.size() < kMaxHttpRequestBytes) return Progress::kDone;
  answer_ = end == std::string::npos || end > kMaxHttpRequestBytes
                ? HttpAnswer(HttpErrorPage(431), true)
                : answer(std::string_view(request_).substr(0, end));
  stage_ = Stage::kWrite;
  return Progress::kDone;
}

HttpConnection::Progress HttpConnection::Write() {
  const int sent = Send(std::string_view(answer_).substr(written_));
  if (sent == kWait) return Progress::kWait;
  if (sent <= 0) return Progress::kEnded;
  written_ += static_cast<size_t>(sent);
  if (written_ < answer_.size()) return Progress::kDone;
  if (ssl_ != nullptr) SSL_shutdown(ssl_);
  ERR_clear_error();
  shutdown(socket_, SHUT_WR);
  stage_ = Stage::kDrain;
  return Progress::kDone;
}

HttpConnection::Progress HttpConnection::Drain() {
  char bytes[4096];
  const ssize_t got = recv(socket_, bytes, sizeof(bytes), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    events_ = POLLIN;
    return Progress::kWait;
  }
  if (got <= 0) return Progress::kEnded;
  drained_ += static_cast<size_t>(got);
  return drained_ > kMostDrained ? Progress::kEnded : Progress::kDone;
}

bool HttpConnection::Advance(const Answer& answer) {
  for (;;) {
    Progress progress = Progress::kEnded;
    switch (stage_) {
      case Stage::kHandshake:
        progress = Handshake();
        break;
      case Stage::kRead:
        progress = Read(answer);
        break;
      case Stage::kWrite:
        progress = Write();
        break;
      case Stage::kDrain:
        progress = Drain();
        break;
    }
    if (progress != Progress::kDone) return progress == Progress::kWait;
  }
}

}  // namespace sirocco
