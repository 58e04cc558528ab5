#include "server/commands/machine.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/open.h"
#include "server/metrics/http_server.h"
#include "server/model/memory.h"
#include "server/model/open_device.h"

namespace sirocco {
namespace {

// The first line of a file; empty: there is none.
std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return std::string(absl::StripAsciiWhitespace(line));
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul ..." -> "580.65.06"
std::string DriverVersion(const std::string& line) {
  for (const absl::string_view word : absl::StrSplit(line, ' ', absl::SkipEmpty())) {
    if (word.find('.') != absl::string_view::npos && absl::ascii_isdigit(word.front())) {
      return std::string(word);
    }
  }
  return "of an unknown version";
}

std::string Count(rlim_t limit) {
  return limit == RLIM_INFINITY ? "no limit" : absl::StrCat(limit);
}

MachineFact FilesFact() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return {"open files", "unknown"};
  return {"open files",
          absl::StrCat(Count(limit.rlim_max),
                       limit.rlim_cur < limit.rlim_max
                           ? absl::StrCat(" (", Count(limit.rlim_cur), ", which serve raises)")
                           : "",
                       "; a connection is one")};
}

MachineFact TasksFact(const std::string& root) {
  rlimit limit;
  std::string text = "unknown";
  if (getrlimit(RLIMIT_NPROC, &limit) == 0) text = absl::StrCat(Count(limit.rlim_cur));
  uint64_t most = 0;
  if (absl::SimpleAtoi(FirstLine(root + "/sys/fs/cgroup/pids.max"), &most)) {
    absl::StrAppend(&text, ", ", most, " in this container");
  }
  return {"threads", text};
}

MachineFact AddressSpaceFact() {
  rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) != 0) return {"address space", "unknown"};
  if (limit.rlim_cur == RLIM_INFINITY) return {"address space", "no limit"};
  return {"address space", absl::StrCat(BytesForPeople(limit.rlim_cur),
                                        " (ulimit -v): weights are mapped and the KV cache is "
                                        "reserved as a whole; more is needed of large models")};
}

}  // namespace

std::vector<MachineFact> DescribeDriver(const std::string& root) {
  const std::string line = FirstLine(root + "/proc/driver/nvidia/version");
  if (line.empty()) {
    return {{"driver",
             "none (no /proc/driver/nvidia/version): without NVIDIA's only the CPU "
             "computes"}};
  }
  std::vector<MachineFact> facts = {{"driver", absl::StrCat("NVIDIA ", DriverVersion(line))}};
  std::error_code error;
  std::vector<std::string> gpus;
  for (const auto& entry :
       std::filesystem::directory_iterator(root + "/proc/driver/nvidia/gpus", error)) {
    std::ifstream file(entry.path() / "information");
    for (std::string text; std::getline(file, text);) {
      if (!absl::StartsWith(text, "Model:")) continue;
      gpus.push_back(absl::StrCat(absl::StripAsciiWhitespace(text.substr(6)), ", at ",
                                  entry.path().filename().string()));
    }
  }
  std::sort(gpus.begin(), gpus.end());
  for (std::string& gpu : gpus) facts.push_back({"GPU", std::move(gpu)});
  if (access((root + "/dev/nvidiactl").c_str(), R_OK | W_OK) != 0) {
    facts.push_back({"GPU",
                     "/dev/nvidiactl is not there or may not be opened: give this user or "
                     "container access to the GPU"});
  }
  return facts;
}

std::vector<MachineFact> DescribeBackend(const Config& config,
                                         const absl::StatusOr<std::unique_ptr<Device>>& cuda) {
  std::vector<MachineFact> facts;
  if (cuda.ok()) {
    facts.push_back(
        {"CUDA device", absl::StrCat((*cuda)->name(), ", ", BytesForPeople((*cuda)->FreeBytes()),
                                     " free of ", BytesForPeople((*cuda)->TotalBytes()))});
    for (const std::string& note : (*cuda)->notes()) facts.push_back({"CUDA kernels", note});
  } else {
    facts.push_back({"CUDA device", absl::StrCat("none: ", cuda.status().message())});
  }
  if (config.backend == "cuda" && !cuda.ok()) {
    facts.push_back({"backend", "cuda was asked for and cannot be had: no server starts so"});
  } else if (config.backend == "auto") {
    facts.push_back({"backend", cuda.ok() ? "auto, which takes cuda" : "auto, which takes cpu"});
  } else {
    facts.push_back({"backend", config.backend});
  }
  return facts;
}

std::vector<MachineFact> DescribePorts(const Config& config) {
  std::vector<MachineFact> facts;
  // The first is held while the second is tried: they may be one.
  std::vector<std::unique_ptr<HttpServer>> held;
  for (const auto& [key, address] : {std::pair<std::string, std::string>{"listen", config.listen},
                                     {"metrics listen", config.metrics_listen}}) {
    absl::StatusOr<std::unique_ptr<HttpServer>> server =
        HttpServer::Start(address, {.metrics = [] { return std::string(); },
                                    .not_ready = [] { return std::string("this is sirocco info"); },
                                    .not_healthy = [] { return std::string(); }});
    if (server.ok()) {
      held.push_back(*std::move(server));
      facts.push_back({key, absl::StrCat(address, " is free")});
    } else {
      facts.push_back({key, absl::StrCat(server.status().message(),
                                         "; sirocco info --address asks a server that is there")});
    }
  }
  return facts;
}

std::vector<MachineFact> DescribeLimits(const std::string& root) {
  return {FilesFact(), TasksFact(root), AddressSpaceFact()};
}

std::vector<MachineFact> DescribeMachine(const Config& config) {
  std::vector<MachineFact> facts;
  const auto add = [&facts](std::vector<MachineFact> more) {
    std::move(more.begin(), more.end(), std::back_inserter(facts));
  };
  Config on_cpu = config;
  on_cpu.backend = "cpu";
  if (const absl::StatusOr<OpenedDevice> cpu = OpenDevice(on_cpu); cpu.ok()) {
    const Device& device = *cpu->device;
    add({{"processor", device.name()}});
    for (const std::string& note : device.notes()) add({{"CPU kernels", note}});
    add({{"memory", absl::StrCat(BytesForPeople(device.FreeBytes()), " free of ",
                                 BytesForPeople(device.TotalBytes()))}});
  } else {
    add({{"processor", std::string(cpu.status().message())}});
  }
  add(DescribeDriver(""));
  CudaOptions options;
  options.portable = config.cuda_portable;
  add(DescribeBackend(config, OpenCudaDevice(options)));
  add(DescribePorts(config));
  add(DescribeLimits(""));
  return facts;
}

}  // namespace sirocco
