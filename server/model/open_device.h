// Which device a configuration runs on.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "server/config/config.h"

namespace sirocco {

struct OpenedDevice {
  std::unique_ptr<Device> device;
  std::string why;  // for people: "asked for", "auto: a CUDA device was found", ...
};

using DeviceOpener = std::function<absl::StatusOr<std::unique_ptr<Device>>()>;

// `backend`: cpu; cuda, UNAVAILABLE where there is none; or auto: cuda where that opens, else cpu,
// and why not cuda.
absl::StatusOr<OpenedDevice> OpenDevice(const Config& config);

// The same with another way to the CUDA backend.
absl::StatusOr<OpenedDevice> OpenDevice(const Config& config, const DeviceOpener& open_cuda);

}  // namespace sirocco
