#include "server/metrics/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace sirocco {
namespace {

int Connect(const std::string& address) {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  return fd;
}

// What the server answers until it closes the connection.
std::string Talk(const std::string& address, const std::string& request) {
  const int fd = Connect(address);
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, n);
  close(fd);
  return answer;
}

std::string Ask(const std::string& address, const std::string& method, const std::string& path) {
  return Talk(address, method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
}

std::string StatusLine(const std::string& answer) { return answer.substr(0, 12); }

std::string Body(const std::string& answer) {
  const size_t at = answer.find("\r\n\r\n");
  return at == std::string::npos ? "(no body)" : answer.substr(at + 4);
}

class HttpServerTest : public testing::Test {
 protected:
  HttpServerTest() {
    auto server =
        HttpServer::Start("127.0.0.1:0", {.metrics = [] { return "a_metric 1\n"; },
                                          .not_ready = [this] { return not_ready_; },
                                          .not_healthy = [this] { return not_healthy_; }});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::string not_ready_, not_healthy_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, Metrics) {
  const std::string answer = Ask(server_->address(), "GET", "/metrics");
  EXPECT_EQ(StatusLine(answer), "HTTP/1.1 200");
  EXPECT_NE(answer.find("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            std::string::npos)
      << answer;
  EXPECT_EQ(Body(answer), "a_metric 1\n");
  EXPECT_EQ(Body(Ask(server_->address(), "GET", "/metrics?x=1")), "a_metric 1\n");
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  const std::string answer = Ask(server_->address(), "HEAD", "/metrics");
  EXPECT_EQ(StatusLine(answer), "HTTP/1.1 200");
  EXPECT_NE(answer.find("Content-Length: 11\r\n"), std::string::npos) << answer;
  EXPECT_EQ(Body(answer), "");
}

TEST_F(HttpServerTest, Probes) {
  for (const char* path : {"/readyz", "/healthz"}) {
    const std::string answer = Ask(server_->address(), "GET", path);
    EXPECT_EQ(StatusLine(answer), "HTTP/1.1 200");
    EXPECT_EQ(Body(answer), "ok\n");
  }
  not_ready_ = "loading";
  const std::string answer = Ask(server_->address(), "GET", "/readyz");
  EXPECT_EQ(StatusLine(answer), "HTTP/1.1 503");
  EXPECT_EQ(Body(answer), "loading\n");
  EXPECT_EQ(StatusLine(Ask(server_->address(), "GET", "/healthz")), "HTTP/1.1 200");
  not_healthy_ = "the device has failed";
  EXPECT_EQ(StatusLine(Ask(server_->address(), "HEAD", "/healthz")), "HTTP/1.1 503");
}

TEST_F(HttpServerTest, NothingElse) {
  for (const char* path : {"/", "/nothing", "/metrics/", "/metrics/x", "/readyzz", "/etc/passwd",
                           "/../../etc/passwd", "/%2e%2e/etc/passwd"}) {
    EXPECT_EQ(StatusLine(Ask(server_->address(), "GET", path)), "HTTP/1.1 404") << path;
  }
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}) {
    const std::string answer = Ask(server_->address(), method, "/metrics");
    EXPECT_EQ(answer.find("a_metric"), std::string::npos) << method << answer;
    EXPECT_NE(StatusLine(answer), "HTTP/1.1 200") << method;
  }
}

TEST_F(HttpServerTest, GarbageHarmsNothing) {
  Talk(server_->address(), "\r\n\r\n");
  Talk(server_->address(), "GET\r\n\r\n");
  Talk(server_->address(), "GET /metrics HTTP/9.9\r\n\r\n");
  Talk(server_->address(), "GET /" + std::string(7000, 'x') + " HTTP/1.1\r\n\r\n");
  EXPECT_EQ(Body(Ask(server_->address(), "GET", "/metrics")), "a_metric 1\n");
}

TEST_F(HttpServerTest, OneIdleConnectionDoesNotHideTheRest) {
  const int idle = Connect(server_->address());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(Body(Ask(server_->address(), "GET", "/readyz")), "ok\n");
  }
  close(idle);
}

// More of them than there are connections: the oldest give way.
TEST_F(HttpServerTest, SlowClientsKeepNobodyOut) {
  std::vector<int> slow;
  for (int i = 0; i < 300; ++i) {
    slow.push_back(Connect(server_->address()));
    EXPECT_EQ(send(slow.back(), "GET /met", 8, MSG_NOSIGNAL), 8);
  }
  EXPECT_EQ(Body(Ask(server_->address(), "GET", "/readyz")), "ok\n");
  char byte;
  EXPECT_LE(recv(slow.front(), &byte, 1, 0), 0);
  EXPECT_EQ(recv(slow.back(), &byte, 1, MSG_DONTWAIT), -1) << "the newest is still there";
  EXPECT_EQ(errno, EAGAIN);
  for (const int one : slow) close(one);
}

TEST_F(HttpServerTest, ARequestInPieces) {
  const int fd = Connect(server_->address());
  for (const char c : std::string("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")) {
    ASSERT_EQ(send(fd, &c, 1, MSG_NOSIGNAL), 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, n);
  close(fd);
  EXPECT_EQ(Body(answer), "a_metric 1\n");
}

TEST_F(HttpServerTest, WhatIsWrongHasItsStatus) {
  const auto status = [this](const std::string& request) {
    return StatusLine(Talk(server_->address(), request)).substr(9);
  };
  EXPECT_EQ(status("GET /metrics HTTP/1.0\r\n\r\n"), "200");
  EXPECT_EQ(status("GET /metrics HTTP/9.9\r\n\r\n"), "505");
  EXPECT_EQ(status("GET metrics HTTP/1.1\r\n\r\n"), "400");
  EXPECT_EQ(status("GET  HTTP/1.1\r\n\r\n"), "400");
  EXPECT_EQ(status("GET /a b HTTP/1.1\r\n\r\n"), "400");
  EXPECT_EQ(status("GET /metrics\r\n\r\n"), "400");
  EXPECT_EQ(status("\x16\x03\x01 hello\r\n\r\n"), "400");
  EXPECT_EQ(status("GET / HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\n\r\n"), "431");
  // Its body is not read, and the answer comes all the same.
  const std::string answer =
      Talk(server_->address(), "POST /metrics HTTP/1.1\r\n\r\n" + std::string(30'000, 'x'));
  EXPECT_EQ(StatusLine(answer), "HTTP/1.1 405");
  EXPECT_NE(answer.find("Allow: GET, HEAD\r\n"), std::string::npos);
}

// Its thread waits for nobody: an open connection does not hold up the end.
TEST(HttpServer, EndsAtOnce) {
  auto server = HttpServer::Start("127.0.0.1:0", {});
  ASSERT_TRUE(server.ok()) << server.status();
  const int idle = Connect((*server)->address());
  const auto begin = std::chrono::steady_clock::now();
  *server = nullptr;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
  close(idle);
}

TEST_F(HttpServerTest, SeveralAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this] {
      for (int j = 0; j < 10; ++j) {
        EXPECT_EQ(Body(Ask(server_->address(), "GET", "/metrics")), "a_metric 1\n");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(HttpServerTest, ATakenAddressIsNamed) {
  const auto second = HttpServer::Start(server_->address(), {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find(server_->address()), absl::string_view::npos);
  EXPECT_NE(second.status().message().find("Address already in use"), absl::string_view::npos)
      << second.status();
}

TEST(HttpServer, Localhost) {
  const auto server = HttpServer::Start("localhost:0", {});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->address().find("localhost:"), 0u);
  EXPECT_NE((*server)->address(), "localhost:0");
}

TEST(HttpServer, WhatIsNoAddress) {
  for (const char* address : {"", "9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000",
                              "127.0.0.1:94s", "127.0.0.1:-1", "127.0.0.1:80,127.0.0.1:81"}) {
    EXPECT_EQ(HttpServer::Start(address, {}).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
  EXPECT_EQ(HttpServer::Start("192.0.2.1:0", {}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(HttpServer::Start("no.such.host.invalid:0", {}).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace sirocco
