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

absl::Status CheckMode(Mode mode, Device& device) {
  if (!UsesGraphs(mode)) return absl::OkStatus();
  absl::Status status = device.BeginRecord();
  if (status.ok()) return device.EndRecord().status();
  if (!absl::IsUnimplemented(status)) return status;
  const bool decoder = mode == Mode::kDecoderGraph;
  return absl::UnimplementedError(absl::StrCat(
      "mode ", std::string(NameOf(mode)), ": the ", std::string(device.backend()),
      " backend captures no graphs yet; take EOLE_TORCH_COMPILE=1 EOLE_COMPILE_MODE=",
      decoder ? "1 (decoder" : "3 (layer", ", the same plan without graphs), or backend: cpu"));
}

std::string ModeHint(Device& device) {
  if (CheckMode(Mode::kDecoderGraph, device).ok()) {
    return "mode eager replays no graphs; EOLE_TORCH_COMPILE=1 EOLE_COMPILE_MODE=0 (decoder_graph) "
           "replays each decode step as one";
  }
  return absl::StrCat("mode eager fuses nothing; the ", std::string(device.backend()),
                      " backend also runs EOLE_TORCH_COMPILE=1 with EOLE_COMPILE_MODE=1 (decoder) "
                      "and 3 (layer)");
}

}  // namespace sirocco
