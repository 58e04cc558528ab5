#include "tests/e2e/served_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

extern char** environ;

namespace sirocco {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kStart{60};

std::vector<std::string> EnvironmentWith(const std::map<std::string, std::string>& more) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (text.substr(0, 8) != "SIROCCO_" && text.substr(0, 5) != "EOLE_") all.emplace_back(text);
  }
  for (const auto& [name, value] : more) all.push_back(absl::StrCat(name, "=", value));
  return all;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Up to its end; what came until then if that takes too long.
std::string ReadLine(int fd, Clock::time_point until) {
  std::string line;
  while (line.empty() || line.back() != '\n') {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    pollfd ready = {fd, POLLIN, 0};
    if (left.count() <= 0 || poll(&ready, 1, static_cast<int>(left.count())) <= 0) break;
    char byte;
    if (read(fd, &byte, 1) != 1) break;
    line.push_back(byte);
  }
  return line;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServedProcess>> ServedProcess::Start(const Options& options) {
  std::vector<std::string> arguments = {options.program,    "serve",      "--listen", "127.0.0.1:0",
                                        "--metrics-listen", "127.0.0.1:0"};
  arguments.insert(arguments.end(), options.flags.begin(), options.flags.end());
  std::vector<std::string> environment = EnvironmentWith(options.environment);

  int output[2];
  if (pipe2(output, O_CLOEXEC) != 0) return absl::InternalError("no pipe can be had");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, options.log.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, options.program.c_str(), &actions, nullptr,
                                Pointers(arguments).data(), Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  close(output[1]);
  if (error != 0) {
    close(output[0]);
    return absl::InternalError(absl::StrCat(options.program, ": ", std::strerror(error)));
  }
  std::unique_ptr<ServedProcess> process(new ServedProcess(pid, options.log));
  const std::string line = ReadLine(output[0], Clock::now() + kStart);
  close(output[0]);  // it prints nothing more
  // ready grpc=HOST:PORT metrics=HOST:PORT
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (word.rfind("grpc=", 0) == 0) process->address_ = word.substr(5);
    if (word.rfind("metrics=", 0) == 0) process->metrics_address_ = word.substr(8);
  }
  if (process->address_.empty() || process->metrics_address_.empty()) {
    const std::optional<int> status = process->WaitForExit(std::chrono::seconds(1));
    return absl::InternalError(absl::StrCat(
        "not ready, but '", line, "'; ", status ? absl::StrCat("exit status ", *status) : "no end",
        "; its log:\n", process->Log()));
  }
  return process;
}

ServedProcess::~ServedProcess() {
  if (ended_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::string ServedProcess::Get(const std::string& path) const {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(
      static_cast<uint16_t>(std::atoi(metrics_address_.c_str() + metrics_address_.rfind(':') + 1)));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0) {
    const std::string request =
        absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    char buffer[4096];
    for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
      answer.append(buffer, static_cast<size_t>(n));
    }
  }
  close(fd);
  return answer;
}

std::optional<double> ServedProcess::Metric(const std::string& name) const {
  std::istringstream scrape(Get("/metrics"));
  for (std::string line; std::getline(scrape, line);) {
    if (line.rfind(name, 0) != 0) continue;
    const char next = line.c_str()[name.size()];
    if (next != '{' && next != ' ') continue;  // of a longer name
    return std::atof(line.c_str() + line.rfind(' ') + 1);
  }
  return std::nullopt;
}

std::string ServedProcess::Log() const {
  std::ifstream in(log_);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

void ServedProcess::Terminate() {
  if (!ended_) kill(pid_, SIGTERM);
}

std::optional<int> ServedProcess::WaitForExit(std::chrono::milliseconds timeout) {
  const Clock::time_point until = Clock::now() + timeout;
  for (int status = 0; !ended_;) {
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      ended_ = true;
      if (WIFEXITED(status)) return WEXITSTATUS(status);
    } else if (Clock::now() >= until) {
      break;
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  return std::nullopt;
}

}  // namespace sirocco
