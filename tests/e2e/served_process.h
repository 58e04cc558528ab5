// `sirocco serve` as a process of its own, for tests in C++: they run where there is no Python.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sirocco {

// Killed with the object, if it still runs.
class ServedProcess {
 public:
  struct Options {
    std::string program;
    std::vector<std::string> flags;  // of `serve`, beside those that pick free ports
    // Beside this process's own, without what configures Sirocco there.
    std::map<std::string, std::string> environment;
    std::string log;  // a file, for standard error
  };

  // Returns when it is ready; INTERNAL, with its exit status and its log, if it ends before or
  // takes a minute.
  static absl::StatusOr<std::unique_ptr<ServedProcess>> Start(const Options& options);
  ~ServedProcess();
  ServedProcess(const ServedProcess&) = delete;
  ServedProcess& operator=(const ServedProcess&) = delete;

  // HOST:PORT of gRPC.
  const std::string& address() const { return address_; }
  // What the metrics' listener answers to a GET, from "HTTP/1.1 " on; empty: nobody answers.
  std::string Get(const std::string& path) const;
  // A sample of /metrics, whatever its labels; nothing: there is none.
  std::optional<double> Metric(const std::string& name) const;
  std::string Log() const;

  // SIGTERM.
  void Terminate();
  // Its exit status; nothing if it still runs after that time, or was killed by a signal.
  std::optional<int> WaitForExit(std::chrono::milliseconds timeout);

 private:
  ServedProcess(pid_t pid, std::string log) : pid_(pid), log_(std::move(log)) {}

  const pid_t pid_;
  const std::string log_;
  std::string address_, metrics_address_;
  bool ended_ = false;
};

}  // namespace sirocco
