#include "server/model/open_device.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/open.h"
#include "server/model/available_cores.h"

namespace sirocco {

absl::StatusOr<OpenedDevice> OpenDevice(const Config& config) {
  return OpenDevice(config, [&config] {
    CudaOptions options;
    options.portable = config.cuda_portable;
    options.batch_invariant = config.batch_invariant;
    return OpenCudaDevice(options);
  });
}

absl::StatusOr<OpenedDevice> OpenDevice(const Config& config, const DeviceOpener& open_cuda) {
  std::string why = "asked for";
  if (config.backend != "cpu") {
    absl::StatusOr<std::unique_ptr<Device>> cuda = open_cuda();
    if (cuda.ok()) {
      return OpenedDevice{*std::move(cuda),
                          config.backend == "auto" ? "auto: a CUDA device was found" : why};
    }
    const std::string reason(cuda.status().message());
    if (config.backend == "cuda") {
      return absl::UnavailableError(
          absl::StrCat("backend: cuda was asked for, and cannot be had: ", reason));
    }
    why = absl::StrCat("auto: cuda cannot be had: ", reason);
  }
  absl::StatusOr<std::unique_ptr<Device>> cpu =
      CreateCpuDevice(static_cast<int>(config.threads.value_or(AvailableCores())));
  if (!cpu.ok()) return cpu.status();
  return OpenedDevice{*std::move(cpu), std::move(why)};
}

}  // namespace sirocco
