// libfaulty_device.so: what a server opens as its CUDA backend when a test wants to see its device
// fail, or hang. A device like any other until the file SIROCCO_TEST_FAULT_FILE exists; the work
// that is issued from then on has a fault in it, which shows when somebody waits for that work. As
// long as the file SIROCCO_TEST_HANG_FILE exists, nothing that is issued ends. Single calls fail by
// the schedule SIROCCO_FAULTS, kind `device` (tests/faults).
//
// SIROCCO_TEST_CUDA_PLUGIN names the real backend, whose fault is a true one: a kernel that writes
// to nobody's memory. Without it the device is the CPU's, working late and failing by its word.
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/plugin.h"
#include "kernels/cuda/plugin_build.h"
#include "kernels/forwarding_device.h"
#include "kernels/ops.h"
#include "tests/faults/failing_device.h"
#include "tests/faults/schedule.h"
#include "tests/graphs/deferring_device.h"

namespace sirocco {
namespace {

// Each step sets marks (graphs/model_executor.cc), so one that runs is broken at the next of them.
class FaultyDevice final : public ForwardingDevice {
 public:
  using Break = std::function<absl::Status(Device& device)>;

  FaultyDevice(std::unique_ptr<Device> device, Break break_device)
      : ForwardingDevice(*device), device_(std::move(device)), break_(std::move(break_device)) {}

  absl::StatusOr<DeviceMark> Mark() override {
    while (IsThere(hang_file_)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (!broken_ && IsThere(fault_file_)) {
      broken_ = true;
      if (absl::Status status = break_(behind()); !status.ok()) return status;
    }
    return ForwardingDevice::Mark();
  }

 private:
  static std::string Variable(const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? "" : value;
  }
  static bool IsThere(const std::string& file) { return access(file.c_str(), F_OK) == 0; }

  const std::unique_ptr<Device> device_;
  const std::string fault_file_ = Variable("SIROCCO_TEST_FAULT_FILE");
  const std::string hang_file_ = Variable("SIROCCO_TEST_HANG_FILE");
  const Break break_;
  bool broken_ = false;
};

absl::Status WriteToNobodysMemory(Device& device) {
  AddParams add;
  add.rows = 1;
  add.sum = add.delta = {reinterpret_cast<void*>(64), DType::kFloat32, 8};
  return device.ops().Run(add);
}

absl::StatusOr<std::unique_ptr<Device>> OpenBreakable(CudaOptions options) {
  if (const char* plugin = std::getenv("SIROCCO_TEST_CUDA_PLUGIN"); plugin != nullptr) {
    options.plugin = plugin;
    absl::StatusOr<std::unique_ptr<Device>> cuda = OpenCudaDevice(options);
    if (!cuda.ok()) return cuda.status();
    return std::make_unique<FaultyDevice>(*std::move(cuda), WriteToNobodysMemory);
  }
  absl::StatusOr<std::unique_ptr<Device>> cpu = CreateCpuDevice(1);
  if (!cpu.ok()) return cpu.status();
  auto late = std::make_unique<DeferringDevice>(*std::move(cpu),
                                                DeferringDevice::Pace::kWhenWaitedFor, /*seed=*/1);
  DeferringDevice& breakable = *late;
  return std::make_unique<FaultyDevice>(std::move(late), [&breakable](Device&) {
    breakable.BreakAfter(0);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::unique_ptr<Device>> Open(const CudaOptions& options) {
  absl::StatusOr<std::unique_ptr<Device>> device = OpenBreakable(options);
  if (!device.ok()) return device.status();
  return std::make_unique<FailingDevice>(
      *std::move(device), [](std::string_view call) { return faults::Fault("device", call); });
}

}  // namespace
}  // namespace sirocco

const char* sirocco_cuda_build() { return sirocco::kPluginBuild; }

void sirocco_cuda_open(const sirocco::CudaOptions* options,
                       absl::StatusOr<std::unique_ptr<sirocco::Device>>* device) {
  *device = sirocco::Open(*options);
}
