// libfaulty_device.so: what a server opens as its CUDA backend when a test wants to see its device
// fail. A device like any other until the file SIROCCO_TEST_FAULT_FILE exists; the work that is
// issued from then on has a fault in it, which shows when somebody waits for that work.
//
// SIROCCO_TEST_CUDA_PLUGIN names the real backend, whose fault is a true one: a kernel that writes
// to nobody's memory. Without it the device is the CPU's, working late and failing by its word.
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/plugin.h"
#include "kernels/cuda/plugin_build.h"
#include "kernels/forwarding_device.h"
#include "kernels/ops.h"
#include "tests/graphs/deferring_device.h"

namespace sirocco {
namespace {

// Each step sets marks (graphs/model_executor.cc), so one that runs is broken at the next of them.
class FaultyDevice final : public ForwardingDevice {
 public:
  using Break = std::function<absl::Status(Device& device)>;

  FaultyDevice(std::unique_ptr<Device> device, std::string file, Break break_device)
      : ForwardingDevice(*device),
        device_(std::move(device)),
        file_(std::move(file)),
        break_(std::move(break_device)) {}

  absl::StatusOr<DeviceMark> Mark() override {
    if (!broken_ && access(file_.c_str(), F_OK) == 0) {
      broken_ = true;
      if (absl::Status status = break_(behind()); !status.ok()) return status;
    }
    return ForwardingDevice::Mark();
  }

 private:
  const std::unique_ptr<Device> device_;
  const std::string file_;
  const Break break_;
  bool broken_ = false;
};

absl::Status WriteToNobodysMemory(Device& device) {
  AddParams add;
  add.rows = 1;
  add.sum = add.delta = {reinterpret_cast<void*>(64), DType::kFloat32, 8};
  return device.ops().Run(add);
}

absl::StatusOr<std::unique_ptr<Device>> Open(CudaOptions options) {
  const char* const file = std::getenv("SIROCCO_TEST_FAULT_FILE");
  if (file == nullptr) return absl::FailedPreconditionError("SIROCCO_TEST_FAULT_FILE is not set");
  if (const char* plugin = std::getenv("SIROCCO_TEST_CUDA_PLUGIN"); plugin != nullptr) {
    options.plugin = plugin;
    absl::StatusOr<std::unique_ptr<Device>> cuda = OpenCudaDevice(options);
    if (!cuda.ok()) return cuda.status();
    return std::make_unique<FaultyDevice>(*std::move(cuda), file, WriteToNobodysMemory);
  }
  absl::StatusOr<std::unique_ptr<Device>> cpu = CreateCpuDevice(1);
  if (!cpu.ok()) return cpu.status();
  auto late = std::make_unique<DeferringDevice>(*std::move(cpu),
                                                DeferringDevice::Pace::kWhenWaitedFor, /*seed=*/1);
  DeferringDevice& breakable = *late;
  return std::make_unique<FaultyDevice>(std::move(late), file, [&breakable](Device&) {
    breakable.BreakAfter(0);
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace sirocco

const char* sirocco_cuda_build() { return sirocco::kPluginBuild; }

void sirocco_cuda_open(const sirocco::CudaOptions* options,
                       absl::StatusOr<std::unique_ptr<sirocco::Device>>* device) {
  *device = sirocco::Open(*options);
}
