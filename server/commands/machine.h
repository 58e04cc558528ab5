// What of this machine matters to a server that is to start here, for `sirocco info`: processor,
// memory, driver, GPU, ports, limits; of what would keep a server from starting, why.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "server/config/config.h"

namespace sirocco {

struct MachineFact {
  std::string name;   // "driver"
  std::string value;  // for people, one line
};

// Of the machine as a whole. The addresses of `config` are listened on for a moment, and the CUDA
// device, where there is one, is opened.
std::vector<MachineFact> DescribeMachine(const Config& config);

// Its parts, for tests: `root` stands before the paths of what is read (/proc, /sys, /dev); empty
// is this machine.

// The NVIDIA driver and the GPUs that it shows.
std::vector<MachineFact> DescribeDriver(const std::string& root);
// The CUDA device that was opened, or why not; and which backend `config` takes with that.
std::vector<MachineFact> DescribeBackend(const Config& config,
                                         const absl::StatusOr<std::unique_ptr<Device>>& cuda);
// Whether gRPC and metrics can listen where `config` has them.
std::vector<MachineFact> DescribePorts(const Config& config);
// Open files, tasks and address space, by this process's limits and its container's.
std::vector<MachineFact> DescribeLimits(const std::string& root);

}  // namespace sirocco
